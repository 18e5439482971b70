//! Through a gate: with what opens it, and on to where it redirects, without.

use ureq::Agent;

use super::{HttpFetch, Origin, Redirect, is_here};
use crate::fetch::error::FetchError;
use crate::fetch::refusal::Refusal;
use crate::fetch::request::{Pass, Request};

/// The longest refusal that is read, in bytes.
const REFUSAL: u64 = 64 * 1024;

type Response = ureq::http::Response<ureq::Body>;

impl HttpFetch {
    /// One request and its answer. Requests to the gate itself have the headers of `pass`.
    ///
    /// The target of a redirect does not learn the device's identity, neither by a header nor by a certificate. The secret for the repository's
    /// server is sent to neither of them.
    pub(super) fn ask_gate(&self, url: &str, request: &Request<'_>, pass: &dyn Pass) -> Result<Response, FetchError> {
        if url != request.url {
            // The URL gives access to the object, so errors do not contain it.
            let agent = self.nameless(url).map_err(|e| match e {
                FetchError::Authorities { reason, .. } => {
                    FetchError::Authorities { url: request.url.to_owned(), reason }
                }
                other => other,
            })?;
            return self.ask_by(agent, url, request, &[]);
        }
        let headers = pass.headers(url).map_err(|reason| FetchError::Secret { url: request.url.to_owned(), reason })?;
        self.ask_by(self.agent(url)?, url, request, &headers)
    }

    pub(super) fn nameless(&self, url: &str) -> Result<&Agent, FetchError> {
        let agents = if self.options.identity.is_some() { &self.nameless } else { &self.secure };
        self.agent_from(agents, url, None)
    }

    /// Why a gate does not deliver a file. A refusal by the target of a redirect is not the gate's decision.
    pub(super) fn denied(&self, response: Response, asked: &str, is_gates: bool) -> FetchError {
        let (status, url) = (response.status().as_u16(), asked.to_owned());
        if !is_gates {
            self.drain(response.into_body(), asked);
            return FetchError::status(asked, status, String::new());
        }
        let mut body = Vec::new();
        let mut reader = self.paced(response.into_body(), asked, REFUSAL);
        // A refusal that is too long or incomplete gives no reason.
        if std::io::Read::read_to_end(&mut reader, &mut body).is_err() {
            body.clear();
        }
        FetchError::Denied { url, status, refusal: Refusal::read(&body) }
    }
}

/// Where a gate may redirect to: to any server by TLS; a gate on this machine, which tests have, to this machine.
pub(super) fn redirected(from: &str, location: &str) -> Result<String, &'static str> {
    let Redirect { from, to, url } = Redirect::read(from, location)?;
    let follows = |to: &Origin| to.0 == "https" || (from.0 == "http" && is_here(&from) && is_here(to));
    if to.as_ref().is_some_and(follows) { Ok(url) } else { Err("a gate may redirect to https alone") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::http::tests::{Server, answer, bytes, fault, raw};
    use crate::fetch::{Fetch as _, Reply};

    #[derive(Debug)]
    struct Open;

    impl Pass for Open {
        fn headers(&self, _: &str) -> Result<Vec<(&'static str, String)>, String> {
            Ok(vec![("Authorization", "Bearer secret".into()), ("Tidegate-Proof", "proof".into())])
        }
    }

    fn get(url: &str) -> Result<Reply, FetchError> {
        HttpFetch::new().fetch(&Request::target(url, 10).after(4).opened_by(&Open))
    }

    #[test]
    fn redirect_targets_get_no_credentials() {
        let store = Server::new(vec![answer("206 Partial Content", "Content-Range: bytes 4-9/10\r\n", "456789")]);
        let location = format!("Location: {}\r\n", store.url("/bucket/object?X-Signature=abc"));
        let gate = Server::new(vec![answer("307 Temporary Redirect", &location, "")]);
        assert_eq!(bytes(get(&gate.url("/v1/repo/targets/a")).unwrap()), b"456789");
        let [asked, followed] = [gate.seen().remove(0), store.seen().remove(0)];
        assert!(asked.contains("authorization: bearer secret") && asked.contains("tidegate-proof: proof"), "{asked}");
        assert!(asked.contains("range: bytes=4-") && followed.contains("range: bytes=4-"));
        assert!(followed.starts_with("get /bucket/object?x-signature=abc "), "{followed}");
        assert!(!followed.contains("authorization") && !followed.contains("proof"), "{followed}");
    }

    #[test]
    fn gate_redirects_are_limited() {
        let many =
            Server::new((0..6).map(|_| answer("307 Temporary Redirect", "Location: /v1/again\r\n", "")).collect());
        let error = fault(get(&many.url("/v1/repo/x")));
        assert!(matches!(error, FetchError::Redirect { .. }), "{error}");
        assert_eq!(many.seen().len(), 6);
        // Also on the gate's own host, only the requested URL is followed.
        assert!(many.seen()[1..].iter().all(|head| !head.contains("secret")));
        let (remote, here) = ("https://gate.example.com/v1/repo/x", "http://127.0.0.1:8080/v1/repo/x");
        for (from, to, follows) in [
            (remote, "https://bucket.example.net/x?sig=1", true),
            (remote, "/elsewhere", true),
            (remote, "http://bucket.example.net/x", false),
            (remote, "http://gate.example.com/x", false),
            (remote, "http://127.0.0.1/x", false),
            (remote, "ftp://bucket.example.net/x", false),
            (remote, "file:///etc/passwd", false),
            (remote, "https://user@bucket.example.net/x", false),
            (remote, "", false),
            (here, "http://localhost:9000/x", true),
            (here, "http://[::1]:9000/x", true),
            (here, "https://bucket.example.net/x", true),
            (here, "http://bucket.example.net/x", false),
            (here, "http://127.0.0.1.example.net/x", false),
        ] {
            assert_eq!(redirected(from, to).is_ok(), follows, "{from} {to}");
        }
        // No error contains the presigned URL.
        let gate =
            Server::new(vec![answer("307 Moved", "Location: http://bucket.example.net/x?X-Signature=abc\r\n", "")]);
        let error = fault(get(&gate.url("/v1/repo/x"))).to_string();
        assert!(
            error.contains("307 with the location \"http://bucket.example.net/x\": a gate may redirect to https alone"),
            "{error}"
        );
        assert!(!error.contains("abc"), "{error}");
    }

    #[test]
    fn only_the_gate_can_refuse() {
        let refusal = r#"{"error": {"rule": "G-TOK-05", "why": "not yours", "missing": ["cohort stable.lab"]}}"#;
        for (status, code) in [("401 Unauthorized", 401), ("403 Forbidden", 403)] {
            let gate = Server::new(vec![answer(status, "", refusal)]);
            let error = fault(get(&gate.url("/v1/repo/x")));
            assert!(matches!(&error, FetchError::Denied { status, .. } if *status == code), "{error}");
            assert!(error.to_string().ends_with("not yours (G-TOK-05); missing: cohort stable.lab"), "{error}");
            let store = Server::new(vec![answer(status, "", "<Error>expired</Error>")]);
            let location = format!("Location: {}\r\n", store.url("/x?X-Signature=abc"));
            let gate = Server::new(vec![answer("307 Moved", &location, "")]);
            let error = fault(get(&gate.url("/v1/repo/x")));
            assert!(matches!(error, FetchError::Status { status, .. } if status == code), "{error}");
        }
        // One that does not end, and one that breaks off.
        for body in [
            raw([b"HTTP/1.1 403 No\r\n\r\n".as_slice(), &vec![b' '; 200_000]].concat()),
            raw("HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\n{"),
        ] {
            let gate = Server::new(vec![body]);
            let error = fault(get(&gate.url("/v1/repo/x"))).to_string();
            assert!(error.ends_with("the gate does not say why"), "{error}");
        }
    }
}
