//! Recording receipts that are signed with the device's key, and sending them.

mod drain;
mod ledger;
mod recorder;
mod sink;

pub use ledger::{MAX_BYTES, MAX_WAITING};
pub(crate) use recorder::SigningRecorder;
pub use sink::{FolderSink, GateSink, Post, PutSink, StubSink, Urls};

use crate::error::Error;
use crate::key::DeviceKey;
use crate::state::State;
use tidegate_model::name::Text;
use tidegate_model::receipt::{InstallResult, MAX_REASON};
use tidegate_model::text::{printable, public_urls};

/// How a device signs its receipts.
#[derive(Debug, Clone)]
pub struct Receipts {
    /// Its key. Receipts are counted by key: one key is one device.
    pub key: DeviceKey,
    /// How a receipt names the device.
    pub naming: Naming,
}

/// How a receipt names the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Naming {
    /// By the salted hash of the cohort map. Only someone who knows the map and the ids can identify the device.
    ///
    /// The default, because receipts are often readable by others and the id is not needed: receipts are counted by key.
    #[default]
    Hash,
    /// By its id. A gate checks that the id belongs to the sender.
    Id,
}

/// The install result of a step of an update, with its reason if it has one.
pub(crate) fn outcome_of<'a>(before: &State, after: &'a State) -> Option<(InstallResult, Option<&'a str>)> {
    match (before, after) {
        (State::Installing { .. }, State::Rebooting { .. } | State::Trial { .. }) => {
            Some((InstallResult::Installed, None))
        }
        (State::Trial { .. }, State::Confirmed { .. }) => Some((InstallResult::Confirmed, None)),
        (State::RolledBack { attempt, .. }, State::Quarantined { why, .. } | State::Waiting { why, .. }) => {
            // Without a previous place, it stays installed and is not retried.
            let outcome = if attempt.before.is_some() { InstallResult::RolledBack } else { InstallResult::Failed };
            Some((outcome, Some(why)))
        }
        (State::Checking | State::Installing { .. }, State::Quarantined { why, .. }) => {
            Some((InstallResult::Failed, Some(why)))
        }
        _ => None,
    }
}

/// The result that must have been recorded for a release in this state after `last`. A result that could not be saved earlier is recorded
/// when the state is inspected again.
pub(crate) fn expected(state: &State, last: InstallResult) -> Option<(InstallResult, Option<&str>)> {
    let expected = match state {
        State::Rebooting { .. } | State::Trial { .. } | State::RolledBack { .. }
            if last != InstallResult::Confirmed =>
        {
            (InstallResult::Installed, None)
        }
        State::Confirmed { .. } => (InstallResult::Confirmed, None),
        State::Quarantined { why, .. } => match last {
            InstallResult::Failed | InstallResult::RolledBack => return None,
            InstallResult::Offered => (InstallResult::Failed, Some(why.as_str())),
            InstallResult::Installed | InstallResult::Confirmed => (InstallResult::RolledBack, Some(why.as_str())),
        },
        _ => return None,
    };
    // The rollback is already recorded; its cause is not recorded again.
    let is_told = expected.0 == last || (matches!(state, State::RolledBack { .. }) && last != InstallResult::Offered);
    (!is_told).then_some(expected)
}

/// Whether an error is evidence about the release on this device. A failed download is not, whatever its reason: otherwise an attacker
/// in the network could make honest devices stop a rollout.
pub(crate) fn is_failure(error: &Error) -> bool {
    !matches!(error, Error::Fetch(_) | Error::Missing { .. } | Error::WrongTarget { .. })
}

/// A reason in the form that receipts allow: one line of printable ASCII, without the secrets that URLs may contain.
pub(crate) fn reason(text: &str) -> Option<Text> {
    let line = public_urls(text).split_whitespace().collect::<Vec<_>>().join(" ");
    printable(&line, MAX_REASON).trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Attempt;
    use tidegate_model::digest::Digest;
    use tidegate_model::release::Release;

    #[test]
    fn steps_mean_one_outcome_or_none() {
        let release = Release { version: "1.2.0".parse().unwrap(), sequence: 12, sha256: Digest::of(b"manifest") };
        let attempt = Attempt { release: release.clone(), before: Some("a".into()) };
        let no_way_back = Attempt { before: None, ..attempt.clone() };
        let why = || "because".to_owned();
        let waiting = || State::Waiting { until: None, why: why(), release: None };
        let quarantined = || State::Quarantined { release: release.clone(), why: why() };
        let installing = || State::Installing { attempt: attempt.clone(), boot: "1".into() };
        let rebooting = || State::Rebooting { attempt: attempt.clone(), boot: "1".into() };
        let trial = || State::Trial { attempt: attempt.clone(), boot: "2".into(), boots: 1, since: 0 };
        let rolled_back = |attempt: &Attempt, again| State::RolledBack {
            attempt: attempt.clone(),
            boot: "2".into(),
            why: why(),
            again,
        };
        let downloading = || State::Downloading { attempt: attempt.clone() };
        let confirmed = || State::Confirmed { release: release.clone() };
        for (before, after, expected) in [
            (installing(), rebooting(), Some((InstallResult::Installed, None))),
            (installing(), trial(), Some((InstallResult::Installed, None))),
            (installing(), quarantined(), Some((InstallResult::Failed, Some("because")))),
            (installing(), waiting(), None),
            (installing(), State::Idle, None),
            (State::Checking, quarantined(), Some((InstallResult::Failed, Some("because")))),
            (State::Checking, downloading(), None),
            (State::Checking, waiting(), None),
            (downloading(), waiting(), None),
            (rebooting(), trial(), None),
            (rebooting(), rolled_back(&attempt, false), None),
            (trial(), trial(), None),
            (trial(), confirmed(), Some((InstallResult::Confirmed, None))),
            (trial(), rolled_back(&attempt, false), None),
            (rolled_back(&attempt, false), quarantined(), Some((InstallResult::RolledBack, Some("because")))),
            (rolled_back(&attempt, true), waiting(), Some((InstallResult::RolledBack, Some("because")))),
            (rolled_back(&no_way_back, false), quarantined(), Some((InstallResult::Failed, Some("because")))),
            (quarantined(), State::Checking, None),
            (quarantined(), quarantined(), None),
            (confirmed(), State::Checking, None),
        ] {
            assert_eq!(outcome_of(&before, &after), expected, "{before} -> {after}");
        }
    }

    #[test]
    fn expected_receipts_by_state() {
        let release = Release { version: "1.2.0".parse().unwrap(), sequence: 12, sha256: Digest::of(b"manifest") };
        let attempt = Attempt { release: release.clone(), before: Some("a".into()) };
        let boot = || "1".to_owned();
        let why = || "because".to_owned();
        let rebooting = State::Rebooting { attempt: attempt.clone(), boot: boot() };
        let trial = State::Trial { attempt: attempt.clone(), boot: boot(), boots: 1, since: 0 };
        let rolled_back = State::RolledBack { attempt: attempt.clone(), boot: boot(), why: why(), again: false };
        let confirmed = State::Confirmed { release: release.clone() };
        let quarantined = State::Quarantined { release, why: why() };
        let downloading = State::Downloading { attempt };
        let said = |outcome| Some((outcome, None));
        for (state, last, outcome) in [
            (&rebooting, InstallResult::Offered, said(InstallResult::Installed)),
            (&rebooting, InstallResult::Failed, said(InstallResult::Installed)),
            (&rebooting, InstallResult::RolledBack, said(InstallResult::Installed)),
            (&rebooting, InstallResult::Installed, None),
            (&trial, InstallResult::Offered, said(InstallResult::Installed)),
            (&trial, InstallResult::Installed, None),
            (&trial, InstallResult::Confirmed, None),
            (&rolled_back, InstallResult::Offered, said(InstallResult::Installed)),
            (&rolled_back, InstallResult::Installed, None),
            (&rolled_back, InstallResult::RolledBack, None),
            (&confirmed, InstallResult::Installed, said(InstallResult::Confirmed)),
            (&confirmed, InstallResult::Confirmed, None),
            (&quarantined, InstallResult::Offered, Some((InstallResult::Failed, Some("because")))),
            (&quarantined, InstallResult::Installed, Some((InstallResult::RolledBack, Some("because")))),
            (&quarantined, InstallResult::RolledBack, None),
            (&quarantined, InstallResult::Failed, None),
            (&downloading, InstallResult::Offered, None),
            (&State::Idle, InstallResult::Installed, None),
        ] {
            assert_eq!(expected(state, last), outcome, "{state}, {last}");
        }
    }

    #[test]
    fn reasons_are_one_printable_line() {
        let said = |text: &str| reason(text).map(|reason| reason.as_str().to_owned());
        assert_eq!(said("all is\n  well\t"), Some("all is well".into()));
        assert_eq!(said("\u{e9}t\u{e9}\0"), Some("?t??".into()));
        assert_eq!(said(" \n"), None);
        assert_eq!(
            said("https://user:word@mirror.example.com:8443/os.img?token=abc#d: no answer (http://[::1]/x@y?z)"),
            Some("https://mirror.example.com:8443/os.img: no answer (http://[::1]/x@y)".into())
        );
        assert_eq!(said(&"long words ".repeat(100)).unwrap().len(), MAX_REASON);
    }
}
