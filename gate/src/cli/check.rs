//! `tidegate-gate check`

use std::path::Path;

use serde_json::json;

use super::{print, say};
use crate::config::GateConfig;
use crate::context::GateContext;
use crate::error::{Error, ErrorKind, Result};
use crate::nonce::{self, SpendError};
use crate::tls;

#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) async fn run(path: &Path, json: bool) -> Result<()> {
    let config = GateConfig::load(path)?;
    if let Some(files) = &config.tls {
        tls::load(&config, files)?;
    }
    let gate = GateContext::open(config)?;
    for verifier in gate.verifiers.values() {
        verifier.keys.load().await?;
    }
    let mut unpublished = Vec::new();
    for cohort in gate.config.cohorts.keys() {
        if gate.private.head(&format!("gate/{cohort}.json")).await?.is_none() {
            unpublished.push(cohort);
        }
    }
    check_create_only_writes(&gate).await?;
    if let Some(receipts) = &gate.receipts {
        receipts.quotas.check().await?;
        if let Err(error) = receipts.releases.refresh().await {
            say(&format!("note: no receipts are accepted until the repository can be read: {error}"));
        }
    }
    let cohorts: Vec<&String> = gate.config.cohorts.keys().collect();
    if json {
        return print(&json!({"cohorts": cohorts, "unpublished": unpublished}).to_string());
    }
    for cohort in &unpublished {
        say(&format!("note: nothing is published for {cohort} yet (gate/{cohort}.json)"));
    }
    let names: Vec<&str> = cohorts.iter().map(|name| name.as_str()).collect();
    print(&format!("{} is valid; cohorts: {}", path.display(), names.join(", ")))
}

/// Without create-only writes, a nonce could be used twice.
async fn check_create_only_writes(gate: &GateContext) -> Result<()> {
    let nonce = nonce::issue(&gate.secret(), "check", gate.now())?;
    let spend = || nonce::spend(&gate.state, &nonce.bytes, nonce.expires);
    spend().await.map_err(|error| {
        Error::new(ErrorKind::Network, format!("cannot write to {}", gate.state.location())).with_cause(error)
    })?;
    match spend().await {
        Err(SpendError::AlreadySpent) => Ok(()),
        Err(SpendError::Storage(error)) => Err(error.into()),
        Ok(()) => Err(Error::new(
            ErrorKind::Refused,
            format!("{} does not support conditional writes, so nonces could be used twice", gate.state.location()),
        )
        .with_remedy("use another storage service for state")),
    }
}
