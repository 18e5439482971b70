//! The command line that the public TUF conformance suite drives (github.com/theupdateframework/tuf-conformance,
//! CLIENT-CLI.md), as a thin layer over [`Updater`].
//!
//! ```text
//! pytest tuf_conformance --entrypoint target/debug/examples/conformance
//! ```

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::*;
use tidegate_client::clock::SystemClock;
use tidegate_client::fetch::AnyFetch;
use tidegate_client::store::DirStore;
use tidegate_client::updater::{Repository, Updater};
use tidegate_tuf::path::{TargetPath, percent_encode};

#[derive(Default)]
struct Arguments {
    metadata_dir: PathBuf,
    metadata_url: String,
    target_names: Vec<String>,
    target_base_url: String,
    target_dir: PathBuf,
    command: Vec<String>,
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut parser = lexopt::Parser::from_env();
    let mut arguments = Arguments::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("metadata-dir") => arguments.metadata_dir = parser.value()?.into(),
            Long("metadata-url") => arguments.metadata_url = parser.value()?.string()?,
            Long("target-name") => arguments.target_names.push(parser.value()?.string()?),
            Long("target-base-url") => arguments.target_base_url = parser.value()?.string()?,
            Long("target-dir") => arguments.target_dir = parser.value()?.into(),
            Value(word) => arguments.command.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(arguments)
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let command: Vec<&str> = arguments.command.iter().map(String::as_str).collect();
    let trusted_root = arguments.metadata_dir.join("root.json");
    match command[..] {
        ["init", root] => {
            std::fs::copy(root, trusted_root)?;
            Ok(())
        }
        ["refresh"] => {
            updater(arguments)?.refresh()?;
            Ok(())
        }
        ["download"] => {
            let mut updater = updater(arguments)?;
            for name in &arguments.target_names {
                let found = updater.find(&TargetPath::new(name)?)?;
                updater.download(&found, arguments.target_dir.join(percent_encode(name)))?;
            }
            Ok(())
        }
        _ => Err("one of the commands init ROOT, refresh and download is needed".into()),
    }
}

fn updater(arguments: &Arguments) -> Result<Updater, Box<dyn Error>> {
    let root = std::fs::read(Path::new(&arguments.metadata_dir).join("root.json"))?;
    // `refresh` names none, and needs none.
    let targets = Some(&arguments.target_base_url).filter(|url| !url.is_empty()).unwrap_or(&arguments.metadata_url);
    let repository = Repository::new(&arguments.metadata_url, targets)?;
    // The suite looks at repositories of the past, with a clock of the past, which `Updater::open` would not believe.
    Ok(Updater::new(root, repository, AnyFetch::new(), DirStore::open(&arguments.metadata_dir)?, SystemClock::new()))
}
