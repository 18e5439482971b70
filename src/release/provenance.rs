//! Build provenance: in-toto statements (SLSA provenance among them), bare or in a signed DSSE envelope.
//!
//! A statement says that a builder made files with these digests. This module reads it and checks it against a release's
//! artifacts and `[provenance]` of `policy.toml`; its hash becomes part of the manifest, which the release's signatures cover.
//!
//! Sources: in-toto Statement v1 (<https://in-toto.io/Statement/v1>), SLSA provenance v1 and v0.2, DSSE 1.0.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::Value;
use tidegate_model::digest::Digest;
use tidegate_model::name::Text;
use tidegate_tuf::key::Key;

use super::record::ArtifactRecord;
use crate::keys::{parse_public, signature_bytes};
use crate::policy::ProvenancePolicy;

const STATEMENTS: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const SLSA: &str = "https://slsa.dev/provenance/";

/// The parts of a statement that are used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What kind of statement it is.
    pub predicate_type: Text,
    /// The builder, if it names one.
    pub builder: Option<Text>,
    /// The SHA-256 of the files that it is about.
    pub subjects: BTreeSet<Digest>,
    /// Whether it came in an envelope.
    pub enveloped: bool,
    signatures: Vec<Vec<u8>>,
    /// What the envelope's signatures are over.
    signed: Vec<u8>,
}

/// The most objects, lists and entries of a statement, which may take several hundred bytes each.
const MAX_ENTRIES: usize = 100_000;

/// Not as strict as what is signed here: others may write fractions.
fn parse(bytes: &[u8]) -> Result<Value, String> {
    // Too many are counted where text contains such characters.
    if bytes.iter().filter(|byte| matches!(byte, b'{' | b'[' | b',')).count() > MAX_ENTRIES {
        return Err(format!("it has more than {MAX_ENTRIES} entries"));
    }
    serde_json::from_slice(bytes).map_err(|e| e.to_string())
}

impl Statement {
    /// Reads a statement, bare or in an envelope.
    ///
    /// # Errors
    ///
    /// Returns what is missing or malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value = parse(bytes).map_err(|e| format!("it is not JSON: {e}"))?;
        if value.get("payload").is_none() {
            return Self::of(&value, false, Vec::new(), Vec::new());
        }
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let kind = text("payloadType").unwrap_or_default();
        if kind != PAYLOAD_TYPE {
            return Err(format!("its envelope holds {kind:?}, not {PAYLOAD_TYPE:?}"));
        }
        let payload = base64(text("payload").unwrap_or_default()).ok_or("its envelope's payload is not base64")?;
        let signatures: Vec<Vec<u8>> = value
            .get("signatures")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|signature| base64(signature.get("sig")?.as_str()?))
            .collect();
        if signatures.is_empty() {
            return Err("its envelope has no signature".into());
        }
        let statement = parse(&payload).map_err(|e| format!("what its envelope holds is not JSON: {e}"))?;
        Self::of(&statement, true, signatures, pre_authentication(kind, &payload))
    }

    fn of(value: &Value, enveloped: bool, signatures: Vec<Vec<u8>>, signed: Vec<u8>) -> Result<Self, String> {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        let kind = text("/_type").unwrap_or_default();
        if !STATEMENTS.contains(&kind) {
            return Err(format!("its _type is {kind:?}, not {:?}", STATEMENTS[0]));
        }
        let fit = |text: &str| text.parse::<Text>().map_err(|e| e.to_string());
        let predicate_type = fit(text("/predicateType").ok_or("it has no predicateType")?)?;
        // SLSA 1.0 and 0.2 name the builder in different places.
        let builder = text("/predicate/runDetails/builder/id").or_else(|| text("/predicate/builder/id"));
        if builder.is_none() && predicate_type.as_str().starts_with(SLSA) {
            return Err("it is SLSA provenance and names no builder".into());
        }
        let builder = builder.map(fit).transpose()?;
        let subjects = value.get("subject").and_then(Value::as_array).filter(|subjects| !subjects.is_empty());
        let subjects = subjects
            .ok_or("it has no subject")?
            .iter()
            .map(|subject| {
                let sha256 = subject.pointer("/digest/sha256").and_then(Value::as_str);
                sha256.and_then(|sha256| sha256.parse().ok()).ok_or("a subject has no SHA-256")
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { predicate_type, builder, subjects, enveloped, signatures, signed })
    }

    /// What is wrong with it for these artifacts: each must be one of its subjects.
    pub fn lacks<'a>(&self, artifacts: impl IntoIterator<Item = (&'a str, Digest)>) -> Vec<String> {
        artifacts
            .into_iter()
            .filter(|(_, sha256)| !self.subjects.contains(sha256))
            .map(|(name, _)| format!("no subject of the provenance statement has the hash of {name}"))
            .collect()
    }

    /// Whether one of the envelope's signatures is by this key.
    pub fn signed_by(&self, key: &Key) -> bool {
        let public = key.decode();
        self.signatures.iter().any(|signature| {
            signature_bytes(key, signature)
                .ok()
                .zip(public.as_ref())
                .is_some_and(|(bytes, public)| public.verify(&self.signed, &bytes))
        })
    }
}

/// What policy finds wrong with a release's provenance.
pub fn against_policy(statement: Option<&Statement>, policy: &ProvenancePolicy) -> Vec<String> {
    let Some(statement) = statement else {
        let wanted = policy.required;
        return if wanted { vec!["policy.toml requires a provenance statement".into()] } else { Vec::new() };
    };
    let mut wrong = Vec::new();
    if let Some(builders) = &policy.builders {
        match &statement.builder {
            None => wrong.push("the provenance statement names no builder".into()),
            Some(builder) if !builders.contains(builder.as_str()) => {
                wrong.push(format!("the builder {builder} is none of those that policy.toml allows"));
            }
            Some(_) => {}
        }
    }
    if let Some(keys) = &policy.keys {
        let good = keys.iter().filter_map(|key| parse_public(key).ok()).any(|key| statement.signed_by(&key));
        if !statement.enveloped {
            wrong.push("the provenance statement is not in a signed envelope".into());
        } else if !good {
            wrong.push("no key that policy.toml names has signed the provenance statement's envelope".into());
        }
    }
    wrong
}

/// A release's artifacts, for [`Statement::lacks`].
pub fn digests(artifacts: &[ArtifactRecord]) -> impl Iterator<Item = (&str, Digest)> {
    artifacts.iter().map(|artifact| (artifact.name.as_str(), artifact.sha256))
}

/// DSSE's pre-authentication encoding: `DSSEv1 LEN(type) type LEN(body) body`.
fn pre_authentication(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    bytes.extend(payload);
    bytes
}

/// DSSE allows both base64 alphabets.
fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};
    use serde_json::json;
    use tidegate_tuf::hash::to_hex;

    use super::*;

    fn statement() -> Value {
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "image.bin", "digest": {"sha256": "ab".repeat(32)}}],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {"buildDefinition": {}, "runDetails": {"builder": {"id": "https://ci.example.com/builder@v1"}}},
        })
    }

    fn parse(value: &Value) -> Result<Statement, String> {
        Statement::parse(&serde_json::to_vec(value).unwrap())
    }

    fn envelope(key: &SigningKey, payload: &Value) -> Value {
        let payload = serde_json::to_vec(payload).unwrap();
        let signature = key.sign(&pre_authentication(PAYLOAD_TYPE, &payload));
        json!({
            "payloadType": PAYLOAD_TYPE,
            "payload": STANDARD.encode(payload),
            "signatures": [{"keyid": "ci", "sig": STANDARD.encode(signature.to_bytes())}],
        })
    }

    #[test]
    fn statements_are_read_and_held_against_artifacts() {
        let read = parse(&statement()).unwrap();
        assert_eq!(read.builder.as_ref().unwrap().as_str(), "https://ci.example.com/builder@v1");
        let (this, other): (Digest, Digest) = ("ab".repeat(32).parse().unwrap(), "cd".repeat(32).parse().unwrap());
        assert!(read.lacks([("image.bin", this)]).is_empty());
        assert_eq!(
            read.lacks([("image.bin", this), ("other.bin", other)]),
            ["no subject of the provenance statement has the hash of other.bin"]
        );
    }

    #[test]
    fn what_is_no_statement_says_what_it_lacks() {
        for (pointer, value, part) in [
            ("/_type", json!("https://example.com/"), "its _type is"),
            ("/predicateType", Value::Null, "no predicateType"),
            ("/predicate", json!({}), "names no builder"),
            ("/subject", json!([]), "no subject"),
            ("/subject/0/digest", json!({"sha512": "00"}), "a subject has no SHA-256"),
        ] {
            let mut bad = statement();
            *bad.pointer_mut(pointer).unwrap() = value;
            let error = parse(&bad).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let key = SigningKey::from_bytes(&[1; 32]);
        let mut unsigned = envelope(&key, &statement());
        unsigned["signatures"] = json!([]);
        assert!(parse(&unsigned).unwrap_err().contains("no signature"));
        let mut other = envelope(&key, &statement());
        other["payloadType"] = "text/plain".into();
        assert!(parse(&other).unwrap_err().contains("its envelope holds"));
    }

    #[test]
    fn policy_pins_builder_and_key() {
        let (key, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let public = |key: &SigningKey| format!("ed25519:{}", to_hex(key.verifying_key().as_bytes()));
        let policy = |builder: &str, key: &SigningKey| ProvenancePolicy {
            required: true,
            builders: Some(BTreeSet::from([builder.to_owned()])),
            keys: Some(vec![public(key)]),
        };
        let good = policy("https://ci.example.com/builder@v1", &key);
        let signed = parse(&envelope(&key, &statement())).unwrap();
        assert!(against_policy(Some(&signed), &good).is_empty());
        let wrong =
            |statement: Option<&Statement>, policy: &ProvenancePolicy| against_policy(statement, policy).join("; ");
        assert!(wrong(None, &good).contains("requires a provenance statement"));
        assert!(wrong(None, &ProvenancePolicy::default()).is_empty());
        assert!(wrong(Some(&signed), &policy("https://elsewhere/", &key)).contains("none of those"));
        assert!(
            wrong(Some(&signed), &policy("https://ci.example.com/builder@v1", &other))
                .contains("no key that policy.toml")
        );
        assert!(wrong(Some(&parse(&statement()).unwrap()), &good).contains("not in a signed envelope"));
        // The signature is over the content of the envelope, not over the fields beside it.
        let mut swapped = envelope(&key, &statement());
        let mut changed = statement();
        changed["subject"][0]["digest"]["sha256"] = "cd".repeat(32).into();
        swapped["payload"] = STANDARD.encode(serde_json::to_vec(&changed).unwrap()).into();
        assert!(wrong(Some(&parse(&swapped).unwrap()), &good).contains("no key that policy.toml"));
    }

    /// The example of the DSSE specification.
    #[test]
    fn the_encoding_is_that_of_the_specification() {
        assert_eq!(
            pre_authentication("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }
}
