//! The identity of a device: by its client certificate, or by an enrolled device key.

use std::sync::Arc;

use tidegate_model::name::DeviceId;
use tidegate_tuf::key::Key;

use crate::encoding::sha256;
use crate::enrolment::Enrolment;

pub mod certificate;
pub mod proof;

/// A device that has proved its identity.
#[derive(Debug, Clone)]
pub struct DeviceIdentity {
    /// The device id.
    pub device: DeviceId,
    /// What tokens are bound to: the id, and the key that the device used.
    pub binding: [u8; 32],
    /// The key of the client certificate, if it can sign receipts.
    pub certificate_key: Option<Key>,
    /// The enrolment, if there is one.
    pub enrolment: Option<Arc<Enrolment>>,
}

impl DeviceIdentity {
    /// The device's enrolled key with this id.
    pub fn enrolled_key(&self, id: &str) -> Option<Key> {
        self.enrolment.as_ref().and_then(|enrolment| enrolment.key(id))
    }

    /// Whether enrolling the key with this id is all that is missing: the device has shown that it has it, or has no enrolled key at all.
    pub fn awaits_enrolment(&self, id: &str) -> bool {
        self.enrolment.as_ref().is_none_or(|enrolment| enrolment.keys.is_empty())
            || self.certificate_key.as_ref().is_some_and(|key| key.id().as_str() == id)
    }
}

/// What a token is bound to. `key` identifies the key: its id, or the hash of a certificate's key.
pub(crate) fn token_binding(method: &str, device: &DeviceId, key: &[u8]) -> [u8; 32] {
    let device = device.as_str().as_bytes();
    // Device ids contain no control characters, so that the parts cannot run into each other.
    sha256(&[b"tidegate/gate/binding/1\n", method.as_bytes(), b"\n", device, b"\n", key])
}
