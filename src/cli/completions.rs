//! `tidegate completions` and `tidegate man`: what the system's shell and `man` read.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use clap_complete::Shell;

use super::command;
use super::context::Context;
use crate::error::{Error, Result};
use crate::fs;

/// Print a completion script for a shell
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate completions bash > tidegate.bash
  tidegate completions zsh > _tidegate
  tidegate completions fish > tidegate.fish")]
pub(super) struct Args {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "tidegate", &mut script);
    if cx.ui.is_json() {
        let script = String::from_utf8_lossy(&script);
        return cx.ui.json(&serde_json::json!({"shell": args.shell.to_string(), "script": script}));
    }
    std::io::stdout().lock().write_all(&script).map_err(|e| Error::io("write", Path::new("stdout"), e))
}

/// Write the manual pages, one per command
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate man --out man1")]
pub(super) struct ManArgs {
    /// The folder to write them to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn man(args: &ManArgs, cx: &mut Context) -> Result<()> {
    std::fs::create_dir_all(&args.out).map_err(|e| Error::io("create", &args.out, e))?;
    let mut root = command().disable_help_subcommand(true);
    root.build();
    let mut names = Vec::new();
    pages(&root, "tidegate", &args.out, &mut names)?;
    if cx.ui.is_json() {
        return cx.ui.json(&serde_json::json!({"written": names}));
    }
    cx.ui.result(format_args!("{} pages in {}", names.len(), args.out.display()))
}

fn pages(command: &clap::Command, name: &str, out: &Path, names: &mut Vec<String>) -> Result<()> {
    let mut page = Vec::new();
    let file = format!("{name}.1");
    let path = out.join(&file);
    clap_mangen::Man::new(command.clone().display_name(name.replace('-', " ")).name(name.to_owned()))
        .render(&mut page)
        .map_err(|e| Error::io("write", &path, e))?;
    fs::write_atomic(&path, &page)?;
    names.push(file);
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, &format!("{name}-{}", below.get_name()), out, names)?;
    }
    Ok(())
}
