//! Recreates a workspace from what is published.
//!
//! Everything signed is restored. What is not published cannot be ([`NOT_PUBLISHED`]). So `tidegate.toml` is written with the public
//! keys under the names of their files or the template's, `cohorts.toml` from the cohort maps, `policy.toml` as in the template, and a
//! new ledger begins, which says from where and which versions.

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
use crate::error::{Error, Result, Rule};
use crate::fs::{self, Changes};
use crate::keys::{self, KeyName, Passphrases, write_public};
use crate::metadata::{FROM_ROOT, METADATA_DIR, Repository, danger_parse_unverified};
use crate::policy::ReleaseState;
use crate::release::adopt;
use crate::workspace::init::{TEMPLATE, fit_policy};
use crate::workspace::{Workspace, manifest_in_force, map_in_force};
use tidegate_model::span::Span;

/// What is not published, and so not recovered.
pub const NOT_PUBLISHED: &[&str] = &[
    "policy.toml (the template's is used)",
    "drafts, validation reports, approvals and proposals",
    "the ledger (a new one begins with this pull)",
    "in tidegate.toml: the repository's name, where keys are and who holds them, facts, slot sizes, receipts",
];

/// A recreated workspace.
#[derive(Debug)]
pub struct Recreated {
    /// What was taken over.
    pub taken: PullReport,
    /// The names given to the keys.
    pub keys: Vec<String>,
    /// Releases that no cohort is offered: never started, replaced, or withdrawn, which is not published.
    pub unoffered: Vec<String>,
}

/// Creates a workspace in `dir` from what is live at `remote`, trusting the root file `root`. Existing configuration is kept, and keys
/// in `keys/` keep the names of their files; `passphrases` are for those that are encrypted.
///
/// # Errors
///
/// Fails if the live metadata does not verify or does not contain `root` (`P-ROOT`), or if a file cannot be fetched or written.
pub async fn recreate(
    dir: &Path,
    remote: &Remote,
    root: &[u8],
    taking: &PullOptions<'_>,
    passphrases: &mut dyn Passphrases,
) -> Result<Recreated> {
    fs::check_own(dir)?;
    let repository = pull::trusted(remote, root, None).await?;
    // Tidegate's roles have a signed time.
    if repository.roles().all(|role| role.issued.is_none()) {
        return Err(Error::refused(
            Rule::ImportSound,
            format!("{} has no channels: another tool made it", remote.name()),
        )
        .remedy("take it over: tidegate import PLACE FOLDER --root FILE --dry-run tells what that takes"));
    }
    let fetched = pull::fetch(dir, remote, &repository, taking.artifacts).await?;
    let workspace = Workspace::lock(dir)?;
    let mut changes = Changes::default();
    for (name, bytes) in repository.files() {
        changes.put(format!("{METADATA_DIR}/{name}"), bytes);
    }
    if repository.first_root() > 1 {
        changes.put(format!("{METADATA_DIR}/{FROM_ROOT}"), format!("{}\n", repository.first_root()));
    }
    let names = key_names(dir, &repository, passphrases);
    configuration(dir, remote, &repository, &names, &mut changes)?;
    publications::published(remote, &repository, None, taking.now).await?.put(&mut changes)?;
    let adopted = adopt::adopt(dir, &repository, &mut changes)?;
    let live = repository.must_have("timestamp")?.version;
    let taken = PullReport {
        live,
        timestamp: live,
        theirs: repository.roles().map(|file| file.name.clone()).collect(),
        releases: adopted.iter().map(|record| record.id().to_string()).collect(),
        fetched,
        ..PullReport::default()
    };
    pull::write_down(dir, &taken, &adopted, &repository, remote.name(), taking, &mut changes)?;
    workspace.commit(changes)?;
    let unoffered = adopted.iter().filter(|record| record.state == ReleaseState::Registered);
    let unoffered = unoffered.map(|record| record.id().to_string()).collect();
    let keys: BTreeSet<String> = names.into_values().map(|(name, _)| name).collect();
    Ok(Recreated { taken, keys: keys.into_iter().collect(), unoffered })
}

/// The configuration files that are not there yet: the user's own are kept.
fn configuration(
    dir: &Path,
    remote: &Remote,
    repository: &Repository,
    names: &Names,
    changes: &mut Changes,
) -> Result<()> {
    let has = |name: &str| dir.join(name).exists();
    if !has("tidegate.toml") {
        let text = settings(dir, remote, repository, names)?;
        Settings::parse(text.as_bytes())?;
        changes.put("tidegate.toml", text);
    }
    let cohorts = if has("cohorts.toml") {
        Cohorts::load(dir)?
    } else {
        let text = cohorts(dir, repository)?;
        let parsed = Cohorts::parse(text.as_bytes())?;
        changes.put("cohorts.toml", text);
        parsed
    };
    for (name, text) in TEMPLATE.into_iter().filter(|(name, _)| !has(name)) {
        match name {
            "policy.toml" => changes.put(name, fit_policy(text, &cohorts)?),
            ".gitignore" | ".gitattributes" => changes.put(name, text),
            _ => {}
        }
    }
    Ok(())
}

/// The keys by id, with their names.
type Names = BTreeMap<KeyId, (String, Key)>;

/// A name for every key in force: that of its file in `keys/`, if it is there; else its role's name, numbered as the keys of that role
/// appeared in the chain of roots if it has had several, as in the template.
fn key_names(dir: &Path, repository: &Repository, passphrases: &mut dyn Passphrases) -> Names {
    let mut files = BTreeMap::new();
    for (name, path) in keys::files(&dir.join("keys")) {
        if name.parse::<KeyName>().is_ok()
            && let Some(public) = keys::public_of(&path, passphrases)
        {
            files.entry(public.id()).or_insert(name);
        }
    }
    let mut taken: BTreeSet<String> = files.values().cloned().collect();
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    let mut all = Names::new();
    for (label, keys) in labelled(repository) {
        let alone = keys.len() == 1;
        for key in keys {
            let id = key.id();
            if all.contains_key(&id) {
                continue;
            }
            if let Some(name) = files.get(&id) {
                all.insert(id, (name.clone(), key));
                continue;
            }
            let number = used.entry(label.clone()).or_default();
            let name = loop {
                *number += 1;
                let name = if alone && *number == 1 { label.clone() } else { format!("{label}-{number}") };
                if taken.insert(name.clone()) {
                    break name;
                }
            };
            all.insert(id, (name, key));
        }
    }
    let in_force: BTreeSet<KeyId> = repository
        .roles()
        .filter_map(|role| repository.keys_of(&role.name))
        .flat_map(|(_, role)| role.keyids.clone())
        .collect();
    all.retain(|id, _| in_force.contains(id));
    all
}

/// The keys of each role in the order of delegation, those of earlier roots first, with the word that they are named by.
fn labelled(repository: &Repository) -> Vec<(String, Vec<Key>)> {
    let mut labelled = Vec::new();
    // Roots before the one that is trusted may be anybody's.
    let before = usize::try_from(repository.first_root() - 1).unwrap_or(usize::MAX);
    for bytes in repository.roots().iter().skip(before) {
        let Ok(root) = danger_parse_unverified::<Root>("root", bytes) else { continue };
        for role in ["root", "targets", "snapshot", "timestamp"] {
            let ids = root.role(role).into_iter().flat_map(|role| &role.keyids);
            labelled.push((role.to_owned(), ids.filter_map(|id| root.keys().get(id).cloned()).collect()));
        }
    }
    let channels = channels(repository);
    // The template's channel has the short names.
    let main = channels.iter().find(|channel| channel.as_str() == "stable").or(channels.first());
    for channel in &channels {
        let label = |power: &str| if main == Some(channel) { power.to_owned() } else { format!("{channel}-{power}") };
        let cohorts = cohorts_of(repository, channel);
        let roles = cohorts.iter().map(|cohort| (cohort_role(channel, cohort), label("rollout")));
        for (role, label) in [(channel_role(channel), label("release"))].into_iter().chain(roles) {
            let Some((keys, spoken)) = repository.keys_of(&role) else { continue };
            labelled.push((label, spoken.keyids.iter().filter_map(|id| keys.get(id).cloned()).collect()));
        }
    }
    labelled
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

fn settings(dir: &Path, remote: &Remote, repository: &Repository, names: &Names) -> Result<String> {
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
    text.push_str(&publishing(remote));
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

/// The places that it was made from, unless they are only read.
fn publishing(remote: &Remote) -> String {
    let place = |remote: &Remote| remote.reopened().map(|place| toml::Value::from(place).to_string());
    let Some(public) = place(remote) else {
        return "# Where to publish to: it was made from a web server.\n#\n#   place = \"s3://BUCKET/PREFIX\"\n[publish]\n\n".to_owned();
    };
    let private = remote.private().and_then(place).map(|place| format!("private = {place}\n")).unwrap_or_default();
    format!("# The place that it was made from.\n[publish]\nplace = {public}\n{private}\n")
}

fn role_table(text: &mut String, table: &str, role: &str, repository: &Repository, names: &Names) -> Result<()> {
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
