//! Who asks: the device that a client certificate names, or the one that a device key is enrolled for.

use std::sync::Arc;

use tidegate_model::name::DeviceId;
use tidegate_tuf::key::Key;

use crate::encoding::sha256;
use crate::enrolment::Enrolment;

pub mod certificate;
pub mod proof;

/// A device that has shown who it is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its id.
    pub device: DeviceId,
    /// What tokens are bound to: the id, and the key that it showed.
    pub binding: [u8; 32],
    /// The key of the certificate that it showed, if it showed one of a kind that signs receipts.
    pub certified: Option<Key>,
    /// What is known of it beforehand.
    pub enrolment: Option<Arc<Enrolment>>,
}

impl Identity {
    /// The device's key with that id: an enrolled one, or that of its certificate.
    pub fn key(&self, id: &str) -> Option<Key> {
        let enrolled = self.enrolment.as_ref().and_then(|enrolment| enrolment.key(id));
        enrolled.or_else(|| self.certified.clone().filter(|key| key.id().as_str() == id))
    }
}

/// What a token is bound to. `key` is what the key is known by: a key id, or the hash of a certificate's key.
pub(crate) fn binding(how: &str, device: &DeviceId, key: &[u8]) -> [u8; 32] {
    let device = device.as_str().as_bytes();
    // Ids hold no control characters, so that none runs into what follows it.
    sha256(&[b"tidegate/gate/binding/1\n", how.as_bytes(), b"\n", device, b"\n", key])
}
