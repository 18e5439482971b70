//! The rules that refuse, each with a stable id.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! rules {
    ($($name:ident = $id:literal, $requires:literal;)*) => {
        /// A rule that something was refused by. Programs branch on it; people read its id beside the error.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = concat!("`", $id, "`: ", $requires, ".")] $name,)*
        }

        impl Rule {
            /// Every rule, by id.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its stable id, such as `R-SOAK`.
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$name => $id,)*
                }
            }

            /// What it requires.
            pub const fn requires(self) -> &'static str {
                match self {
                    $(Self::$name => $requires,)*
                }
            }
        }
    };
}

rules! {
    CeremonyChain = "C-CHAIN", "every root follows from the one before it";
    CeremonyClient = "C-CLIENT", "what is signed can be read by python-tuf, go-tuf and tough, unless that is given up by name";
    CeremonyCohorts = "C-COHORTS", "a change of cohorts exposes at most `rollout.largest_step` of the fleet at one instant";
    CeremonyConfirm = "C-CONFIRM", "the key holder confirms what is about to be signed";
    CeremonyFirst = "C-FIRST", "the first root is signed before anything else";
    CeremonyFormat = "C-FORMAT", "a file that travels is a valid proposal, transcript or signature";
    CeremonyHolder = "C-HOLDER", "a key has a holder before it signs for others";
    CeremonyIssue = "C-ISSUE", "the transcript is of this proposal";
    CeremonyKey = "C-KEY", "only keys that may sign a role sign for it";
    CeremonyKeyId = "C-KEY-ID", "a key id names one key";
    CeremonyNone = "C-NONE", "a proposal is in progress before it is signed or finished";
    CeremonyNothing = "C-NOTHING", "a proposal changes something";
    CeremonyOne = "C-ONE", "one proposal is in progress at a time";
    CeremonyOther = "C-OTHER", "signatures belong to the proposal they were made for";
    CeremonySignature = "C-SIGNATURE", "every signature in a proposal verifies";
    CeremonyStale = "C-STALE", "a proposal follows from what is in force";
    CeremonyStranded = "C-STRANDED", "every device can follow a rotation";
    CeremonyThreshold = "C-THRESHOLD", "a proposal has the signatures its roles require";
    CeremonyTranscript = "C-TRANSCRIPT", "the transcript of a ceremony is complete";
    CeremonyUnseen = "C-UNSEEN", "a proposal brings nothing that its signers do not see, unless they allow it by name";
    DemoFolder = "D-FOLDER", "the demo starts in an empty folder, or one it made itself";
    FleetCsv = "F-CSV", "the device table is valid CSV";
    HealthAge = "H-AGE", "a health report is recent";
    HealthCohort = "H-COHORT", "a health report counts cohorts that are configured";
    HealthCommand = "H-COMMAND", "the health program ends in time, with a report";
    HealthCounts = "H-COUNTS", "the counts of a health report agree with each other";
    HealthFailed = "H-FAILED", "few enough devices could not install the release";
    HealthRelease = "H-RELEASE", "a health report counts the release, exactly once";
    HealthReport = "H-REPORT", "a health report has the documented form";
    HealthRolledBack = "H-ROLLED-BACK", "few enough devices rolled back";
    HealthSilence = "H-SILENCE", "enough devices have reported";
    ImportChain = "I-CHAIN", "an imported root is followed by every later one";
    ImportEmpty = "I-EMPTY", "a workspace is created where there is none";
    ImportSound = "I-SOUND", "an imported repository verifies";
    KeyCheck = "K-CHECK", "every key that was checked can sign";
    KeyExists = "K-EXISTS", "a new key replaces no other";
    KeyMissing = "K-MISSING", "a threshold of a role's keys can be used where the role is signed";
    KeyMode = "K-MODE", "only its owner can read a private key";
    LedgerChain = "L-CHAIN", "the ledger's hash chain is unbroken";
    MetadataSize = "M-SIZE", "devices read what is signed, so it is within their limits";
    MetadataTime = "M-TIME", "nothing is signed or published that is dated later than now, or by a clock behind what is published";
    PublishBase = "P-BASE", "a workspace knows what it has in common with what is live";
    PublishBehind = "P-BEHIND", "a publication continues what is live";
    PublishConfined = "P-CONFINED", "paths stay inside the workspace";
    PublishConflict = "P-CONFLICT", "local and published changes do not conflict";
    PublishDamaged = "P-DAMAGED", "an object's content has the hash in its name";
    PublishEmpty = "P-EMPTY", "the place in tidegate.toml holds what was published before";
    PublishExampleKey = "P-EXAMPLE-KEY", "example keys sign nothing that is published";
    PublishExpired = "P-EXPIRED", "channels and cohorts are renewed before they expire";
    PublishForeign = "P-FOREIGN", "a version that was published keeps its content";
    PublishGrace = "P-GRACE", "pruning waits longer than timestamps live";
    PublishLeftover = "P-LEFTOVER", "an interrupted publication is removed before its versions are used";
    PublishPrivate = "P-PRIVATE", "what is protected is published to a private place";
    PublishRace = "P-RACE", "one publication replaces the timestamp at a time";
    PublishReadBack = "P-READ-BACK", "what was published reads back as it was sent";
    PublishReadable = "P-READABLE", "nobody reads the private place without credentials";
    PublishRollback = "P-ROLLBACK", "what is live does not go back";
    PublishRoot = "P-ROOT", "the live repository has the trusted root among its own";
    PublishSingleWriter = "P-SINGLE-WRITER", "a place that cannot keep two publishers apart is published to with `--single-writer`";
    PublishSweep = "P-SWEEP", "publishing waits while objects are removed";
    ReleaseApproval = "R-APPROVAL", "the step has the approvals that `[[approval]]` requires";
    ReleaseArtifacts = "R-ARTIFACTS", "a release has at least one artifact, and no two of one name";
    ReleaseAssigned = "R-ASSIGNED", "what is paused is offered; what is retired is not";
    ReleaseBase = "R-BASE", "a proposal follows from the channel's role that is in force";
    ReleaseBridge = "R-BRIDGE", "what is retired is not a bridge to a release that is offered";
    ReleaseCohorts = "R-COHORTS", "a rollout goes through the cohorts, and is complete when every one of them has the release";
    ReleaseExists = "R-EXISTS", "a release has an ID of its own";
    ReleaseFreeze = "R-FREEZE", "no new device is exposed within a `[[freeze]]`";
    ReleaseFrozen = "R-FROZEN", "a frozen manifest does not change, and once somebody has signed it, it never does";
    ReleaseHealth = "R-HEALTH", "a rollout is renewed with a health report where policy requires one";
    ReleaseKey = "R-KEY", "only keys of the channel sign its releases";
    ReleaseOrder = "R-ORDER", "events come in the order of a release's life";
    ReleaseOver = "R-OVER", "a release that was withdrawn or retired is not used again";
    ReleasePaused = "R-PAUSED", "a paused rollout is resumed before it continues";
    ReleaseProposal = "R-PROPOSAL", "the listing that is signed is the listing that was proposed";
    ReleaseProvenance = "R-PROVENANCE", "provenance is one of the supported forms";
    ReleaseRace = "R-RACE", "nobody else changed the release in the meantime";
    ReleaseRamp = "R-RAMP", "a ramp is not steeper than `rollout.shortest_ramp`";
    ReleaseRetract = "R-RETRACT", "a release is withdrawn before it is retracted, to a release that can replace it";
    ReleaseSequence = "R-SEQUENCE", "no cohort goes back to a lower sequence";
    ReleaseSoak = "R-SOAK", "the previous cohort has had all of the release for `rollout.soak`";
    ReleaseStep = "R-STEP", "at most `rollout.largest_step` of the fleet is exposed at one instant";
    ReleaseThreshold = "R-THRESHOLD", "a threshold of the channel's release keys has signed";
    ReleaseValidated = "R-VALIDATED", "a report on exactly this manifest, not older than `validation.max_age`, passed all required checks";
    StatusDoctor = "S-DOCTOR", "`doctor` finds no error";
    StatusExpiring = "S-EXPIRING", "nothing expires within the given time";
    ServeSecret = "S-SECRET", "`serve` gives out neither a workspace nor a private key";
    WorkspaceJournal = "W-JOURNAL", "an interrupted change is completed where it began, and before others read";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_sorted_and_unique() {
        assert!(Rule::ALL.is_sorted_by(|a, b| a.id() < b.id()));
    }
}
