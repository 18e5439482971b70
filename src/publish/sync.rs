//! Copies a repository from one store to another.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use tidegate_tuf::Limits;
use tidegate_tuf::metadata::Root;
use tidegate_tuf::path::metadata_file;

use super::notice::Notice;
use super::plan::{self, Object, ObjectState, Plan};
use super::source::Source;
use super::store::Remote;
use crate::error::{Error, Result, Rule};
use crate::metadata::danger_parse_unverified;

/// Plans the copy of what is live at `from` to another place: everything that its timestamp refers to, in an order in which
/// nothing ever refers to a missing object. All metadata is verified first, from the trusted `root` on, and every target as it is sent.
///
/// Roots before that one cannot be verified from it. They are copied as they are, for clients that were shipped with them, and a notice says so.
///
/// # Errors
///
/// `P-ROOT` if the trusted `root` is not one of the roots at `from`. Fails if the metadata there does not verify, or if the plan
/// fails.
pub async fn plan_sync(from: &Remote, to: &Remote, root: &[u8], now: DateTime<Utc>) -> Result<(Source, Plan)> {
    let trusted: Root = danger_parse_unverified("root", root)
        .map_err(|error| Error::trust("the given root does not verify").with_source(error))?;
    let version = trusted.common.version;
    let source = Source::store(from.clone(), root.to_vec());
    let there = source.metadata(&metadata_file("root", Some(version)), Limits::default().root_length).await?;
    if there.is_none_or(|there| there != root) {
        let what = format!("{} does not have the root {version} that you trust among its own", from.name());
        return Err(Error::trust(what)
            .rule(Rule::PublishRoot)
            .remedy("check the place and the root file: this is another repository, or someone has replaced it"));
    }
    let (tree, maps) = plan::walk_all(&source, now).await?;
    let mut plan = plan::plan_of(&source, tree, maps, to, now).await?;
    let older: BTreeSet<String> =
        (1..version).map(|older| format!("metadata/{}", metadata_file("root", Some(older)))).collect();
    let is_copied = |object: &&Object| object.state != ObjectState::Unchanged && older.contains(&object.key);
    if let count @ 1.. = plan.objects.iter().filter(is_copied).count() {
        plan.notices.push(Notice::unverified(count, version));
    }
    Ok((source, plan))
}
