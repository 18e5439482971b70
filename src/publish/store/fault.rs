//! Converts a store's errors into ours: what failed, who can fix it, and no secrets.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use object_store::Error as StoreError;
use object_store::client::{HttpError, HttpErrorKind};

use super::variables::Variables;
use crate::error::{Error, Kind, chain};

/// Environment variables whose values must never be shown.
const SECRET: [&str; 11] = [
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SSE_CUSTOMER_KEY_BASE64",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_STORAGE_TOKEN",
    "AZURE_CLIENT_SECRET",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
];
/// Maximum length of a quoted store message.
const QUOTED: usize = 600;

/// Texts that must not be shown. `Debug` does not show them.
#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// The secrets among these variables.
    pub(super) fn among(variables: &Variables) -> Self {
        let mut secrets = Self::default();
        let own = variables.for_private();
        for value in SECRET.iter().flat_map(|name| [variables.value(name), own.value(name)]).flatten() {
            secrets.add(value);
        }
        secrets
    }

    pub(super) fn add(&mut self, text: &str) {
        // Shorter texts would redact innocent words, and are not real secrets.
        if text.len() >= 4 {
            self.0.push(text.to_owned());
        }
    }

    /// The text without secrets: known ones, the queries of URLs, and signatures that stores quote back.
    pub(super) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            text = text.replace(secret.as_str(), "(secret)");
        }
        for name in ["Signature=", "sig=", "X-Amz-Security-Token=", "X-Amz-Credential=", "Bearer ", "Basic "] {
            let mut from = 0;
            while let Some(at) = text.get(from..).and_then(|rest| rest.find(name)) {
                let begin = from + at + name.len();
                let rest = text.get(begin..).unwrap_or_default();
                let end =
                    rest.find(|c: char| !(c.is_ascii_alphanumeric() || "%+/=_-.~".contains(c))).unwrap_or(rest.len());
                text.replace_range(begin..begin + end, "(secret)");
                from = begin + "(secret)".len();
            }
        }
        text
    }
}

/// A store's message, in one line, redacted.
#[derive(Debug)]
struct StoreMessage(String);

impl fmt::Display for StoreMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for StoreMessage {}

/// Converts a store's error into ours. `what` states the action.
pub(in crate::publish) fn fault(what: String, error: &StoreError, secrets: &Secrets) -> Error {
    let text = chain(error);
    let answer = Answer::of(&text);
    let denied = matches!(error, StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. });
    // What only the caller can correct is no failure of the network.
    let (kind, remedy) = match (io_kind(error), answer.status, answer.code) {
        (Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded), ..) | (_, Some(507), _) => {
            (Kind::Io, "free some space there and try again; what devices see has not changed")
        }
        (Some(io::ErrorKind::PermissionDenied), ..) => (Kind::Io, "check the owner and mode of that folder"),
        (.., Some("RequestTimeTooSkewed")) => {
            (Kind::Input, "this machine's clock is wrong: set it, then try again; what devices see has not changed")
        }
        (.., Some("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired")) => (
            Kind::Input,
            "the credentials have expired: renew them, then try again; what has arrived is not sent twice",
        ),
        _ if answer.host.is_some_and(|host| METADATA_SERVICES.contains(&host)) => (
            Kind::Input,
            "no credentials were found: set those of the environment (docs/publish.md), or run on a machine that has a role",
        ),
        (.., Some("NoSuchBucket")) => (Kind::Input, "make that bucket, or correct its name"),
        _ if denied => (
            Kind::Input,
            "check the credentials and what they may do there (docs/publish.md, least privilege); what devices see has not changed",
        ),
        _ => (Kind::Io, "what devices see has not changed; try again"),
    };
    let said = brief(&secrets.redact(&text));
    Error::new(kind, what).with_source(StoreMessage(said)).remedy(remedy)
}

/// Whether a retry may help: the network or the store failed, not the request.
pub(super) fn is_transient(error: &StoreError) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return !matches!(http.kind(), HttpErrorKind::Decode);
        }
        cause = error.source();
    }
    matches!(error, StoreError::Generic { .. })
        && matches!(Answer::of(&chain(error)).status, Some(408 | 429 | 500 | 502 | 503 | 504))
}

/// Whether the store does not know the operation or the condition.
pub(super) fn is_unsupported(error: &StoreError) -> bool {
    let text = chain(error);
    let Answer { status, code, .. } = Answer::of(&text);
    matches!(error, StoreError::NotImplemented { .. } | StoreError::NotSupported { .. })
        || matches!(status, Some(405 | 501))
        || code == Some("NotImplemented")
}

/// Where machines of the clouds get their credentials from.
const METADATA_SERVICES: [&str; 2] = ["169.254.169.254", "metadata.google.internal"];

/// What was asked, and what a store answered.
///
/// The library has variants for few answers. Of all others its errors hold URL, status and body, but their type is private, so these
/// are read from its text here, and nowhere else. The codes are data of the protocols of S3 and Azure: the `<Code>` of an XML body.
#[derive(Debug, PartialEq, Eq)]
struct Answer<'a> {
    host: Option<&'a str>,
    status: Option<u16>,
    code: Option<&'a str>,
}

impl<'a> Answer<'a> {
    fn of(text: &'a str) -> Self {
        let after = |text: &'a str, lead: &str| text.split_once(lead).map(|(_, rest)| rest);
        let request = after(text, "Error performing ").and_then(|rest| rest.split(' ').nth(1));
        let host = request.and_then(|url| after(url, "://"));
        let status = after(text, "status code: ").and_then(|rest| rest.get(..3)?.parse().ok());
        let host = host.and_then(|rest| rest.split(['/', ':', '?']).next());
        Self { host, status, code: tag(text, "Code") }
    }
}

/// The content of the first XML element of this name.
fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(value, _)| value)
}

/// Shortens a message to one line. Of XML only the code and the message are kept.
fn brief(text: &str) -> String {
    let text = match (text.split_once('<'), tag(text, "Code")) {
        (Some((before, _)), Some(code)) => {
            let message = tag(text, "Message").unwrap_or_default();
            format!("{before}{code}: {message}")
        }
        _ => text.to_owned(),
    };
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > QUOTED {
        let end = (0..=QUOTED).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(end);
        line.push_str(" ...");
    }
    line
}

/// The kind of the underlying system error, if there is one.
fn io_kind(error: &StoreError) -> Option<io::ErrorKind> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_said() {
        let mut secrets = Secrets::default();
        secrets.add("wJalrXUtnFEMI");
        secrets.add("abc");
        let said = secrets.redact(
            "GET https://h/a?sv=1&sig=AbC%2Bd%3D&se=2 AWS4-HMAC-SHA256 Signature=0123abcd, key wJalrXUtnFEMI, Bearer ya29.x-y abc",
        );
        assert_eq!(
            said,
            "GET https://h/a?sv=1&sig=(secret)&se=2 AWS4-HMAC-SHA256 Signature=(secret), key (secret), Bearer (secret) abc"
        );
        assert_eq!(format!("{secrets:?}"), "Secrets(1)");
    }

    const REFUSED: &str = "Error performing PUT http://h:9000/b in 3ms - Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>No.</Message><StringToSign>ExpiredToken</StringToSign></Error>";

    #[test]
    fn what_a_store_answers_in_xml_is_said_in_a_line() {
        assert_eq!(
            brief(REFUSED),
            "Error performing PUT http://h:9000/b in 3ms - Server returned non-2xx status code: 403 Forbidden: SignatureDoesNotMatch: No."
        );
        assert!(brief(&"x".repeat(5000)).len() < 700);
    }

    #[test]
    fn an_answer_is_read_by_its_parts_not_by_words_in_it() {
        let (host, code) = (Some("h"), Some("SignatureDoesNotMatch"));
        assert_eq!(Answer::of(REFUSED), Answer { host, status: Some(403), code });
        let unreached = "Error performing PUT http://169.254.169.254/latest/api/token in 1s - HTTP error: no route";
        assert_eq!(Answer::of(unreached), Answer { host: Some("169.254.169.254"), status: None, code: None });
        assert_eq!(Answer::of("NoSuchBucket"), Answer { host: None, status: None, code: None });
        let fault = |text: &str| {
            let source = Box::<dyn StdError + Send + Sync>::from(text.to_owned());
            let error = fault("x".into(), &StoreError::Generic { store: "S3", source }, &Secrets::default());
            (error.kind(), error.remedy_text().unwrap_or_default().to_owned())
        };
        let is = |(kind, remedy): (Kind, String), of: Kind, lead: &str| kind == of && remedy.starts_with(lead);
        assert!(is(fault(unreached), Kind::Input, "no credentials were found"));
        assert!(is(fault(REFUSED), Kind::Io, "what devices see"), "a token in what was signed has not expired");
        let expired = REFUSED.replacen("SignatureDoesNotMatch", "ExpiredToken", 1);
        assert!(is(fault(&expired), Kind::Input, "the credentials have expired"));
    }
}
