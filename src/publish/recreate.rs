//! Recreates a workspace from what is published.
//!
//! Everything signed is restored. What is not published cannot be: where the private keys are, the policy, drafts, and the
//! ledger. So `tidegate.toml` is written with the public keys under the template's names, `cohorts.toml` from the cohort maps,
//! `policy.toml` as in the template, and a new ledger begins.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use chrono::TimeDelta;
use tidegate_model::cohort::Selector;
use tidegate_model::layout::{Location, channel_role, cohort_role};
use tidegate_model::name::Name;
use tidegate_tuf::key::{Key, KeyId};
use tidegate_tuf::metadata::Root;

use super::publications;
use super::pull::{self, PullOptions, PullReport};
use super::store::Remote;
use crate::config::{Cohorts, Settings, write_share};
use crate::error::{Error, Kind, Result, Rule};
use crate::fs::{self, Changes};
use crate::keys::write_public;
use crate::metadata::{FROM_ROOT, METADATA_DIR, Repository, danger_parse_unverified};
use crate::release::adopt;
use crate::workspace::init::TEMPLATE;
use crate::workspace::{Workspace, manifest_in_force, map_in_force};
use tidegate_model::span::Span;

/// A recreated workspace.
#[derive(Debug)]
pub struct Recreated {
    /// What was taken over.
    pub taken: PullReport,
    /// The names given to the keys.
    pub keys: Vec<String>,
}

/// Creates a workspace in `dir` from what is live at `remote`, trusting the root file `root`. Existing configuration is kept.
///
/// # Errors
///
/// Fails if the live metadata does not verify or does not contain `root` (`P-ROOT`), or if a file cannot be fetched or written.
pub async fn recreate(dir: &Path, remote: &Remote, root: &[u8], taking: &PullOptions<'_>) -> Result<Recreated> {
    fs::check_own(dir)?;
    let given: Root = danger_parse_unverified("root", root)
        .map_err(|error| Error::trust("the given root does not verify").with_source(error))?;
    let repository = match pull::live(remote, 1, &[]).await {
        // Older roots than the given one may be kept that nobody can verify.
        Err(error) if error.kind() == Kind::Trust && given.common.version > 1 => {
            pull::live(remote, given.common.version, &[]).await?
        }
        found => found?,
    };
    if !repository.roots().iter().any(|known| known == root) {
        return Err(Error::trust(format!("{} does not have the root that you trust among its own", remote.name()))
            .rule(Rule::PublishRoot)
            .remedy("check the place and the root file: this is another repository, or someone has replaced it"));
    }
    // Tidegate's roles have a signed time.
    if repository.roles().all(|role| role.issued.is_none()) {
        return Err(Error::refused(
            Rule::ImportSound,
            format!("{} has no channels: another tool made it", remote.name()),
        )
        .remedy("take it over: tidegate import PLACE FOLDER --root FILE --dry-run tells what that takes"));
    }
    // The user's files are kept; only missing ones are created.
    let has = |name: &str| dir.join(name).exists();
    let fetched = pull::fetch(dir, remote, &repository, taking.artifacts).await?;
    let workspace = Workspace::lock(dir)?;
    let mut changes = Changes::default();
    for (name, bytes) in repository.files() {
        changes.put(format!("{METADATA_DIR}/{name}"), bytes);
    }
    if repository.first_root() > 1 {
        changes.put(format!("{METADATA_DIR}/{FROM_ROOT}"), format!("{}\n", repository.first_root()));
    }
    let names = key_names(&repository);
    if !has("tidegate.toml") {
        let text = settings(dir, &repository, &names)?;
        Settings::parse(text.as_bytes())?;
        changes.put("tidegate.toml", text);
    }
    if !has("cohorts.toml") {
        let text = cohorts(dir, &repository)?;
        Cohorts::parse(text.as_bytes())?;
        changes.put("cohorts.toml", text);
    }
    for (name, text) in TEMPLATE
        .iter()
        .filter(|(name, _)| matches!(*name, "policy.toml" | ".gitignore" | ".gitattributes") && !has(name))
    {
        changes.put(*name, *text);
    }
    publications::published(remote, &repository, None, taking.now).await?.put(&mut changes)?;
    let releases = adopt::adopt(dir, &repository, &mut changes)?;
    let live = repository.must_have("timestamp")?.version;
    let taken = PullReport {
        live,
        timestamp: live,
        theirs: repository.roles().map(|file| file.name.clone()).collect(),
        releases: releases.iter().map(ToString::to_string).collect(),
        fetched,
        ..PullReport::default()
    };
    pull::write_down(dir, &taken, remote.name(), taking, &mut changes)?;
    workspace.commit(changes)?;
    Ok(Recreated { taken, keys: names.into_values().map(|(name, _)| name).collect() })
}

/// A name for every key: its role's name, numbered if the role has several keys.
fn key_names(repository: &Repository) -> BTreeMap<KeyId, (String, Key)> {
    let mut names = BTreeMap::new();
    let channels = channels(repository);
    let alone = channels.len() == 1;
    let mut roles: Vec<(String, String)> =
        ["root", "targets", "snapshot", "timestamp"].map(|role| (role.to_owned(), role.to_owned())).to_vec();
    for channel in &channels {
        let label = |power: &str| if alone { power.to_owned() } else { format!("{channel}-{power}") };
        roles.push((channel_role(channel), label("release")));
        for cohort in cohorts_of(repository, channel) {
            roles.push((cohort_role(channel, &cohort), label("rollout")));
        }
    }
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    for (role, label) in roles {
        let Some((keys, spoken)) = repository.keys_of(&role) else { continue };
        for id in &spoken.keyids {
            let Some(key) = keys.get(id).filter(|_| !names.contains_key(id)) else { continue };
            let number = used.entry(label.clone()).or_default();
            *number += 1;
            let single = spoken.keyids.len() == 1 && *number == 1;
            let name = if single { label.clone() } else { format!("{label}-{number}") };
            names.insert(id.clone(), (name, key.clone()));
        }
    }
    names
}

fn channels(repository: &Repository) -> Vec<Name> {
    let delegations = repository.targets("targets").and_then(|targets| targets.delegations.as_ref());
    delegations
        .into_iter()
        .flat_map(|delegations| &delegations.roles)
        .filter_map(|role| role.name.parse().ok())
        .collect()
}

fn cohorts_of(repository: &Repository, channel: &Name) -> Vec<Name> {
    let delegations = repository.targets(&channel_role(channel)).and_then(|targets| targets.delegations.as_ref());
    let roles = delegations.into_iter().flat_map(|delegations| &delegations.roles);
    roles.filter_map(|role| role.name.split_once('.')?.1.parse().ok()).collect()
}

fn settings(dir: &Path, repository: &Repository, names: &BTreeMap<KeyId, (String, Key)>) -> Result<String> {
    let (products, hardware) = made_for(dir, repository)?;
    let list = |names: &BTreeSet<String>| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let mut text = String::from(
        "# tidegate.toml: what is released, who may sign what, and where the keys are.\n#\n# Made from what is published, which says \
         neither what people call this repository nor where the private keys are: fill that in.\n\nschema = 1\n\nname = \"Fleet\"\n\n",
    );
    let _ = writeln!(text, "products = [{}]\n", list(&products));
    for id in &hardware {
        let _ = writeln!(text, "[hardware.{id}]\n");
    }
    for role in ["root", "targets", "snapshot", "timestamp"] {
        role_table(&mut text, &format!("roles.{role}"), role, repository, names)?;
    }
    for channel in channels(repository) {
        role_table(&mut text, &format!("channels.{channel}.release"), &channel_role(&channel), repository, names)?;
        if let Some(cohort) = cohorts_of(repository, &channel).first() {
            role_table(
                &mut text,
                &format!("channels.{channel}.rollout"),
                &cohort_role(&channel, cohort),
                repository,
                names,
            )?;
        }
    }
    for (name, key) in names.values() {
        let public = write_public(key)?;
        let _ = writeln!(text, "[keys.{name}]\nuri = \"file:keys/{name}.pem\"\npublic = {public:?}\n");
    }
    Ok(text)
}

fn role_table(
    text: &mut String,
    table: &str,
    role: &str,
    repository: &Repository,
    names: &BTreeMap<KeyId, (String, Key)>,
) -> Result<()> {
    let (_, spoken) = repository.keys_of(role).ok_or_else(|| Error::bug(format!("no keys of {role}")))?;
    let file = repository.must_have(role)?;
    let lifetime = file.issued.map_or(TimeDelta::days(7), |issued| file.expires - issued);
    let keys: Vec<String> =
        spoken.keyids.iter().filter_map(|id| names.get(id)).map(|(name, _)| format!("{name:?}")).collect();
    let _ = writeln!(
        text,
        "[{table}]\nkeys = [{}]\nthreshold = {}\nexpires = \"{}\"\n",
        keys.join(", "),
        spoken.threshold,
        Span::from_delta(lifetime)
    );
    Ok(())
}

/// The products with releases, and the hardware of their artifacts. Settings need at least one of each, so neither is empty.
fn made_for(dir: &Path, repository: &Repository) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut products, mut hardware) = (BTreeSet::new(), BTreeSet::new());
    for channel in channels(repository) {
        let Some(targets) = repository.targets(&channel_role(&channel)) else { continue };
        for path in targets.targets.keys() {
            let Some(Location::Manifest { product, .. }) = Location::parse(path) else { continue };
            products.insert(product.to_string());
            let (manifest, _) = manifest_in_force(dir, repository, &channel, path)?;
            hardware.extend(manifest.artifacts.iter().flat_map(|artifact| &artifact.hardware).map(ToString::to_string));
        }
    }
    if products.is_empty() {
        products.insert("os".to_owned());
    }
    if hardware.is_empty() {
        hardware.insert("board-a".to_owned());
    }
    Ok((products, hardware))
}

fn cohorts(dir: &Path, repository: &Repository) -> Result<String> {
    let mut text = String::from("# cohorts.toml: who gets a release first. Made from the published cohort maps.\n");
    for channel in channels(repository) {
        let map = map_in_force(dir, repository, &channel)?;
        let _ = writeln!(text, "\n[{channel}]\nsalt = \"{}\"", map.salt());
        for cohort in map.cohorts() {
            let _ = writeln!(text, "\n[[{channel}.cohort]]\nname = \"{}\"", cohort.name);
            match &cohort.selector {
                Selector::Share(ppm) => {
                    let _ = writeln!(text, "share = \"{}\"", write_share(*ppm));
                }
                Selector::Devices(devices) => {
                    let devices: Vec<String> = devices.iter().map(|device| format!("\"{device}\"")).collect();
                    let _ = writeln!(text, "devices = [{}]", devices.join(", "));
                }
                Selector::Condition(condition) => {
                    let value = toml::Value::try_from(condition)
                        .map_err(|error| Error::bug("a condition as TOML").with_source(error))?;
                    let _ = writeln!(text, "condition = {value}");
                }
            }
            if let Some(protected) = &cohort.protected {
                let _ = writeln!(text, "protected = {{ gate = \"{}\" }}", protected.gate);
            }
        }
    }
    Ok(text)
}
