//! Sources of passphrases and PINs: a file descriptor, the environment, a person at a terminal; never the command line.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{IsTerminal as _, Read as _};

use zeroize::Zeroizing;

use super::{KeyName, Passphrases};
use crate::error::{Error, Result};

/// The variable for every key without its own variable.
const VARIABLE: &str = "TIDEGATE_PASSPHRASE";
/// Maximum length of a passphrase; a longer one is a file given by mistake.
const MAX_LENGTH: u64 = 4096;

/// Passphrases and PINs from outside, each requested once.
///
/// In this order: the file descriptor if one was given, the environment variable of the key (`TIDEGATE_PASSPHRASE_ROOT_1` for
/// the key `root-1`), the one that serves every key (`TIDEGATE_PASSPHRASE`), and the terminal if there is one.
pub struct Ask {
    descriptor: Option<u32>,
    prompt: bool,
    known: BTreeMap<String, Zeroizing<String>>,
    /// The remaining lines of the descriptor, in order.
    lines: Option<Vec<Zeroizing<String>>>,
}

impl Ask {
    /// Uses the environment and, if there is one, the terminal.
    pub fn new() -> Self {
        Self { descriptor: None, prompt: std::io::stdin().is_terminal(), known: BTreeMap::new(), lines: None }
    }

    /// Reads passphrases from an open file descriptor, one per line, in the order in which they are requested; the last one
    /// serves all remaining keys.
    #[must_use]
    pub fn descriptor(mut self, descriptor: Option<u32>) -> Self {
        self.descriptor = descriptor;
        self
    }

    /// Never prompts: for scripts.
    #[must_use]
    pub fn without_prompt(mut self) -> Self {
        self.prompt = false;
        self
    }

    fn given(&mut self, name: &str) -> Result<Option<Zeroizing<String>>> {
        if let Some(descriptor) = self.descriptor {
            let lines = match &mut self.lines {
                Some(lines) => lines,
                None => self.lines.insert(read_descriptor(descriptor)?),
            };
            // The last line serves all keys that are left.
            let line = if lines.len() > 1 { lines.pop() } else { lines.last().cloned() };
            return line.map(Some).ok_or_else(|| {
                Error::input(format!("file descriptor {descriptor} has no line for the passphrase of the key {name}"))
                    .remedy("write one passphrase per line, in the order in which the keys are given")
            });
        }
        for variable in [KeyName::passphrase_variable(name).as_str(), VARIABLE] {
            match std::env::var(variable) {
                Ok(value) => return Ok(Some(Zeroizing::new(value))),
                Err(std::env::VarError::NotPresent) => {}
                Err(error) => return Err(Error::input(format!("{variable} is not UTF-8")).with_source(error)),
            }
        }
        Ok(None)
    }

    fn ask(&mut self, name: &str, what: &str) -> Result<Zeroizing<String>> {
        if let Some(known) = self.known.get(name) {
            return Ok(known.clone());
        }
        let secret = match self.given(name)? {
            Some(given) => given,
            None if self.prompt => prompt(&format!("{what} for the key {name}: "))?,
            None => return Err(nobody(name, what)),
        };
        self.known.insert(name.to_owned(), secret.clone());
        Ok(secret)
    }
}

impl Default for Ask {
    fn default() -> Self {
        Self::new()
    }
}

impl Passphrases for Ask {
    fn passphrase(&mut self, name: &str) -> Result<Zeroizing<String>> {
        self.ask(name, "Passphrase")
    }

    fn pin(&mut self, name: &str, token: &str) -> Result<Zeroizing<String>> {
        self.ask(name, &format!("PIN of the token {token:?}"))
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ask({} known)", self.known.len())
    }
}

/// Opens the descriptor through the system's own folder of them; the lines come out last first.
fn read_descriptor(descriptor: u32) -> Result<Vec<Zeroizing<String>>> {
    let path = std::path::PathBuf::from(format!("/dev/fd/{descriptor}"));
    let file = File::open(&path).map_err(|e| {
        Error::io("read", &path, e).remedy("open it in the shell: tidegate --passphrase-fd 3 ... 3<FILE")
    })?;
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_LENGTH).read_to_string(&mut text).map_err(|e| Error::io("read", &path, e))?;
    let mut lines: Vec<_> = text.lines().map(|line| Zeroizing::new(line.to_owned())).collect();
    lines.reverse();
    Ok(lines)
}

fn prompt(text: &str) -> Result<Zeroizing<String>> {
    rpassword::prompt_password(text)
        .map(Zeroizing::new)
        .map_err(|e| Error::io("read", std::path::Path::new("the terminal"), e))
}

fn nobody(name: &str, what: &str) -> Error {
    Error::input(format!("the key {name} needs its {}, and there is no terminal to ask", lower(what))).remedy(format!(
        "set {}, or give --passphrase-fd N with the passphrase as a line",
        KeyName::passphrase_variable(name)
    ))
}

fn lower(what: &str) -> String {
    what.strip_prefix("Passphrase").map_or_else(|| what.to_owned(), |_| "passphrase".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_descriptor_gives_a_line_for_each_key_and_each_key_once() {
        use std::io::Write as _;
        use std::os::fd::AsRawFd as _;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one\ntwo\n").unwrap();
        let descriptor = u32::try_from(file.as_raw_fd()).unwrap();
        let mut ask = Ask::new().without_prompt().descriptor(Some(descriptor));
        assert_eq!(*ask.passphrase("a").unwrap(), "one");
        assert_eq!(*ask.passphrase("b").unwrap(), "two");
        assert_eq!(*ask.passphrase("a").unwrap(), "one");
        assert_eq!(*ask.passphrase("c").unwrap(), "two");
        assert!(!format!("{ask:?}").contains("one"));
    }

    #[test]
    fn with_nobody_to_ask_the_variable_is_named() {
        let error = Ask::new().without_prompt().passphrase("root-9").unwrap_err();
        assert!(error.remedy_text().unwrap().contains("TIDEGATE_PASSPHRASE_ROOT_9"), "{error:?}");
    }
}
