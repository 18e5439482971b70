//! The location of a private key.

use std::fmt;
use std::path::{Path, PathBuf, is_separator};
use std::str::FromStr;
use std::time::Duration;

use super::command::check_variable;
use super::percent::{attributes, encode, percent_decode};
use super::pkcs11_uri::Pkcs11Uri;
use crate::error::{Error, Result};
use tidegate_model::span::Span;
use tidegate_model::text::public_url;

/// What a key URI may look like, for errors.
const FORMS: &str =
    "the kinds are: file:keys/NAME.pem, pkcs11:token=...;object=..., command:PROGRAM?arg=..., kms:KEY-ID?region=...";
/// The default timeout of an external program; enough time to find and touch a token.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);
/// A URI is a line of text.
const MAX_LENGTH: usize = 4096;

/// Where a private key is, as `tidegate.toml` writes it. It never holds a secret: passphrases and PINs come from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyUri {
    /// `file:PATH`, a PKCS#8 PEM file; a relative path counts from the workspace.
    File(PathBuf),
    /// `pkcs11:...` (RFC 7512), a key on a token: a smart card, a hardware security module.
    Pkcs11(Box<Pkcs11Uri>),
    /// `command:PROGRAM?arg=...&env=...&timeout=...`, a program that signs.
    Command(CommandUri),
    /// `kms:KEY?region=...&profile=...&endpoint=...`, a key in AWS KMS.
    Kms(KmsUri),
}

/// A program that signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandUri {
    /// The program; one with a `/` that is not absolute counts from the workspace, one without is looked for in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// How long it may take for one signature.
    pub timeout: Duration,
    /// The variables that it inherits, beside those that every program does.
    pub environment: Vec<String>,
}

/// A key in AWS KMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsUri {
    /// Its id, ARN or `alias/NAME`.
    pub key: String,
    /// The region; else that of the environment or profile, or the one in the ARN.
    pub region: Option<String>,
    /// The profile of the credentials.
    pub profile: Option<String>,
    /// Another endpoint than AWS's own.
    pub endpoint: Option<String>,
}

impl KeyUri {
    /// The URI's scheme.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Pkcs11(_) => "pkcs11",
            Self::Command(_) => "command",
            Self::Kms(_) => "kms",
        }
    }

    /// Reads a URI. What it names need not exist, nor need this build be able to use it.
    ///
    /// # Errors
    ///
    /// Fails if the URI is too long, of an unknown kind, or malformed.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_LENGTH {
            return Err(Error::input(format!("a key URI is longer than {MAX_LENGTH} bytes")).remedy(FORMS));
        }
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(Error::input(format!("{:?} is not a key URI", public_url(text))).remedy(FORMS));
        };
        match scheme {
            "file" if rest.is_empty() => {
                Err(Error::input("the key URI file: names no path").remedy("write it as file:keys/NAME.pem"))
            }
            "file" => Ok(Self::File(PathBuf::from(rest))),
            "pkcs11" => Pkcs11Uri::parse(text).map(Box::new).map(Self::Pkcs11),
            "command" => CommandUri::parse(rest).map(Self::Command),
            "kms" => KmsUri::parse(rest).map(Self::Kms),
            _ => Err(Error::input(format!("the kind of key {scheme:?} is unknown")).remedy(FORMS)),
        }
    }

    /// What kind of source it is, in a word: `file`, `pkcs11`, `command`, `kms`.
    pub fn source(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Pkcs11(_) => "pkcs11",
            Self::Command(_) => "command",
            Self::Kms(_) => "kms",
        }
    }

    /// The path of a file key, from `workspace` if it is relative; `None` for other kinds.
    pub fn file(&self, workspace: &Path) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(workspace.join(path)),
            _ => None,
        }
    }
}

impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Pkcs11(uri) => uri.fmt(f),
            Self::Command(uri) => uri.fmt(f),
            Self::Kms(uri) => uri.fmt(f),
        }
    }
}

impl FromStr for KeyUri {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|e| match e.remedy_text() {
            Some(remedy) => format!("{e}; {remedy}"),
            None => e.to_string(),
        })
    }
}

impl CommandUri {
    fn parse(text: &str) -> Result<Self> {
        let bad = |why: String| {
            Error::input(format!("the key URI command:{} is malformed: {why}", public_url(text)))
                .remedy("write it as command:./bin/sign?arg=--key&arg=root-1&timeout=60s")
        };
        let (program, query) = text.split_once('?').unwrap_or((text, ""));
        let program = percent_decode(program).map_err(bad)?;
        if program.is_empty() {
            return Err(bad("it names no program".into()));
        }
        let mut uri =
            Self { program: program.into(), args: Vec::new(), timeout: DEFAULT_TIMEOUT, environment: Vec::new() };
        for (name, value) in attributes(query, '&').map_err(bad)? {
            match name.as_str() {
                "arg" => uri.args.push(value),
                "env" => {
                    check_variable(&value).map_err(bad)?;
                    uri.environment.push(value);
                }
                "timeout" => {
                    let span: Span = value.parse().map_err(bad)?;
                    uri.timeout = Duration::from_secs(span.seconds());
                    if span.is_zero() || uri.timeout > MAX_TIMEOUT {
                        return Err(bad("the timeout must be between 1s and 1h".into()));
                    }
                }
                _ => return Err(bad(format!("{name:?} is unknown; there are arg, env and timeout"))),
            }
        }
        Ok(uri)
    }

    /// The program to start: an absolute path, from `workspace` on if it has a `/`; or a bare name for `PATH`.
    pub fn program(&self, workspace: &Path) -> PathBuf {
        if self.program.to_string_lossy().contains(is_separator) {
            let path = workspace.join(&self.program);
            std::path::absolute(&path).unwrap_or(path)
        } else {
            self.program.clone()
        }
    }
}

impl fmt::Display for CommandUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command:{}", encode(&self.program.to_string_lossy()))?;
        let mut separator = '?';
        for arg in &self.args {
            write!(f, "{separator}arg={}", encode(arg))?;
            separator = '&';
        }
        for name in &self.environment {
            write!(f, "{separator}env={}", encode(name))?;
            separator = '&';
        }
        if self.timeout != DEFAULT_TIMEOUT {
            write!(f, "{separator}timeout={}s", self.timeout.as_secs())?;
        }
        Ok(())
    }
}

impl KmsUri {
    fn parse(text: &str) -> Result<Self> {
        let bad = |why: String| {
            Error::input(format!("the key URI kms:{} is malformed: {why}", public_url(text)))
                .remedy("write it as kms:alias/NAME?region=eu-central-1, or with the key's id or ARN")
        };
        let (key, query) = text.split_once('?').unwrap_or((text, ""));
        let key = percent_decode(key).map_err(bad)?;
        if key.is_empty() || key.len() > 2048 || key.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(bad("it names no key".into()));
        }
        let mut uri = Self { key, region: None, profile: None, endpoint: None };
        for (name, value) in attributes(query, '&').map_err(bad)? {
            let slot = match name.as_str() {
                "region" => &mut uri.region,
                "profile" => &mut uri.profile,
                "endpoint" => &mut uri.endpoint,
                _ => return Err(bad(format!("{name:?} is unknown; there are region, profile and endpoint"))),
            };
            if value.is_empty() || slot.replace(value).is_some() {
                return Err(bad(format!("{name} must be given once, with a value")));
            }
        }
        if let Some(endpoint) = &uri.endpoint
            && !url::Url::parse(endpoint).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
        {
            return Err(bad("the endpoint must be an http or https URL".into()));
        }
        // arn:aws:kms:REGION:ACCOUNT:key/ID
        if uri.region.is_none() && uri.key.starts_with("arn:") {
            uri.region = uri.key.split(':').nth(3).filter(|region| !region.is_empty()).map(str::to_owned);
        }
        Ok(uri)
    }
}

impl fmt::Display for KmsUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kms:{}", encode(&self.key))?;
        let mut separator = '?';
        for (name, value) in [("region", &self.region), ("profile", &self.profile), ("endpoint", &self.endpoint)] {
            if let Some(value) = value {
                write!(f, "{separator}{name}={}", encode(value))?;
                separator = '&';
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_and_written_back() {
        for text in [
            "file:keys/a.pem",
            "file:/media/usb/root 1.pem",
            "pkcs11:token=Ceremony;object=root-1?module-path=/usr/lib/softhsm/libsofthsm2.so",
            "command:./bin/sign?arg=--key&arg=root-1&timeout=60s",
            "command:step-sign",
            "command:a%20b?arg=x%26y",
            "kms:alias/root-1?region=eu-central-1&profile=release",
            "kms:1234abcd-12ab-34cd-56ef-1234567890ab?region=eu-central-1&endpoint=http://localhost:5000",
        ] {
            let uri = KeyUri::parse(text).unwrap();
            assert_eq!(uri.to_string(), text);
            assert_eq!(KeyUri::parse(&uri.to_string()).unwrap(), uri);
        }
        let KeyUri::Kms(uri) = KeyUri::parse("kms:arn:aws:kms:eu-west-1:111122223333:key/x").unwrap() else { panic!() };
        assert_eq!(uri.region.as_deref(), Some("eu-west-1"));
    }

    #[test]
    fn what_means_nothing_is_refused_with_what_would() {
        for (text, part) in [
            ("keys/a.pem", "is not a key URI"),
            ("file:", "names no path"),
            ("ftp:x", "\"ftp\" is unknown"),
            ("command:", "names no program"),
            ("command:x?colour=red", "\"colour\" is unknown"),
            ("command:x?timeout=0", "between 1s and 1h"),
            ("command:x?timeout=2h", "between 1s and 1h"),
            ("command:x?arg", "has no value"),
            ("command:%zz", "without two hex digits"),
            ("command:%ff", "not UTF-8"),
            ("kms:", "names no key"),
            ("kms:a b", "names no key"),
            ("kms:x?region=", "given once"),
            ("kms:x?region=a&region=b", "given once"),
            ("kms:x?endpoint=file:///x", "http or https"),
            ("kms:x?secret=y", "\"secret\" is unknown"),
            (&format!("file:{}", "x".repeat(5000)), "longer than"),
        ] {
            let error = KeyUri::parse(text).unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert!(error.remedy_text().is_some());
        }
    }

    #[test]
    fn relative_paths_count_from_the_workspace() {
        let file = |text: &str| KeyUri::parse(text).unwrap().file(Path::new("/w"));
        assert_eq!(file("file:a.pem"), Some("/w/a.pem".into()));
        assert_eq!(file("file:/k/a.pem"), Some("/k/a.pem".into()));
        assert_eq!(file("kms:x"), None);
        let program = |text: &str| match KeyUri::parse(text).unwrap() {
            KeyUri::Command(uri) => uri.program(Path::new("/w")),
            _ => panic!(),
        };
        assert_eq!(program("command:./sign"), Path::new("/w/./sign"));
        assert_eq!(program("command:bin/sign"), Path::new("/w/bin/sign"));
        assert_eq!(program("command:/bin/sign"), Path::new("/bin/sign"));
        assert_eq!(program("command:sign"), Path::new("sign"));
    }
}
