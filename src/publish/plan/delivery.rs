//! The files of delivery in a plan: what manifests and lists of patches name goes where these go, before any role.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tidegate_tuf::Chain;
use tidegate_tuf::metadata::Targets;

use super::{Content, Object, ObjectState, READERS, Tree, UploadStage, target_key};
use crate::audit::delivery::{self, DeliveryFile};
use crate::audit::protect::Protection;
use crate::error::Result;
use crate::publish::source::Source;
use crate::publish::store::Remote;

/// What manifests and lists of patches name, by their keys.
pub(super) type Named = BTreeMap<String, Vec<DeliveryFile>>;

/// Reads the manifests and lists of patches that are sent; all of them where some are protected, as one file may belong to several.
pub(super) async fn named(source: &Source, tree: &Tree, objects: &[Object], all: bool) -> Result<Named> {
    let is_read = |object: &&Object| all || object.state != ObjectState::Unchanged;
    let wanted: BTreeSet<&str> = objects.iter().filter(is_read).map(|object| object.key.as_str()).collect();
    let mut listed = BTreeMap::new();
    for it in tree.listed().filter(|it| delivery::names_some(it.path)) {
        let key = target_key(it.path, it.file)?;
        if let (true, Some(sha256)) = (wanted.contains(key.as_str()), it.file.hashes.sha256_digest()) {
            listed.insert(key, (it.path, *sha256));
        }
    }
    stream::iter(listed)
        .map(|(key, (path, sha256))| async move {
            // One that is missing is missed when it is sent.
            let bytes = source.small(&key, &sha256, delivery::MAX_LENGTH).await?;
            let files = bytes.and_then(|bytes| delivery::named(path, &bytes)).unwrap_or_default();
            Ok((key, files))
        })
        .buffer_unordered(READERS)
        .try_collect()
        .await
}

/// The objects that these are, at each place that what names them is sent to.
pub(super) fn objects(named: &Named, targets: &[Object]) -> Vec<Object> {
    let (mut objects, mut seen) = (Vec::new(), BTreeSet::new());
    for target in targets.iter().filter(|target| target.state != ObjectState::Unchanged) {
        for file in named.get(&target.key).into_iter().flatten() {
            let (key, private) = (file.key(), target.private);
            if seen.insert((key.clone(), private)) {
                objects.push(Object {
                    key,
                    stage: UploadStage::Target,
                    state: ObjectState::New,
                    length: file.length,
                    private,
                    ahead: false,
                    content: Content::Artifact { sha256: *file.sha256.as_bytes() },
                });
            }
        }
    }
    objects
}

/// Adds to the live protection what live manifests and lists of patches name. One that cannot be read names nothing that is protected:
/// then everything is written, or found to be there.
pub(super) async fn follow_live(
    before: &mut Protection,
    live: &[(Chain, Option<Targets>)],
    named: &Named,
    remote: &Remote,
    requests: &mut u64,
) -> Result<()> {
    if !before.is_any() {
        return Ok(());
    }
    let mut listed = BTreeMap::new();
    for (path, file) in live.iter().filter_map(|(_, targets)| targets.as_ref()).flat_map(|targets| &targets.targets) {
        if delivery::names_some(path) {
            listed.insert(target_key(path, file)?, path);
        }
    }
    let (known, unknown): (BTreeMap<_, _>, BTreeMap<_, _>) =
        listed.into_iter().partition(|(key, _)| named.contains_key(key));
    for key in known.keys() {
        before.follow(key, named.get(key).map_or(&[], Vec::as_slice));
    }
    *requests += unknown.len() as u64;
    let found: Vec<(String, Vec<DeliveryFile>)> = stream::iter(unknown)
        .map(|(key, path)| async move {
            let seen = remote.find(&key, delivery::MAX_LENGTH).await?;
            let files = seen.and_then(|seen| delivery::named(path, &seen.bytes)).unwrap_or_default();
            Ok::<_, crate::Error>((key, files))
        })
        .buffer_unordered(READERS)
        .try_collect()
        .await?;
    for (key, files) in found {
        before.follow(&key, &files);
    }
    Ok(())
}
