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
    let said = brief(&secrets.redact(&chain(error)));
    let io = io_kind(error);
    let status = status(&said);
    let denied = matches!(error, StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. });
    let remedy = match (io, status) {
        (Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded), _) | (_, Some(507)) => {
            "free some space there and publish again; what devices see has not changed"
        }
        (Some(io::ErrorKind::PermissionDenied), _) => "check the owner and mode of that folder",
        _ if said.contains("RequestTimeTooSkewed") => {
            "this machine's clock is wrong: set it, then publish again; what devices see has not changed"
        }
        _ if said.contains("ExpiredToken") || said.contains("TokenRefreshRequired") => {
            "the credentials have expired: renew them, then publish again; what has arrived is not sent twice"
        }
        _ if said.contains("169.254.169.254") || said.contains("metadata.google.internal") => {
            "no credentials were found: set those of the environment (docs/publish.md), or run on a machine that has a role"
        }
        _ if said.contains("NoSuchBucket") => "make that bucket, or correct its name",
        _ if denied => {
            "check the credentials and what they may do there (docs/publish.md, least privilege); what devices see has not changed"
        }
        _ => "publish again; what devices see has not changed",
    };
    Error::new(Kind::Io, what).with_source(StoreMessage(said)).remedy(remedy)
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
        && matches!(status(&chain(error)), Some(408 | 429 | 500 | 502 | 503 | 504))
}

/// The HTTP status in an error's text, which is all that is left of it there.
fn status(said: &str) -> Option<u16> {
    let at = said.find("status code: ")? + "status code: ".len();
    said.get(at..at + 3)?.parse().ok()
}

/// Whether the store does not know the operation or the condition.
pub(super) fn is_unsupported(error: &StoreError) -> bool {
    matches!(error, StoreError::NotImplemented { .. } | StoreError::NotSupported { .. })
        || matches!(status(&chain(error)), Some(405 | 501))
        || chain(error).contains("NotImplemented")
}

/// Shortens a message to one line. Of XML only the code and the message are kept.
fn brief(text: &str) -> String {
    let tag = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(value, _)| value.to_owned())
    };
    let text = match (text.split_once('<'), tag("Code")) {
        (Some((before, _)), Some(code)) => {
            let message = tag("Message").unwrap_or_default();
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

    #[test]
    fn what_a_store_answers_in_xml_is_said_in_a_line() {
        let said = brief(
            "Error performing PUT http://h/b in 3ms - Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>No.</Message><StringToSign>x</StringToSign></Error>",
        );
        assert_eq!(
            said,
            "Error performing PUT http://h/b in 3ms - Server returned non-2xx status code: 403 Forbidden: SignatureDoesNotMatch: No."
        );
        assert_eq!(status(&said), Some(403));
        assert!(brief(&"x".repeat(5000)).len() < 700);
    }
}
