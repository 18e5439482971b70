//! Passphrases: from the environment, a file descriptor, or a person at a terminal. Never from the command line, which others can see.

use std::io::{self, IsTerminal as _};

use clap::Args;
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::keys::{Ask, Passphrases};

/// The variable that serves for every key that has none of its own.
const VARIABLE: &str = "TIDEGATE_PASSPHRASE";

/// How passphrases are given.
#[derive(Debug, Clone, Args)]
pub(super) struct PassphraseArgs {
    /// Read the passphrases and PINs of keys from this file descriptor, one per line
    ///
    /// In the order in which the keys are used; the last line is used for all that remain.
    ///
    /// Without it: the environment variable TIDEGATE_PASSPHRASE_NAME (for the key name, in capitals, - as _), else
    /// TIDEGATE_PASSPHRASE, else a prompt if there is a terminal.
    #[arg(long, value_name = "FD")]
    passphrase_fd: Option<u32>,
}

impl PassphraseArgs {
    /// Whoever knows the passphrases.
    pub(super) fn source(&self) -> Box<dyn Passphrases> {
        Box::new(Ask::new().descriptor(self.passphrase_fd))
    }

    /// A new passphrase: from the file descriptor if one was given, else as [`new_passphrase`].
    pub(super) fn new_passphrase(&self, name: &str) -> Result<Zeroizing<String>> {
        match self.passphrase_fd {
            Some(_) => not_empty(self.source().passphrase(name)?),
            None => new_passphrase(),
        }
    }
}

/// Asks for a new passphrase twice, or takes it from the environment.
pub(super) fn new_passphrase() -> Result<Zeroizing<String>> {
    if let Ok(passphrase) = std::env::var(VARIABLE) {
        return not_empty(Zeroizing::new(passphrase));
    }
    if !io::stdin().is_terminal() {
        return Err(Error::input("there is no terminal to ask for a passphrase").remedy(format!("set {VARIABLE}")));
    }
    let passphrase = not_empty(prompt("Passphrase for the new keys: ")?)?;
    if *passphrase != *prompt("Once more: ")? {
        return Err(Error::input("the two passphrases differ").remedy("run the command again"));
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
