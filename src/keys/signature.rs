//! Signatures as external programs write them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use p256::ecdsa;
use tidegate_tuf::key::Key;

/// Reads a signature by `key` from the bytes of a file or an answer: raw, hex or base64; for P-256 either DER or r and s of 32
/// bytes each. Returns it in the metadata's form. The caller verifies it.
///
/// # Errors
///
/// Returns what is wrong with the encoding.
pub fn signature_bytes(key: &Key, text: &[u8]) -> Result<Vec<u8>, String> {
    let mut candidates = vec![text.to_vec()];
    if let Ok(text) = std::str::from_utf8(text) {
        let text: String = text.split_ascii_whitespace().collect();
        candidates.extend(tidegate_tuf::hash::from_hex(&text));
        candidates.extend(BASE64.decode(&text).ok());
    }
    let form = |bytes: &Vec<u8>| match key.scheme() {
        "ed25519" => (bytes.len() == 64).then(|| bytes.clone()),
        "ecdsa-sha2-nistp256" if bytes.len() == 64 => {
            Some(ecdsa::Signature::from_slice(bytes).ok()?.to_der().as_bytes().to_vec())
        }
        "ecdsa-sha2-nistp256" => Some(ecdsa::Signature::from_der(bytes).ok()?.to_der().as_bytes().to_vec()),
        _ => None,
    };
    candidates.iter().find_map(form).ok_or_else(|| {
        let expected = if key.scheme() == "ed25519" { "64 bytes" } else { "DER, or 64 bytes of r and s" };
        format!("it holds no signature: {expected} are expected, raw, in hex or in base64")
    })
}

#[cfg(test)]
mod tests {
    use tidegate_tuf::hash::to_hex;

    use super::super::generate::{Kind, generate};
    use super::super::{FileKey, NoPassphrases, Signer as _};
    use super::*;

    #[test]
    fn every_spelling_is_read() {
        for kind in [Kind::Ed25519, Kind::P256] {
            let made = generate(kind, None).unwrap();
            let key = FileKey::from_pem("k", &made.pem, &mut NoPassphrases).unwrap();
            let signature = key.sign(b"message").unwrap();
            let mut forms = vec![
                signature.clone(),
                to_hex(&signature).into_bytes(),
                format!("{}\n", BASE64.encode(&signature)).into(),
            ];
            if kind == Kind::P256 {
                forms.push(ecdsa::Signature::from_der(&signature).unwrap().to_bytes().to_vec());
            }
            for form in forms {
                assert_eq!(signature_bytes(&made.public, &form).unwrap(), signature);
            }
            for form in [&b""[..], b"zz", &[0; 63], &[0xff; 65]] {
                assert!(signature_bytes(&made.public, form).is_err());
            }
        }
    }
}
