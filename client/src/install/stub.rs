//! An installer for tests.

use std::sync::{Arc, Mutex, PoisonError};

use tidegate_model::version::Version;

use super::{Artifact, InstallError, Installer};
use crate::watch::Watch;

/// An installer for tests that records its calls and can fail. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct StubInstaller(Arc<Mutex<Stub>>);

#[derive(Debug, Default)]
struct Stub {
    installed: Vec<(Version, Vec<Artifact>)>,
    failure: Option<String>,
}

impl StubInstaller {
    /// A stub whose installations succeed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rejects the next release.
    pub fn fail_next(&self, reason: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failure = Some(reason.into());
    }

    /// The installed releases, in order.
    pub fn installed(&self) -> Vec<(Version, Vec<Artifact>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).installed.clone()
    }
}

impl Installer for StubInstaller {
    fn install(&mut self, version: &Version, artifacts: &[Artifact], _: &mut Watch<'_>) -> Result<(), InstallError> {
        let mut stub = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = stub.failure.take() {
            return Err(InstallError::Rejected(reason));
        }
        stub.installed.push((version.clone(), artifacts.to_vec()));
        Ok(())
    }
}
