//! Places to read, as arguments: the same for all commands that read a repository.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::context::{Context, trusted_root};
use crate::error::{Error, Result};
use crate::metadata::anchor_file;
use crate::report::view::Place;

/// The help of an argument that is a place to read: what it is for, and what it may be.
macro_rules! place {
    ($what:literal) => {
        concat!($what, ": a workspace, a folder, https://, s3://, gs:// or az://; PLACE@12 is what snapshot 12 listed, while its files exist")
    };
}

/// The help of an argument that is a place of which what is live is read.
macro_rules! live {
    ($what:literal) => {
        concat!($what, ": a folder, https://, s3://, gs:// or az://")
    };
}

pub(super) use {live, place};

/// How a place is read and verified.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct ReadArgs {
    /// A root file that you trust, such as the one devices are shipped with [default: that of the workspace]
    #[arg(long, value_name = "FILE")]
    pub(super) root: Option<PathBuf>,
    /// The place of protected cohorts, to read their files as well; without it only what is public is read
    #[arg(long, value_name = "PLACE")]
    pub(super) private: Option<String>,
}

impl ReadArgs {
    /// The place that `text` names.
    pub(super) fn place(&self, text: &str) -> Result<Place> {
        Ok(Place::parse(text)?.with_private(self.private.as_deref()))
    }

    /// The root file to verify from: the given one, else that of the workspace, if this is one.
    pub(super) fn root_file(&self, context: &Context) -> Result<Option<PathBuf>> {
        let own = anchor_file(&context.dir)?;
        Ok(self.root.clone().or_else(|| own.is_file().then_some(own)))
    }

    /// The root to verify from.
    pub(super) fn trusted(&self, context: &Context) -> Result<Vec<u8>> {
        trusted_root(self.root.as_deref(), context)
    }
}

/// Refuses an earlier snapshot where what is live is taken over.
pub(super) fn only_live(text: &str) -> Result<&str> {
    match Place::parse(text)?.snapshot() {
        None => Ok(text),
        Some(version) => {
            Err(Error::usage(format!("{text} is what snapshot {version} listed, and only what is live can be taken"))
                .remedy(
                    "leave out the version; tidegate diff, verify, site, doctor and explain read earlier snapshots",
                ))
        }
    }
}
