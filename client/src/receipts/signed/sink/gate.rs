//! Receipts at a gate: `POST /v1/receipts`.

use std::sync::Arc;

use serde_json::{Value, json};
use ureq::http::Method;

use super::{Answer, Destination, Sink};
use crate::fetch::http::{Answered, HttpFetch};
use crate::gate::GateClient;
use tidegate_model::gate::GateUrl;
use tidegate_model::receipt::SignedReceipt;
use tidegate_model::text::printable;
use tidegate_tuf::json;

/// Posts to gates and authenticates this device.
pub trait Post {
    /// Posts a body of JSON to a path of a gate, which begins with a slash.
    ///
    /// # Errors
    ///
    /// The reason if there is no answer.
    fn post(&self, gate: &GateUrl, path: &str, body: &[u8]) -> Result<Answered, String>;
}

/// Authenticated by the client certificate.
impl Post for HttpFetch {
    fn post(&self, gate: &GateUrl, path: &str, body: &[u8]) -> Result<Answered, String> {
        let url = format!("{gate}{path}");
        self.send(&Method::POST, &url, &[("Content-Type", "application/json")], body).map_err(|e| e.to_string())
    }
}

/// Authenticated by the client certificate or the device key.
impl Post for GateClient {
    fn post(&self, gate: &GateUrl, path: &str, body: &[u8]) -> Result<Answered, String> {
        self.post(gate, path, body).map_err(|e| e.to_string())
    }
}

impl<T: Post + ?Sized> Post for Arc<T> {
    fn post(&self, gate: &GateUrl, path: &str, body: &[u8]) -> Result<Answered, String> {
        (**self).post(gate, path, body)
    }
}

/// Sends receipts to the gate of the device's cohort.
pub struct GateSink {
    post: Box<dyn Post + Send>,
    otherwise: Option<GateUrl>,
}

impl std::fmt::Debug for GateSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GateSink").field("otherwise", &self.otherwise).finish_non_exhaustive()
    }
}

const PATH: &str = "/v1/receipts";
/// The maximum number of receipts and bytes per request.
const AT_ONCE: usize = 64;
const BODY: usize = 64 * 1024;

impl GateSink {
    /// A sink that uses this client. `otherwise` is the gate for cohorts without a gate.
    pub fn new(post: impl Post + Send + 'static, otherwise: Option<GateUrl>) -> Self {
        Self { post: Box::new(post), otherwise }
    }
}

impl Sink for GateSink {
    fn at_once(&self) -> usize {
        AT_ONCE
    }

    fn send(&mut self, receipts: &[SignedReceipt], to: &Destination) -> Answer {
        let later = |why| Answer::Later { kept: 0, why, after: None };
        let Some(gate) = to.gate.as_ref().or(self.otherwise.as_ref()) else {
            return later(
                "the device's cohort has no gate (or none is known yet), and the settings name none".to_owned(),
            );
        };
        let (count, body) = match body(receipts) {
            Ok(made) => made,
            Err(why) => return Answer::Refused { kept: 0, of: 1, why },
        };
        let answered = match self.post.post(gate, PATH, &body) {
            Ok(answered) => answered,
            Err(why) => return later(why),
        };
        let said = json::parse(&answered.body).unwrap_or_default();
        let number = |name: &str| said.get(name).and_then(Value::as_u64).unwrap_or(0);
        if answered.status == 200 {
            // A proxy that answers everything with 200 is not a gate.
            return if number("stored").checked_add(number("known")) == Some(count as u64) {
                Answer::Kept(count)
            } else {
                later(format!("{gate} did not acknowledge the {count} receipts"))
            };
        }
        let text = |name: &str| said.pointer(&format!("/error/{name}")).and_then(Value::as_str).unwrap_or_default();
        let (rule, why) = (text("rule"), text("why"));
        let status = answered.status;
        let why = match rule {
            "" => format!("{gate} answered with status {status}"),
            rule => format!("{gate} answered with status {status}: {} ({})", printable(why, 200), printable(rule, 200)),
        };
        // Only a refusal of the receipts themselves is permanent. Access of the device can change later.
        match (status, rule) {
            (_, "G-REC-03" | "G-REC-04" | "G-REC-05" | "G-REC-07") => Answer::Refused { kept: 0, of: count, why },
            _ => Answer::Later { kept: 0, why, after: answered.retry_after },
        }
    }
}

/// The number of receipts that fit into one request, and its body.
fn body(receipts: &[SignedReceipt]) -> Result<(usize, Vec<u8>), String> {
    let mut values = Vec::new();
    // Braces, the name, and a comma for each.
    let mut length = 32;
    for signed in receipts.iter().take(AT_ONCE) {
        let value = signed.to_value();
        length += json::canonical(&value).map_err(|e| e.to_string())?.len() + 1;
        if length > BODY && !values.is_empty() {
            break;
        }
        values.push(value);
    }
    let count = values.len();
    Ok((count, json::canonical(&json!({"receipts": values})).map_err(|e| e.to_string())?))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::super::super::ledger::tests::{key, offered};
    use super::*;

    /// Gives scripted answers and records the requests.
    #[derive(Clone, Default)]
    struct Script(Arc<Mutex<Lines>>);

    #[derive(Default)]
    struct Lines {
        asked: Vec<(String, Vec<u8>)>,
        answers: Vec<Result<Answered, String>>,
    }

    impl Post for Script {
        fn post(&self, gate: &GateUrl, path: &str, body: &[u8]) -> Result<Answered, String> {
            let mut script = self.0.lock().unwrap();
            script.asked.push((format!("{gate}{path}"), body.to_owned()));
            script.answers.remove(0)
        }
    }

    fn answered(status: u16, body: &str) -> Answered {
        Answered { status, retry_after: (status == 429).then(|| Duration::from_secs(9)), body: body.into() }
    }

    fn refused(status: u16, rule: &str) -> Answered {
        answered(status, &json!({"error": {"rule": rule, "why": "so it is", "missing": []}}).to_string())
    }

    fn ask(answer: Result<Answered, String>, receipts: &[SignedReceipt]) -> (Answer, Script) {
        let script = Script::default();
        script.0.lock().unwrap().answers.push(answer);
        let mut sink = GateSink::new(script.clone(), None);
        let gate = Some("https://gate.example.com".parse().unwrap());
        (sink.send(receipts, &Destination { gate }), script)
    }

    #[test]
    fn receipts_go_to_the_cohorts_or_the_configured_gate() {
        let ledger = offered(3);
        let (answer, script) = ask(Ok(answered(200, r#"{"stored":2,"known":1}"#)), ledger.waiting());
        assert_eq!(answer, Answer::Kept(3));
        let (url, body) = script.0.lock().unwrap().asked.remove(0);
        assert_eq!(url, "https://gate.example.com/v1/receipts");
        let body = json::parse(&body).unwrap();
        let posted = body["receipts"].as_array().unwrap();
        assert_eq!(posted.len(), 3);
        assert!(posted.iter().all(|value| SignedReceipt::from_value(value).unwrap().verify(key().public())));

        let script = Script::default();
        script.0.lock().unwrap().answers.push(Ok(answered(200, r#"{"stored":3,"known":0}"#)));
        let mut sink = GateSink::new(script.clone(), Some("https://other.example.com".parse().unwrap()));
        assert_eq!(sink.send(ledger.waiting(), &Destination::default()), Answer::Kept(3));
        assert_eq!(script.0.lock().unwrap().asked[0].0, "https://other.example.com/v1/receipts");
        let mut sink = GateSink::new(script, None);
        assert!(matches!(sink.send(ledger.waiting(), &Destination::default()), Answer::Later { .. }));
    }

    #[test]
    fn only_bad_receipts_are_refused_for_good() {
        let ledger = offered(3);
        for (answer, for_good) in [
            (answered(200, ""), false),
            (answered(200, "<html>"), false),
            (answered(200, r#"{"stored":2,"known":0}"#), false),
            (answered(200, r#"{"stored":18446744073709551615,"known":4}"#), false),
            (answered(302, ""), false),
            (answered(400, ""), false),
            (answered(403, "<html>"), false),
            (refused(401, "G-ID-02"), false),
            (refused(403, "G-ID-08"), false),
            (refused(404, "G-REC-01"), false),
            (refused(429, "G-LIM-03"), false),
            (refused(503, "G-STORE-01"), false),
            (refused(400, "G-REC-03"), true),
            (refused(403, "G-REC-04"), true),
            (refused(403, "G-REC-05"), true),
            (refused(403, "G-REC-06"), false),
            (refused(403, "G-REC-07"), true),
            (refused(429, "G-REC-08"), false),
            (refused(403, "G-REC-09"), false),
        ] {
            let (answer, _) = ask(Ok(answer), ledger.waiting());
            match answer {
                Answer::Refused { kept: 0, of: 3, why } => assert!(for_good && why.contains("so it is"), "{why}"),
                Answer::Later { kept: 0, after, why } => {
                    assert!(!for_good, "{why}");
                    assert_eq!(after.is_some(), why.contains("429"), "{why}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn without_an_answer_all_of_them_wait() {
        let (answer, _) = ask(Err("no connection".into()), offered(1).waiting());
        assert_eq!(answer, Answer::Later { kept: 0, why: "no connection".into(), after: None });
    }

    #[test]
    fn a_body_is_no_longer_than_a_gate_takes() {
        let ledger = offered(64);
        let (count, bytes) = body(ledger.waiting()).unwrap();
        assert_eq!(count, 64);
        assert!(bytes.len() <= BODY, "{}", bytes.len());
        let twice: Vec<_> = ledger.waiting().iter().cycle().take(200).cloned().collect();
        assert_eq!(body(&twice).unwrap().0, 64);
    }
}
