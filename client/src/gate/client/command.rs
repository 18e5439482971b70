//! Evidence from a program of the device's manufacturer.

use super::{AttestError, Attestor, Challenge, Evidence};
use crate::command::{Command, Ran};
use tidegate_model::gate::Attestation;

/// Makes evidence with a program.
///
/// Its environment contains `TIDEGATE_GATE`, `TIDEGATE_DEVICE`, `TIDEGATE_NONCE` (base64url) and `TIDEGATE_QUOTE_DATA` (the qualifying data of a
/// quote, in hex); its standard input is the same as a JSON object, which it need not read. It prints [evidence](Evidence::parse) as JSON,
/// such as `{"kind": "ear", "token": "..."}`, and ends with exit code 0 within its time limit.
#[derive(Debug, Clone)]
pub struct CommandAttestor {
    command: Command,
    kind: Attestation,
}

impl CommandAttestor {
    /// A program that makes evidence of this kind and no other.
    pub fn new(command: Command, kind: Attestation) -> Self {
        Self { command, kind }
    }
}

impl Attestor for CommandAttestor {
    fn kind(&self) -> Option<Attestation> {
        Some(self.kind)
    }

    fn evidence(&self, challenge: &Challenge<'_>) -> Result<Evidence, AttestError> {
        let (nonce, data) = (challenge.nonce_text(), challenge.quote_data().to_string());
        let said = [
            ("gate", challenge.gate.as_str()),
            ("device", challenge.device.as_str()),
            ("nonce", &nonce),
            ("quote_data", &data),
        ];
        let input = serde_json::Value::from_iter(said).to_string();
        let command = said.iter().fold(self.command.clone(), |command, (name, value)| {
            command.variable(&format!("TIDEGATE_{}", name.to_ascii_uppercase()), value)
        });
        let output = command.input(input.into_bytes()).run().and_then(Ran::success)?;
        let wrong = |why| AttestError::Answer { program: self.command.program().to_owned(), why };
        let evidence =
            Evidence::parse(output.as_bytes()).map_err(|why| wrong(format!("it printed no evidence: {why}")))?;
        if evidence.kind() == Some(self.kind) {
            return Ok(evidence);
        }
        let kind = evidence.kind().map_or("none", Attestation::name);
        Err(wrong(format!("it gave evidence of the kind {kind}, not {}", self.kind)))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Duration;

    use super::*;

    fn evidence(script: &str) -> Result<Evidence, AttestError> {
        let command = Command::new(["sh", "-c", script].map(String::from), Duration::from_millis(500));
        let (gate, device) = ("https://gate.example.com".parse().unwrap(), "device-1".parse().unwrap());
        let challenge = Challenge { gate: &gate, device: &device, nonce: &[0xfb; 3] };
        CommandAttestor::new(command, Attestation::Ear).evidence(&challenge)
    }

    #[test]
    fn a_program_learns_what_is_asked_and_answers() {
        let token = |token: &str| Evidence::Ear { token: token.into() };
        let by_environment = r#"printf '{"kind": "ear", "token": "%s/%s/%s/%.8s"}' "$TIDEGATE_NONCE" "$TIDEGATE_DEVICE" "$TIDEGATE_GATE" "$TIDEGATE_QUOTE_DATA""#;
        let data =
            tidegate_model::gate::quote_data("gate.example.com", &[0xfb; 3], &"device-1".parse().unwrap()).to_string();
        let expected = format!("-_v7/device-1/https://gate.example.com/{}", &data[..8]);
        assert_eq!(evidence(by_environment).unwrap(), token(&expected));
        let by_input =
            r#"read -r line; nonce=${line#*nonce\":\"}; printf '{"kind": "ear", "token": "%s"}' "${nonce%%\"*}""#;
        assert_eq!(evidence(by_input).unwrap(), token("-_v7"));
    }

    #[test]
    fn a_program_that_gives_something_else_is_named() {
        for (script, expected) in [
            ("exit 3", "exit code 3"),
            ("echo no TPM >&2; exit 1", "no TPM"),
            ("sleep 20", "took longer"),
            ("true", "printed no evidence"),
            ("head -c 200000 /dev/zero", "printed no evidence"),
            (r#"echo '{"kind": "none"}'"#, "kind none, not ear"),
            (r#"echo '{"kind": "tpm2", "quote": "AA", "signature": "AA", "pcrs": {}}'"#, "kind tpm2, not ear"),
        ] {
            let error = evidence(script).unwrap_err().to_string();
            assert!(error.contains(expected) && error.starts_with("sh"), "{script}: {error}");
        }
    }
}
