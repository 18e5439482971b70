//! What runs: what the boot loader and the running image say, compared with what was recorded.
//!
//! The boot loader says which place runs, and the image which version it is: the settings in it, `factory_version`. Both are recorded with
//! a release while it runs. Where they differ from that later, something else runs, and its sequence counts: the boot loader
//! fell back, or another image was written to the device.

use super::state::Record;
use super::{Device, InstallState};
use crate::error::Error;
use crate::install::Place;
use crate::state::{Event, State, Tolerance};
use tidegate_model::decision::{Installed, Profile};
use tidegate_model::receipt::InstallResult;
use tidegate_model::release::Release;

/// What runs, by what is recorded, by the place that the boot loader names, and by the settings of the running image.
pub(super) fn running(
    record: Option<&Record>,
    place: Option<&Place>,
    profile: &Profile,
    factory: &Installed,
) -> Installed {
    let record = record.filter(|record| record.product == profile.product);
    let Some((record, release)) = record.and_then(|record| Some((record, record.runs(place, factory)?))) else {
        return factory.clone();
    };
    // Each channel has its own sequences.
    let sequence = if record.channel == profile.channel { release.sequence } else { 0 };
    // A higher one means that another image was written to the device without this program.
    if factory.sequence > sequence {
        return factory.clone();
    }
    Installed { version: release.version.clone(), sequence }
}

impl Record {
    /// Whether the boot loader names another place than the release runs in.
    fn is_elsewhere(&self, place: Option<&Place>) -> bool {
        place.zip(self.place.as_ref()).is_some_and(|(now, then)| now != then)
    }

    /// The release that runs; `None` for another image.
    fn runs(&self, place: Option<&Place>, factory: &Installed) -> Option<&Release> {
        let is_elsewhere = self.is_elsewhere(place);
        let release = if is_elsewhere { self.previous.as_ref()? } else { &self.release };
        let is_other = match &self.image {
            // Images that carry their own version are believed, also in the other place.
            Some(image) if is_elsewhere => *image == self.release.version,
            Some(image) => *image != factory.version,
            None => false,
        };
        (!is_other || factory.version == release.version).then_some(release)
    }

    /// How what runs differs from this release.
    pub(super) fn difference(&self, place: Option<&Place>, factory: &Installed) -> Option<String> {
        if self.runs(place, factory) == Some(&self.release) {
            return None;
        }
        let Release { version, sequence, .. } = &self.release;
        Some(match (place, &self.place) {
            (Some(now), Some(then)) if now != then => {
                format!("{version} (sequence {sequence}) was confirmed in {then}, but {now} runs")
            }
            _ => format!(
                "{version} (sequence {sequence}) was confirmed, but the running image says that it is {}",
                factory.version
            ),
        })
    }
}

impl Device {
    /// Asks the installer what runs. If it cannot tell, what is recorded counts.
    pub(super) fn look(&mut self) {
        let Some(installer) = &mut self.installer else { return };
        let answer = installer.running();
        self.unknown = answer.as_ref().err().map(|e| format!("what runs is unknown: {e}"));
        self.place = answer.unwrap_or_default();
        self.update_profile();
    }

    pub(super) fn update_profile(&mut self) {
        let place = self.place.as_ref();
        self.profile.installed = match &self.machine().state {
            // An update is not recorded before its trial, and no longer once it is to be undone.
            State::Rebooting { attempt, .. } | State::Trial { attempt, .. } | State::RolledBack { attempt, .. }
                if place.is_some() && attempt.before.is_some() && attempt.runs(place) =>
            {
                Installed { version: attempt.release.version.clone(), sequence: attempt.release.sequence }
            }
            _ => running(self.record.value(), place, &self.profile, &self.factory),
        };
    }

    /// What the owner of the device should know.
    pub(super) fn remarks(&self) -> Vec<String> {
        let record = self.settled_record();
        let differs = record.and_then(|record| record.difference(self.place.as_ref(), &self.factory));
        self.remarks.iter().cloned().chain(self.unknown.clone()).chain(differs).collect()
    }

    fn is_settled(&self) -> bool {
        let state = &self.machine().state;
        !state.is_unsettled() && !matches!(state, State::Installing { .. })
    }

    /// What is recorded of a release that was confirmed, unless an update is in the middle of replacing it.
    fn settled_record(&self) -> Option<&Record> {
        let is_settled = self.is_settled();
        let was_confirmed = |record: &&Record| matches!(record.state, InstallState::Confirmed | InstallState::Left);
        self.record.value().filter(was_confirmed).filter(|record| is_settled && record.product == self.profile.product)
    }

    /// Asks what runs, and compares it with what is recorded. A new difference is recorded, and told by a receipt; so is its end.
    pub(crate) fn compare(&mut self) -> Result<(), Error> {
        // In the middle of an update, the agent asks.
        if !self.is_settled() {
            return Ok(());
        }
        self.look();
        let Some(mut record) = self.settled_record().cloned() else { return Ok(()) };
        let place = self.place.clone();
        if self.unknown.is_some() {
            return Ok(());
        }
        if let Some(why) = record.difference(place.as_ref(), &self.factory) {
            if record.state == InstallState::Left {
                return Ok(());
            }
            if let State::Quarantined { release, why } = self.machine().state.clone() {
                self.put_in_quarantine(&release, &why)?;
            }
            self.record_result(&record.release, InstallResult::RolledBack, Some(&why));
            // First, because the state may say that the release is confirmed.
            let by_hand = !record.is_elsewhere(place.as_ref());
            self.advance(Event::Displaced { why, by_hand }, Tolerance::default())?;
            record.state = InstallState::Left;
            record.previous = record.runs(place.as_ref(), &self.factory).cloned();
            return self.note(record);
        }
        let before = record.clone();
        if record.state == InstallState::Left {
            self.record_result(&record.release, InstallResult::Confirmed, None);
            record.state = InstallState::Confirmed;
        }
        record.place = place.or(record.place);
        record.image = self.image(&record.release).or(record.image);
        if record == before { Ok(()) } else { self.note(record) }
    }

    /// The version that the running image gives itself, if it is certain that the image is that of this release.
    pub(super) fn image(&self, release: &Release) -> Option<tidegate_model::version::Version> {
        let Installed { version, .. } = &self.factory;
        (self.place.is_some() || *version == release.version).then(|| version.clone())
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::digest::Digest;

    use super::*;

    /// (recorded place and image, place now, version of the settings now) -> what runs
    #[test]
    fn what_runs_is_what_place_and_image_say() {
        let release = |version: &str, sequence| Release {
            version: version.parse().unwrap(),
            sequence,
            sha256: Digest::of(b"manifest"),
        };
        let profile: Profile = serde_json::from_value(serde_json::json!({
            "id": "d", "product": "os", "channel": "stable", "hardware": "board",
            "installed": {"version": "1.0.0", "sequence": 0},
        }))
        .unwrap();
        for (previous, (place, image), now, settings, expected) in [
            // The release, whether or not images carry their version, and where the installer knows no place.
            (None, (Some("b"), Some("1.0.0")), Some("b"), "1.0.0", ("1.2.0", 12)),
            (None, (Some("b"), Some("1.2.0")), Some("b"), "1.2.0", ("1.2.0", 12)),
            (None, (None, None), None, "1.0.0", ("1.2.0", 12)),
            (None, (None, None), Some("b"), "1.0.0", ("1.2.0", 12)),
            (None, (Some("b"), Some("1.0.0")), None, "1.0.0", ("1.2.0", 12)),
            // The boot loader fell back, to the factory's image or to the release before.
            (None, (Some("b"), Some("1.0.0")), Some("a"), "1.0.0", ("1.0.0", 0)),
            (Some("1.1.0"), (Some("b"), Some("1.0.0")), Some("a"), "1.0.0", ("1.1.0", 11)),
            (Some("1.1.0"), (Some("b"), Some("1.2.0")), Some("a"), "1.1.0", ("1.1.0", 11)),
            // The other slot was written by hand.
            (Some("1.1.0"), (Some("b"), Some("1.2.0")), Some("a"), "1.0.5", ("1.0.5", 0)),
            // This one was.
            (Some("1.1.0"), (Some("b"), Some("1.2.0")), Some("b"), "2.0.0", ("2.0.0", 0)),
            (None, (Some("b"), Some("1.0.0")), Some("b"), "2.0.0", ("2.0.0", 0)),
            (None, (None, Some("1.2.0")), None, "1.0.0", ("1.0.0", 0)),
            // It carries its version from now on.
            (None, (Some("b"), Some("1.0.0")), Some("b"), "1.2.0", ("1.2.0", 12)),
        ] {
            let record = Record {
                product: profile.product.clone(),
                channel: profile.channel.clone(),
                release: release("1.2.0", 12),
                state: InstallState::Confirmed,
                place: place.map(str::to_owned),
                image: image.map(|image| image.parse().unwrap()),
                previous: previous.map(|version| release(version, 11)),
            };
            let factory = Installed { version: settings.parse().unwrap(), sequence: 0 };
            let found = running(Some(&record), now.map(str::to_owned).as_ref(), &profile, &factory);
            let case = format!("{place:?} {image:?} {now:?} {settings}");
            assert_eq!((found.version.to_string().as_str(), found.sequence), expected, "{case}");
            let now = now.map(str::to_owned);
            assert_eq!(record.difference(now.as_ref(), &factory).is_some(), expected.1 != 12, "{case}");
        }
    }
}
