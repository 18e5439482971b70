//! Lists of offers: where a release stands in one, and which older offers a stable release makes needless.

use std::collections::BTreeSet;

use tidegate_model::manifest::Manifest;
use tidegate_model::rollout::Offer;
use tidegate_model::version::is_newer;

/// Puts an offer into a list, in place of the release's own older one: the highest version first, and a retraction above what it
/// supersedes.
pub(crate) fn put(list: &mut Vec<Offer>, offer: Offer, supersedes: Option<&BTreeSet<u64>>) {
    if let Some(own) = list.iter_mut().find(|own| own.sequence == offer.sequence) {
        *own = offer;
        return;
    }
    // Below the last that is newer: a retraction with a lower version may stand above that.
    let last_newer = list.iter().rposition(|other| is_newer(&other.release, &offer.release));
    let first_below =
        supersedes.and_then(|supersedes| list.iter().position(|other| supersedes.contains(&other.sequence)));
    let index = last_newer.map_or(0, |index| index + 1).min(first_below.unwrap_or(list.len()));
    list.insert(index, offer);
}

/// Whether every device that takes the older release would take the stable one instead.
pub(super) fn replaces(stable: &Manifest, bridges: &Offer, older: &Manifest) -> bool {
    let hardware = |manifest: &Manifest| -> Vec<_> {
        manifest.artifacts.iter().flat_map(|artifact| artifact.hardware.iter().cloned()).collect()
    };
    let own = hardware(stable);
    let fits = hardware(older).iter().all(|id| own.contains(id));
    let same_devices = stable.eligibility.is_none() || stable.eligibility == older.eligibility;
    let upgrades = stable.upgrade_from.is_none()
        || stable.upgrade_from == older.upgrade_from
        || bridges.bridges.iter().any(|bridge| bridge.upgrade_from.is_any());
    let is_older = older.sequence < stable.sequence && is_newer(&stable.version, &older.version);
    is_older && fits && same_devices && upgrades
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_in_order_of_versions_and_retractions_above_what_they_supersede() {
        let offer = |version: &str, sequence| {
            let manifest = (tidegate_model::digest::Digest::from([0; 32]), 1);
            let stage = tidegate_model::rollout::Stage::Stable;
            Offer::new(version.parse().unwrap(), sequence, manifest, stage, chrono::DateTime::UNIX_EPOCH)
        };
        let mut offers = Vec::new();
        for (version, sequence) in [("1.5.0", 1), ("2.0.0", 2), ("1.5.1", 3)] {
            put(&mut offers, offer(version, sequence), None);
        }
        put(&mut offers, offer("1.5.0+retract.4", 4), Some(&BTreeSet::from([2])));
        put(&mut offers, offer("1.9.5", 5), None);
        put(&mut offers, offer("2.0.1", 6), None);
        let order: Vec<_> = offers.iter().map(|offer| offer.release.to_string()).collect();
        assert_eq!(order, ["2.0.1", "1.5.0+retract.4", "2.0.0", "1.9.5", "1.5.1", "1.5.0"]);
    }
}
