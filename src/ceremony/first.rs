//! The first root: signed at once where the keys are within reach, else proposed to their holders.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use tidegate_model::digest::Digest;
use tidegate_model::layout::DelegatedRole;
use tidegate_tuf::hash::to_hex;

use super::finish::{Done, FILE, TRANSCRIPTS, attached, check_thresholds, cohort_maps, happening, open};
use crate::config::{RoleSettings, Settings};
use crate::error::{Error, Result};
use crate::fs::Changes;
use crate::keys::{KeyRing, Passphrases};
use crate::metadata::{Document, Edit, Finished, Repository};
use crate::proposal::{
    Kind, Proposal, ProposalRequest, RequirementStatus, Signature, Tool, Transcript, Verified, objections, propose,
    verify,
};
use crate::workspace::init::{Options, Prepared, begin_ledger, commit, prepare};
use crate::workspace::{Ledger, Operation, artifacts};

/// A workspace that was created.
#[derive(Debug)]
pub struct Initialized {
    /// The files written, relative to the workspace.
    pub written: Vec<String>,
    /// The configuration.
    pub settings: Settings,
    /// Why keys cannot sign here, by their names.
    pub elsewhere: BTreeMap<String, String>,
    /// The first root.
    pub first: First,
}

/// The first root of a workspace.
#[derive(Debug)]
pub enum First {
    /// In force, with all other roles.
    Signed(Box<Repository>),
    /// Proposed, with the signatures of the keys that are within reach: a ceremony is under way.
    Proposed(Box<Proposal>),
}

/// Creates a workspace in the folder `dir`, which must be absent, or contain nothing but configuration and keys. On an error nothing is
/// left behind.
///
/// What the keys within reach can sign is signed. If root, targets or a channel lacks signatures then, or if an online key cannot sign,
/// a ceremony begins, and nothing is in force until it is finished.
///
/// # Errors
///
/// Fails if the folder contains other files, if the configuration is invalid, if a key is neither within reach nor declared
/// (`K-MISSING`), or if a file cannot be written.
pub fn init(
    dir: &Path,
    options: &Options,
    now: DateTime<Utc>,
    passphrases: &mut dyn Passphrases,
) -> Result<Initialized> {
    let Prepared { settings, cohorts, mut ring, mut elsewhere, mut changes } = prepare(dir, options, passphrases)?;
    let mut proposal = propose(None, &settings, &cohorts, &ProposalRequest::default(), now)?;
    let verified = verify(&proposal, None)?;
    sign(&mut proposal, &verified, &mut ring, &mut elsewhere, now)?;
    let is_signed = verified.requirement_status(&proposal)?.iter().all(RequirementStatus::is_met);
    let first = if is_signed && online(&settings).all(|role| is_within_reach(role, &elsewhere)) {
        let finished = metadata(&proposal, &verified, &settings, &mut ring, now)?;
        begin_ledger(dir, "init", root_of(&finished.repository)?, &options.actor, now, &mut changes)?;
        changes.extend(finished.changes);
        First::Signed(Box::new(finished.repository))
    } else {
        let tool = Tool::this()?.to_string();
        for signature in proposal.signatures.values_mut().flat_map(BTreeMap::values_mut) {
            signature.tool.clone_from(&tool);
        }
        changes.put(FILE, proposal.to_bytes()?);
        let mut ledger = Ledger::open(dir)?;
        ledger.append(now, happening("ceremony-start", &proposal, &options.actor, Map::new())?)?;
        ledger.put(&mut changes);
        First::Proposed(Box::new(proposal))
    };
    let written = changes.written().map(str::to_owned).collect();
    commit(dir, changes)?;
    Ok(Initialized { written, settings, elsewhere, first })
}

/// Signs every role with as many of its keys as it takes, one of each holder. A key that cannot sign after all is `elsewhere`.
fn sign(
    proposal: &mut Proposal,
    verified: &Verified,
    ring: &mut KeyRing,
    elsewhere: &mut BTreeMap<String, String>,
    now: DateTime<Utc>,
) -> Result<()> {
    for requirement in &verified.requirements {
        let role = &requirement.role;
        let message = proposal.signed_bytes(role)?;
        let (mut count, mut holders) = (0, BTreeSet::new());
        for id in &requirement.threshold.keyids {
            let Some((name, source)) = ring.by_id(id).map(|entry| (entry.name.clone(), entry.uri.source())) else {
                continue;
            };
            let has_signed = verified.holders.get(id).is_some_and(|holder| holders.contains(holder));
            if count >= requirement.threshold.threshold || has_signed || elsewhere.contains_key(&name) {
                continue;
            }
            match ring.signer(&name).and_then(|signer| signer.sign(&message)) {
                Ok(bytes) => {
                    let sig = to_hex(&bytes);
                    let entry = Signature { sig, source: source.into(), time: now, tool: String::new() };
                    proposal.add(role, id.clone(), entry);
                    holders.extend(verified.holders.get(id));
                    count += 1;
                }
                Err(error) => drop(elsewhere.insert(name, error.text().to_owned())),
            }
        }
    }
    Ok(())
}

/// The roles that sign without people.
fn online(settings: &Settings) -> impl Iterator<Item = &RoleSettings> {
    let rollouts = settings.channels.values().map(|channel| &channel.rollout);
    [&settings.roles.snapshot, &settings.roles.timestamp].into_iter().chain(rollouts)
}

fn is_within_reach(role: &RoleSettings, elsewhere: &BTreeMap<String, String>) -> bool {
    let here = role.keys.iter().filter(|name| !elsewhere.contains_key(name.as_str())).count();
    here as u64 >= role.threshold
}

/// What is signed around a first proposal: a cohort that is offered nothing for each delegation, snapshot and timestamp.
pub(super) fn edit(
    proposal: &Proposal,
    verified: &Verified,
    settings: &Settings,
    now: DateTime<Utc>,
) -> Result<Edit<'static>> {
    let mut edit = Edit::initial(now, settings.online());
    for change in &proposal.changes {
        edit.put_signed(&change.role, proposal.file(&change.role)?);
    }
    let delegated = verified.proposed.values().filter_map(|targets| targets.delegations.as_ref());
    for role in delegated.flat_map(|delegations| &delegations.roles) {
        if let Some(DelegatedRole::Cohort { channel, .. }) = DelegatedRole::parse(&role.name) {
            edit.put(&role.name, Document::targets(), settings.channel(&channel)?.rollout.expires.delta());
        }
    }
    Ok(edit)
}

/// What a signed first proposal becomes.
fn metadata(
    proposal: &Proposal,
    verified: &Verified,
    settings: &Settings,
    ring: &mut KeyRing,
    now: DateTime<Utc>,
) -> Result<Finished> {
    let edit = edit(proposal, verified, settings, now)?;
    let mut finished = edit.finish(ring)?.ok_or_else(|| Error::bug("a new repository without metadata"))?;
    for (channel, digest) in cohort_maps(proposal) {
        let bytes = tidegate_tuf::json::canonical(attached(proposal, &channel, &digest)?)
            .map_err(|e| Error::input("the cohort map cannot be written").with_source(e))?;
        finished.changes.put(artifacts::signed_path(&digest), bytes);
    }
    Ok(finished)
}

/// The first root, for the ledger.
fn root_of(repository: &Repository) -> Result<Map<String, Value>> {
    let root = repository.must_have("root")?;
    let root = json!({"version": root.version, "sha256": Digest::of(&root.bytes).to_string()});
    Ok(Map::from_iter([("root".to_owned(), root)]))
}

/// Makes the first root that was proposed the one in force; see [`finish`](fn@super::finish).
pub(super) fn finish(op: &mut Operation<'_>, allowed: &BTreeSet<String>, tool: &Tool) -> Result<Done> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let settings = workspace.settings()?;
    let (proposal, verified) = open(workspace, None)?;
    if proposal.kind == Kind::Release {
        return Err(Error::bug("a release before the first root"));
    }
    let allowed = objections(&proposal, &verified).refuse(allowed)?;
    check_thresholds(&proposal, &verified)?;
    let finished = metadata(&proposal, &verified, &settings, op.keys, now)?;
    let mut changes: Changes = finished.changes;
    let transcript = Transcript::of((&proposal, &verified), &finished.repository, allowed, tool, now)?;
    let name = format!("{TRANSCRIPTS}/{}", transcript.file_name());
    changes.put(name.as_str(), transcript.to_markdown()?.into_bytes());
    changes.remove(FILE);
    let mut evidence = root_of(&finished.repository)?;
    evidence.insert("roles".to_owned(), json!(finished.roles));
    evidence.insert("transcript".to_owned(), name.as_str().into());
    let mut ledger = Ledger::open(workspace.dir())?;
    ledger.append(now, happening("ceremony-finish", &proposal, actor, evidence)?)?;
    ledger.put(&mut changes);
    workspace.commit(changes)?;
    Ok(Done { roles: finished.roles, transcript: workspace.dir().join(name) })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::error::Rule;
    use crate::keys::{NoPassphrases, generate};
    use crate::workspace::Workspace;
    use crate::workspace::init::{KeySource, TEMPLATE, write_files};

    fn options() -> Options {
        Options {
            keys: KeySource::Example,
            salt: Some("00112233445566778899aabbccddeeff".into()),
            actor: "test".into(),
        }
    }

    fn at() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + chrono::TimeDelta::days(20_000)
    }

    #[test]
    fn the_same_inputs_give_the_same_workspace_and_it_opens() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&a, &b] {
            init(dir.path(), &options(), at(), &mut NoPassphrases).unwrap();
        }
        let (a, b) = (Workspace::open(a.path()).unwrap(), Workspace::open(b.path()).unwrap());
        assert_eq!(a.repository().unwrap().files(), b.repository().unwrap().files());
        let settings = a.settings().unwrap();
        assert_eq!(settings.key_entries().unwrap().len(), 11);
        let roles: Vec<_> = a.repository().unwrap().roles().map(|role| role.name.clone()).collect();
        assert_eq!(
            roles,
            [
                "root",
                "timestamp",
                "snapshot",
                "targets",
                "stable",
                "stable.validation",
                "stable.canary",
                "stable.early",
                "stable.general"
            ]
        );
        let mut ring = a.ring(&settings, Box::new(NoPassphrases)).unwrap();
        ring.signer("root-1").unwrap();
    }

    #[test]
    fn a_folder_with_anything_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "x").unwrap();
        let error = init(dir.path(), &options(), at(), &mut NoPassphrases).unwrap_err();
        assert_eq!(error.broken_rule(), Some(Rule::ImportEmpty));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_configuration_that_is_there_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let text = TEMPLATE[1].1.replace("\"canary\"", "\"pioneers\"");
        fs::write(dir.path().join("cohorts.toml"), text).unwrap();
        let made = init(dir.path(), &options(), at(), &mut NoPassphrases).unwrap();
        let First::Signed(repository) = made.first else { panic!("{:?}", made.first) };
        assert!(repository.role("stable.pioneers").is_some());
        let again = init(dir.path(), &options(), at(), &mut NoPassphrases).unwrap_err();
        assert!(again.to_string().contains("is already a workspace"), "{again}");
    }

    fn generate() -> Options {
        Options { keys: KeySource::Generate { kind: generate::Kind::Ed25519, passphrase: None }, ..options() }
    }

    fn publics(text: &str) -> Vec<String> {
        text.lines().filter(|line| line.starts_with("public = \"ed25519")).map(str::to_owned).collect()
    }

    /// Keys that holders made apart sign where they can be reached, are proposed to otherwise, and are never replaced.
    #[test]
    fn declared_public_keys_are_kept() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        init(other.path(), &options(), at(), &mut NoPassphrases).unwrap();
        let declared = fs::read_to_string(other.path().join("tidegate.toml")).unwrap();
        fs::write(dir.path().join("tidegate.toml"), &declared).unwrap();
        let made = init(dir.path(), &generate(), at(), &mut NoPassphrases).unwrap();
        let First::Proposed(proposal) = &made.first else { panic!("{made:?}") };
        assert!(proposal.signatures.is_empty() && made.elsewhere.len() == 11, "{made:?}");
        assert_eq!(publics(&fs::read_to_string(dir.path().join("tidegate.toml")).unwrap()), publics(&declared));
        assert!(!dir.path().join("metadata").exists() && !dir.path().join("keys").exists());
        // Where they can be reached, they sign.
        let here = tempfile::tempdir().unwrap();
        let absolute = declared.replace("file:keys/", &format!("file:{}/keys/", other.path().display()));
        fs::write(here.path().join("tidegate.toml"), &absolute).unwrap();
        let made = init(here.path(), &generate(), at(), &mut NoPassphrases).unwrap();
        assert!(matches!(made.first, First::Signed(_)));
        assert_eq!(fs::read_to_string(here.path().join("tidegate.toml")).unwrap(), absolute);
    }

    /// A process that died after it had written keys, and before it had decided anything, is taken up again.
    #[test]
    fn keys_of_an_interrupted_init_are_used() {
        let (whole, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        init(whole.path(), &generate(), at(), &mut NoPassphrases).unwrap();
        assert_eq!(write_files(dir.path(), None).unwrap().len(), 5);
        fs::create_dir(dir.path().join("keys")).unwrap();
        for name in ["root-1.pem", "rollout.pem"] {
            // Copied with its mode.
            fs::copy(whole.path().join("keys").join(name), dir.path().join("keys").join(name)).unwrap();
        }
        init(dir.path(), &generate(), at(), &mut NoPassphrases).unwrap();
        let public = |dir: &Path, name: &str| {
            let settings = Settings::parse(&fs::read(dir.join("tidegate.toml")).unwrap()).unwrap();
            settings.keys.iter().find(|(key, _)| key.as_str() == name).unwrap().1.public.clone().unwrap()
        };
        for name in ["root-1", "rollout"] {
            assert_eq!(public(dir.path(), name), public(whole.path(), name));
        }
        assert_ne!(public(dir.path(), "root-2"), public(whole.path(), "root-2"));
    }

    #[test]
    fn files_to_edit_are_written_once_and_keep_their_salt() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("policy.toml"), TEMPLATE[2].1).unwrap();
        let written = write_files(dir.path(), None).unwrap();
        assert_eq!(written, [".gitattributes", ".gitignore", "cohorts.toml", "tidegate.toml"]);
        let cohorts = fs::read_to_string(dir.path().join("cohorts.toml")).unwrap();
        assert!(!cohorts.contains("00000000000000000000000000000000"));
        assert!(write_files(dir.path(), None).unwrap().is_empty());
        let declared = Options { keys: KeySource::Declared, salt: None, actor: "test".into() };
        let error = init(dir.path(), &declared, at(), &mut NoPassphrases).unwrap_err();
        assert_eq!(error.broken_rule(), Some(Rule::KeyMissing), "{error}");
        init(dir.path(), &Options { salt: None, ..options() }, at(), &mut NoPassphrases).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("cohorts.toml")).unwrap(), cohorts);
    }

    #[test]
    fn nothing_is_left_behind_by_an_error() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("new");
        let options = Options { salt: Some("not hex".into()), ..options() };
        assert!(init(&dir, &options, at(), &mut NoPassphrases).is_err());
        assert!(!dir.exists());
        let options =
            Options { keys: KeySource::Folder(parent.path().join("no-keys")), salt: None, actor: "test".into() };
        let error = init(&dir, &options, at(), &mut NoPassphrases).unwrap_err();
        assert!(error.to_string().contains("no-keys nor a `public`"), "{error}");
        assert!(!dir.exists());
    }

    #[cfg(unix)]
    #[test]
    fn generated_keys_are_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &generate(), at(), &mut NoPassphrases).unwrap();
        let mode = fs::metadata(dir.path().join("keys/root-1.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
