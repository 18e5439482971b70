//! The refusal of a gate.

use std::fmt;

use serde_json::Value;

use tidegate_model::text::printable;
use tidegate_tuf::json;

/// A refusal: the gate's rule, the reason, and what is missing. The texts are shown to people, so they are shortened to printable ASCII.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    /// The gate's rule, e.g. `G-ATT-12`; empty if it named none.
    pub rule: String,
    /// Why, as a sentence without a full stop.
    pub why: String,
    /// The missing requirements, e.g. `pcr sha256:7`.
    pub missing: Vec<String>,
}

/// The most things that are missing, and the longest texts.
const MISSING: usize = 32;
const WHY: usize = 400;
const WORD: usize = 80;

impl Refusal {
    /// Reads the body of a refusal: `{"error": {"rule", "why", "missing"}}`. Anything else reads as a refusal without a reason.
    pub fn read(body: &[u8]) -> Self {
        let value = json::parse(body).unwrap_or_default();
        let text = |name: &str, most| {
            value.pointer(&format!("/error/{name}")).and_then(Value::as_str).map(|text| printable(text, most))
        };
        let missing = value.pointer("/error/missing").and_then(Value::as_array).map(Vec::as_slice);
        let missing = missing.unwrap_or_default().iter().filter_map(Value::as_str);
        let why = text("why", WHY).filter(|why| !why.is_empty());
        Self {
            rule: text("rule", WORD).unwrap_or_default(),
            why: why.unwrap_or_else(|| "the gate does not say why".into()),
            missing: missing.take(MISSING).map(|text| printable(text, WORD)).collect(),
        }
    }
}

/// In one line, e.g. `the device's state is not one that stable.canary takes (G-ATT-12); missing: pcr sha256:7`.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        if !self.rule.is_empty() {
            write!(f, " ({})", self.rule)?;
        }
        if self.missing.is_empty() { Ok(()) } else { write!(f, "; missing: {}", self.missing.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_bounded() {
        let read = |text: &str| Refusal::read(text.as_bytes()).to_string();
        assert_eq!(
            read(r#"{"error": {"rule": "G-ATT-12", "why": "no", "missing": ["pcr sha256:7", "pcr sha256:0"]}}"#),
            "no (G-ATT-12); missing: pcr sha256:7, pcr sha256:0"
        );
        for nothing in ["", "{}", "<html>Forbidden</html>", r#"{"error": "no"}"#, r#"{"error": {"why": ""}}"#] {
            assert_eq!(read(nothing), "the gate does not say why", "{nothing}");
        }
        assert_eq!(read("{\"error\": {\"why\": \"\\u001b[2J\u{e4}\", \"missing\": [1]}}"), "?[2J?");
        let long = "x".repeat(9999);
        let many = vec![format!("\"{long}\""); 100].join(",");
        let text = read(&format!(r#"{{"error": {{"rule": "{long}", "why": "{long}", "missing": [{many}]}}}}"#));
        assert!(text.len() < 4000, "{}", text.len());
    }
}
