//! The manifests of offered releases as devices find them, or how an offer contradicts the channel.

use std::collections::HashMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use tidegate_client::Error as DeviceError;
use tidegate_model::digest::Digest;
use tidegate_model::layout;
use tidegate_model::manifest::Manifest;
use tidegate_model::name::Name;
use tidegate_model::rollout::Offer;
use tidegate_model::version::Version;

use super::timeline::Approvals;
use crate::error::Result;
use crate::metadata::Repository;
use crate::workspace::in_force::{digest, listed};

/// The manifests that channels list, each read once.
#[derive(Debug)]
pub(super) struct Manifests<'a> {
    dir: &'a Path,
    repository: &'a Repository,
    known: HashMap<String, Option<Listed>>,
}

/// A manifest as the channel's role lists it.
#[derive(Debug)]
struct Listed {
    length: u64,
    sha256: Digest,
    /// What is in it, or why it cannot be understood.
    manifest: std::result::Result<Manifest, String>,
}

/// A cohort and the product that it is offered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offered<'a> {
    pub(super) channel: &'a Name,
    pub(super) cohort: &'a Name,
    pub(super) product: &'a Name,
}

impl<'a> Manifests<'a> {
    pub(super) fn new(dir: &'a Path, repository: &'a Repository) -> Self {
        Self { dir, repository, known: HashMap::new() }
    }

    /// The manifest of an offered release; or how the offer contradicts the channel, in the device's words.
    pub(super) fn of(&mut self, offered: Offered<'_>, offer: &Offer) -> Result<std::result::Result<&Manifest, String>> {
        let Offered { channel, cohort, product } = offered;
        let approval = layout::channel_role(channel);
        let path = layout::manifest_path(channel, product, &offer.release);
        let contradiction = |what: String, reason: String| {
            DeviceError::NotApproved { what, approval: approval.clone(), reason }.to_string()
        };
        let Some(listed) = self.listed(channel, product, &offer.release)? else {
            let what = format!("release {}", offer.release);
            return Ok(Err(contradiction(what, "it lists no such release".into())));
        };
        if (listed.length, listed.sha256) != (offer.length, offer.sha256) {
            let role = layout::cohort_role(channel, cohort);
            let reason = format!(
                "it lists {} bytes with sha256 {}, but {role} has {} bytes with sha256 {}",
                listed.length, listed.sha256, offer.length, offer.sha256
            );
            return Ok(Err(contradiction(path, reason)));
        }
        Ok(listed.manifest.as_ref().map_err(Clone::clone))
    }

    /// Adds those of an offer and its bridges.
    pub(super) fn add(&mut self, approvals: &mut Approvals, offered: Offered<'_>, offer: &Offer) -> Result<()> {
        let bridges = offer.bridges.iter().map(|bridge| offer.through(bridge));
        for offer in bridges.chain([offer.clone()]) {
            if let Entry::Vacant(vacant) = approvals.entry(offer.sha256) {
                vacant.insert(self.of(offered, &offer)?.cloned());
            }
        }
        Ok(())
    }

    fn listed(&mut self, channel: &Name, product: &Name, release: &Version) -> Result<Option<&Listed>> {
        let path = layout::manifest_path(channel, product, release);
        if !self.known.contains_key(&path) {
            let role = layout::channel_role(channel);
            let file = self.repository.targets(&role).and_then(|targets| targets.targets.get(path.as_str()));
            let found = match file {
                None => None,
                Some(file) => {
                    let bytes = listed(self.dir, self.repository, &role, &path)?;
                    let manifest = Manifest::parse(&bytes).map_err(|e| format!("{path}: {e}"));
                    Some(Listed { length: file.length, sha256: digest(file)?, manifest })
                }
            };
            self.known.insert(path.clone(), found);
        }
        Ok(self.known.get(&path).and_then(Option::as_ref))
    }
}
