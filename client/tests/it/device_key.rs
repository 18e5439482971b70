//! A device key that is the same in every run.

use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use tidegate_client::key::DeviceKey;

pub fn key() -> DeviceKey {
    DeviceKey::from_pem(pem().as_bytes()).unwrap()
}

pub fn pem() -> String {
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    key.to_pkcs8_pem(ed25519_dalek::pkcs8::spki::der::pem::LineEnding::LF).unwrap().to_string()
}
