//! Copies a repository from one store to another.

use chrono::{DateTime, Utc};

use super::plan::{self, Plan};
use super::source::Source;
use super::store::Remote;
use crate::error::{Error, Result, Rule};

/// Plans the copy of what is live at `from` to another place: everything that its timestamp refers to, in an order in which
/// nothing ever refers to a missing object. All metadata is verified first, and every target as it is sent.
///
/// # Errors
///
/// `P-ROOT` if the trusted `root` is not one of the roots at `from`. Fails if the metadata there does not verify, or if the plan
/// fails.
pub async fn plan_sync(from: &Remote, to: &Remote, root: &[u8], now: DateTime<Utc>) -> Result<(Source, Plan)> {
    let source = Source::store(from.clone());
    let (tree, maps) = plan::walk_all(&source, now).await?;
    if !tree.roots.iter().any(|file| file.bytes == root) {
        return Err(Error::trust(format!("{} does not have the root that you trust among its own", from.name()))
            .rule(Rule::PublishRoot)
            .remedy("check the place and the root file: this is another repository, or someone has replaced it"));
    }
    let plan = plan::plan_of(&source, tree, maps, to, now).await?;
    Ok((source, plan))
}
