//! `tidegate-gate secret`

use std::path::Path;

use serde_json::json;

use super::print;
use crate::config::Config;
use crate::error::Result;
use crate::secret::rotate;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Put a new key before the present one, which stays good for what it has signed.
    #[arg(long)]
    rotate: bool,
}

pub(super) fn run(path: &Path, arguments: &Arguments, json: bool) -> Result<()> {
    let config = Config::load(path)?;
    let file = config.path(&config.secret);
    if file.exists() != arguments.rotate {
        let (what, remedy) =
            if arguments.rotate { ("does not exist", "leave out --rotate") } else { ("exists", "give --rotate") };
        return Err(crate::error::Error::new(format!("{} {what}", file.display())).remedy(remedy));
    }
    rotate(&file)?;
    if json {
        return print(&json!({"secret": file, "rotated": arguments.rotate}).to_string());
    }
    print(&format!(
        "{}: {}",
        file.display(),
        if arguments.rotate { "a new key is in force, the one before it still counts" } else { "made" }
    ))?;
    eprintln!("every instance needs this very file; copy it to them, readable by its owner alone");
    Ok(())
}
