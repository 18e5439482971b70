//! Passphrases: from the environment, a file descriptor, or a person at a terminal. Never from the command line, which others can see.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _};
use std::path::PathBuf;

use clap::Args;
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::keys::{KeyName, Passphrases};

/// The variable that serves for every key that has none of its own.
const VARIABLE: &str = "TIDEGATE_PASSPHRASE";
/// A passphrase is a line; what is longer is a file given by mistake.
const MAX_LENGTH: u64 = 4096;

/// How passphrases are given.
#[derive(Debug, Clone, Args)]
pub(super) struct PassphraseArgs {
    /// Read the passphrase of encrypted keys from this file descriptor (its first line)
    ///
    /// Without it: the environment variable TIDEGATE_PASSPHRASE_NAME (for the key name, in capitals, - as _), else
    /// TIDEGATE_PASSPHRASE, else a prompt if there is a terminal.
    #[arg(long, value_name = "FD")]
    passphrase_fd: Option<u32>,
}

impl PassphraseArgs {
    /// Whoever knows the passphrases.
    pub(super) fn source(&self) -> Box<dyn Passphrases> {
        Box::new(Source { fd: self.passphrase_fd, read: None })
    }
}

#[derive(Debug)]
struct Source {
    fd: Option<u32>,
    read: Option<Secret>,
}

impl Passphrases for Source {
    fn passphrase(&mut self, name: &str) -> Result<Zeroizing<String>> {
        if let Some(fd) = self.fd {
            if self.read.is_none() {
                self.read = Some(Secret(read_fd(fd)?));
            }
            if let Some(Secret(passphrase)) = &self.read {
                return Ok(passphrase.clone());
            }
        }
        let own = KeyName::passphrase_variable(name);
        for variable in [own.as_str(), VARIABLE] {
            match std::env::var(variable) {
                Ok(passphrase) => return Ok(Zeroizing::new(passphrase)),
                Err(std::env::VarError::NotPresent) => {}
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(Error::input(format!("{variable} is not UTF-8")));
                }
            }
        }
        if !io::stdin().is_terminal() {
            return Err(Error::input(format!("the key {name} is encrypted, and there is no terminal to ask at"))
                .remedy(format!("set {own} or {VARIABLE}, or give --passphrase-fd FD")));
        }
        prompt(&format!("Passphrase of the key {name}: "))
    }
}

/// Asks for a new passphrase twice, or takes it from the environment.
pub(super) fn new_passphrase() -> Result<Zeroizing<String>> {
    if let Ok(passphrase) = std::env::var(VARIABLE) {
        return not_empty(Zeroizing::new(passphrase));
    }
    if !io::stdin().is_terminal() {
        return Err(Error::input("there is no terminal to ask for a passphrase at").remedy(format!("set {VARIABLE}")));
    }
    let passphrase = not_empty(prompt("Passphrase for the new keys: ")?)?;
    if *passphrase != *prompt("Once more: ")? {
        return Err(Error::input("the two are not the same").remedy("run the command again"));
    }
    Ok(passphrase)
}

fn not_empty(passphrase: Zeroizing<String>) -> Result<Zeroizing<String>> {
    if passphrase.is_empty() { Err(Error::input("the passphrase is empty")) } else { Ok(passphrase) }
}

fn prompt(text: &str) -> Result<Zeroizing<String>> {
    rpassword::prompt_password(text)
        .map(Zeroizing::new)
        .map_err(|e| Error::new(Kind::Io, "the passphrase could not be read").with_source(e))
}

fn read_fd(fd: u32) -> Result<Zeroizing<String>> {
    let path = PathBuf::from(format!("/dev/fd/{fd}"));
    let file = File::open(&path).map_err(|e| Error::io("read", &path, e))?;
    let mut line = Zeroizing::new(String::new());
    BufReader::new(file.take(MAX_LENGTH)).read_line(&mut line).map_err(|e| Error::io("read", &path, e))?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}

struct Secret(Zeroizing<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(passphrase not shown)")
    }
}
