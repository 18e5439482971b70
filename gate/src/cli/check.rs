//! `tidegate-gate check`

use std::path::Path;

use object_store::ObjectStoreExt as _;
use serde_json::json;

use super::print;
use crate::config::Config;
use crate::context::Gate;
use crate::error::{Error, Result};
use crate::{nonce, tls};

#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) async fn run(path: &Path, json: bool) -> Result<()> {
    let config = Config::load(path)?;
    if let Some(files) = &config.tls {
        tls::load(&config, files)?;
    }
    let gate = Gate::open(config)?;
    for (name, verifier) in &gate.verifiers {
        verifier.jwks.fetch().await.map_err(|error| Error::new(format!("verifiers.{name}: {error}")))?;
    }
    let mut empty = Vec::new();
    for cohort in gate.config.cohorts.keys() {
        match gate.private.store.head(&gate.private.key(&format!("gate/{cohort}.json"))).await {
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => empty.push(cohort),
            Err(error) => return Err(Error::new(format!("{} cannot be read: {error}", gate.private.name()))),
        }
    }
    // Whether the state store is one in which of two writers only one succeeds: without that nonces could be used twice.
    let probe = nonce::make(&gate.secret(), "check", gate.now()).map_err(|refusal| Error::new(refusal.why))?;
    let spend = || nonce::spend(&gate.state, &probe.0, probe.1);
    spend().await.map_err(|_| Error::new(format!("{} cannot be written", gate.state.name())))?;
    match spend().await {
        Err(refusal) if refusal.rule == "G-NON-03" => {}
        _ => {
            return Err(Error::new(format!("{} takes the same object twice", gate.state.name()))
                .remedy("a store without conditional writes lets nonces be used twice: take another"));
        }
    }
    let cohorts: Vec<&String> = gate.config.cohorts.keys().collect();
    if json {
        return print(&json!({"cohorts": cohorts, "unpublished": empty}).to_string());
    }
    for cohort in &empty {
        eprintln!("note: nothing has been published for {cohort} yet (gate/{cohort}.json)");
    }
    let names: Vec<&str> = cohorts.iter().map(|name| name.as_str()).collect();
    print(&format!("{} is sound: it opens {}", path.display(), names.join(", ")))
}
