//! The operator's view: the site, `status.json`, `diff`, `doctor`.

mod site;
mod story;
