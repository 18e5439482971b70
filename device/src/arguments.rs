//! The command line.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use super::command::Command;
use super::help;
use super::settings_file::SettingsFile;
use lexopt::prelude::*;
use tidegate_model::facts::TypedFact;
use tidegate_model::gate::Attestation;
use tidegate_model::span::Span;
use tidegate_model::time::{self, UtcTime};
use tidegate_model::version::{self, Version};

/// A command with its options.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) command: Command,
    pub(super) config: Option<PathBuf>,
    pub(super) given: SettingsFile,
    pub(super) facts: Vec<TypedFact>,
    pub(super) at: Option<UtcTime>,
    /// How long to defer a release.
    pub(super) time: Option<Duration>,
    /// The release to let out of quarantine.
    pub(super) lift: Option<Version>,
    /// Whether to ignore the device's own policy.
    pub(super) now: bool,
    pub(super) json: bool,
    pub(super) quiet: bool,
    /// How often `-v` was given.
    pub(super) verbose: u8,
}

/// A parsed command line.
pub(super) enum Parsed {
    /// To print this text.
    Help(&'static str),
    /// To run a command.
    Run(Box<Arguments>),
}

/// Parses a command line.
pub(super) fn parse(mut parser: lexopt::Parser) -> Result<Parsed, lexopt::Error> {
    let mut command = None;
    let mut config = None;
    let mut given = SettingsFile::default();
    let mut facts = Vec::new();
    let (mut at, mut time, mut now, mut lift) = (None, None, false, None);
    let mut lifts = false;
    let (mut json, mut quiet, mut wants_help, mut send, mut verbose) = (false, false, false, false, 0);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") => config = Some(parser.value()?.into()),
            Long("root") => given.root = Some(parser.value()?.into()),
            Long("repository") => given.repository = Some(parser.value()?.string()?),
            Long("metadata-url") => given.metadata_url = Some(parser.value()?.string()?),
            Long("targets-url") => given.targets_url = Some(parser.value()?.string()?),
            Long("state-dir") => given.state_dir = Some(parser.value()?.into()),
            Long("device-id") => given.device_id = Some(parser.value()?.string()?),
            Long("channel") => given.channel = Some(parser.value()?.string()?),
            Long("product") => given.product = Some(parser.value()?.string()?),
            Long("hardware") => given.hardware = Some(parser.value()?.string()?),
            Long("factory-version") => given.factory_version = Some(parser.value()?.string()?),
            Long("factory-sequence") => given.factory_sequence = Some(parser.value()?.parse()?),
            Long("fact") => facts.push(parser.value()?.parse()?),
            Long("slot") => given.slot = Some(parser.value()?.into()),
            Long("at") => at = Some(parser.value()?.parse_with(time::parse)?),
            Long("now") => now = true,
            Long("send") => send = true,
            Long("json") => json = true,
            Short('q') | Long("quiet") => quiet = true,
            Short('v') | Long("verbose") => verbose += 1,
            Short('h') | Long("help") => wants_help = true,
            Short('V') | Long("version") => return Ok(Parsed::Help(help::VERSION)),
            Value(word) if command == Some(Command::Defer) && time.is_none() => {
                time = Some(word.parse_with(Span::from_str)?.into());
            }
            Value(word) if command == Some(Command::Quarantine) && !lifts => match word.string()?.as_str() {
                "list" => {}
                "lift" => lifts = true,
                other => return Err(format!("quarantine {other} is unknown: use list, or lift VERSION").into()),
            },
            Value(word) if lifts && lift.is_none() => lift = Some(word.parse_with(version::parse)?),
            Value(word) if command.is_none() => {
                let word = word.string()?;
                let known = Command::ALL.iter().find(|(name, _)| *name == word);
                command = Some(known.ok_or_else(|| unknown(&word))?.1);
            }
            other => return Err(other.unexpected()),
        }
    }
    if wants_help {
        return Ok(Parsed::Help(command.map_or(help::PROGRAM, help::of)));
    }
    let command = command.ok_or_else(|| lexopt::Error::from("a command is needed"))?;
    if at.is_some() && command != Command::Explain {
        return Err("--at can only be used with explain: other commands use the current time".into());
    }
    if command != Command::Explain && facts.iter().any(|fact: &TypedFact| fact.name.as_str() == Attestation::FACT) {
        return Err("--fact attestation can only be used with explain: other commands use the device's attestor".into());
    }
    if now && command != Command::Install {
        return Err("--now can only be used with install: it ignores the device's own policy".into());
    }
    if time.is_none() && command == Command::Defer {
        return Err("defer needs a time, such as 4h".into());
    }
    if lifts && lift.is_none() {
        return Err("quarantine lift needs a version, as quarantine list shows it".into());
    }
    let command = match command {
        Command::Receipts if send => Command::SendReceipts,
        _ if send => return Err("--send can only be used with receipts".into()),
        command => command,
    };
    Ok(Parsed::Run(Box::new(Arguments { command, config, given, facts, at, time, lift, now, json, quiet, verbose })))
}

fn unknown(word: &str) -> lexopt::Error {
    let close =
        Command::ALL.iter().find(|(name, _)| word.len() > 1 && (name.starts_with(word) || word.starts_with(name)));
    let meant = close.map(|(name, _)| format!(" Did you mean {name}?")).unwrap_or_default();
    format!("{word:?} is not a command.{meant}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Parsed, lexopt::Error> {
        parse(lexopt::Parser::from_args(words))
    }

    #[test]
    fn options_may_stand_before_and_after_the_command() {
        let Ok(Parsed::Run(arguments)) = parsed(&["--channel", "stable", "check", "--json", "--fact=a=1", "-q"]) else {
            panic!()
        };
        assert_eq!((arguments.command, arguments.json, arguments.quiet), (Command::Check, true, true));
        assert_eq!((arguments.given.channel.as_deref(), arguments.facts.len()), (Some("stable"), 1));
    }

    #[test]
    fn wrong_usage_says_what_is_wrong() {
        for (words, expected) in [
            (&["instal"][..], "Did you mean install?"),
            (&["x"], "not a command"),
            (&[], "a command is needed"),
            (&["check", "check"], "check"),
            (&["--cohort", "x", "check"], "--cohort"),
            (&["check", "--at", "2026-01-05T18:00:00Z"], "explain"),
            (&["explain", "--at", "yesterday"], "yesterday"),
            (&["check", "--fact", "novalue"], "novalue"),
            (&["check", "--factory-sequence", "-1"], "-1"),
            (&["check", "--root"], "--root"),
            (&["check", "--now"], "install"),
            (&["check", "--fact", "attestation=tpm2"], "explain"),
            (&["defer"], "4h"),
            (&["defer", "soon"], "soon"),
            (&["defer", "4h", "5h"], "5h"),
            (&["quarantine", "1.1.0"], "lift VERSION"),
            (&["quarantine", "lift"], "needs a version"),
            (&["quarantine", "lift", "1"], "1"),
            (&["quarantine", "lift", "1.1.0", "1.2.0"], "1.2.0"),
        ] {
            let error = parsed(words).err().unwrap().to_string();
            assert!(error.contains(expected), "{words:?}: {error}");
        }
    }

    #[test]
    fn every_command_has_help() {
        for &(name, command) in Command::ALL {
            assert!(help::of(command).contains(&format!("tidegate-device [OPTIONS] {name}")));
            assert!(help::PROGRAM.contains(&format!("\n  {name} ")));
            assert!(matches!(parsed(&[name, "--help"]), Ok(Parsed::Help(_))));
        }
    }
}
