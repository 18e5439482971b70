//! Verifies what was just published.
//!
//! Written objects, and the timestamp, are read from the place and verified by both implementations. Objects that were already
//! there were verified when they were written, and come from the source. So a small change to a large repository takes a small
//! audit.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::plan::{ObjectState, Plan};
use super::source::{Source, StoreOrigin};
use super::store::{Remote, TIMESTAMP};
use crate::audit::{AuditReport, Origin, View, verify_where};
use crate::error::Result;

/// Audits a publication from the first root of its source on, at the time `now`.
///
/// # Errors
///
/// Fails if the source has no first root, or if reading fails. Defects of the repository are in the report.
pub async fn read_back(plan: &Plan, source: &Source, remote: &Remote, now: DateTime<Utc>) -> Result<AuditReport> {
    let written = plan.objects.iter().filter(|object| object.state != ObjectState::Unchanged);
    let keys: BTreeSet<String> = written.map(|object| object.key.clone()).chain([TIMESTAMP.to_owned()]).collect();
    // A target's path is its object's key without the hash; a file of delivery is known by its key.
    let files = keys.iter().filter_map(|key| key.strip_prefix("targets/").map(ToOwned::to_owned));
    let paths: BTreeSet<String> = keys.iter().filter_map(|key| path_of(key)).chain(files).collect();
    let origin = Both { written: keys, there: StoreOrigin::new(remote.clone()), here: source.origin() };
    let wanted = Arc::new(move |path: &str| paths.contains(path));
    let open: Option<Arc<dyn Origin>> = match remote.private() {
        Some(_) => Some(Arc::new(StoreOrigin::new(remote.clone()))),
        None => None,
    };
    let view = View { origin: Arc::new(origin), open, private: None, is_whole: true, snapshot: None };
    verify_where(view, remote.name(), source.first_root()?, now, wanted).await
}

fn path_of(key: &str) -> Option<String> {
    let (folder, file) = key.strip_prefix("targets/")?.rsplit_once('/')?;
    let (_, name) = file.split_once('.')?;
    Some(format!("{folder}/{name}"))
}

/// Written objects from the place, all others from the source.
struct Both {
    written: BTreeSet<String>,
    there: StoreOrigin,
    here: Arc<dyn Origin>,
}

impl Both {
    fn of(&self, key: &str) -> &dyn Origin {
        if self.written.contains(key) { &self.there } else { self.here.as_ref() }
    }
}

impl Origin for Both {
    fn is_versioned(&self) -> bool {
        self.here.is_versioned()
    }

    fn metadata(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.of(&format!("metadata/{file}")).metadata(file, limit)
    }

    fn target(&self, path: &str, length: u64, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        self.of(&format!("targets/{path}")).target(path, length, sink)
    }
}
