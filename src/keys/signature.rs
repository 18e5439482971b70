//! Signatures as external programs write them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use p256::ecdsa;
use tidegate_tuf::key::Key;

/// The lengths of RSA signatures in bytes: keys of 2048 to 8192 bits.
const RSA: std::ops::RangeInclusive<usize> = 256..=1024;

/// Reads a signature by `key` from the bytes of a file or an answer: raw, hex or base64; for P-256 either DER or r and s of 32
/// bytes each, for RSA as many bytes as the modulus. Returns it in the metadata's form. The caller verifies it.
///
/// # Errors
///
/// Returns what is wrong with the encoding.
pub fn signature_bytes(key: &Key, text: &[u8]) -> Result<Vec<u8>, String> {
    let mut candidates = Vec::new();
    if let Ok(text) = std::str::from_utf8(text) {
        let text: String = text.split_ascii_whitespace().collect();
        // All hex is base64 as well.
        candidates.extend(tidegate_tuf::hash::from_hex(&text).or_else(|| BASE64.decode(&text).ok()));
    }
    candidates.push(text.to_vec());
    let form = |bytes: &Vec<u8>| match key.scheme() {
        "ed25519" => (bytes.len() == 64).then(|| bytes.clone()),
        "ecdsa-sha2-nistp256" if bytes.len() == 64 => {
            Some(ecdsa::Signature::from_slice(bytes).ok()?.to_der().as_bytes().to_vec())
        }
        "ecdsa-sha2-nistp256" => Some(ecdsa::Signature::from_der(bytes).ok()?.to_der().as_bytes().to_vec()),
        "rsassa-pss-sha256" => RSA.contains(&bytes.len()).then(|| bytes.clone()),
        _ => None,
    };
    candidates.iter().find_map(form).ok_or_else(|| {
        let expected = match key.scheme() {
            "ed25519" => "64 bytes",
            "ecdsa-sha2-nistp256" => "DER, or 64 bytes of r and s",
            "rsassa-pss-sha256" => "256 to 1024 bytes",
            scheme => return format!("signatures of the scheme {scheme} are not supported"),
        };
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
    fn rsa_signatures_of_every_length_are_read() {
        let key = Key::rsa_pss("");
        for length in [256, 384, 512, 1024] {
            let signature: Vec<u8> = (0..=255).cycle().step_by(7).take(length).collect();
            for form in [signature.clone(), to_hex(&signature).into(), BASE64.encode(&signature).into()] {
                assert_eq!(signature_bytes(&key, &form).unwrap(), signature, "{length}");
            }
        }
        assert!(signature_bytes(&key, &[1; 255]).unwrap_err().contains("256 to 1024 bytes"));
    }

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
