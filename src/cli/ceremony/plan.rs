//! `tidegate ceremony plan`: the steps out of a situation.

use clap::{Args as ClapArgs, Subcommand};

use crate::cli::context::Context;
use crate::error::Result;
use crate::proposal::{Situation, plan};
use crate::workspace::Workspace;

/// List the steps of a ceremony for the current roles and keys
///
/// Also says what cannot be recovered.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(subcommand)]
    situation: Case,
}

#[derive(Debug, Subcommand)]
enum Case {
    /// Add a root key
    AddRootKey {
        /// The new key's name
        name: String,
    },
    /// Remove a root key
    RemoveRootKey {
        /// The key's name
        name: String,
    },
    /// Replace a root key
    ReplaceRootKey {
        /// The key to remove
        old: String,
        /// The key to add
        new: String,
    },
    /// Raise or lower a threshold
    Threshold {
        /// The role
        role: String,
        /// The new threshold
        threshold: u64,
    },
    /// Replace a key of snapshot or timestamp, with an overlap
    ReplaceOnlineKey {
        /// The key to remove
        old: String,
        /// The key to add
        new: String,
    },
    /// Recover from lost keys
    Lost {
        /// Their names
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Recover from compromised keys
    Compromised {
        /// Their names
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Rename the holder of a key
    RenameHolder {
        /// The key
        key: String,
        /// The holder's name
        holder: String,
    },
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let situation = match &args.situation {
        Case::AddRootKey { name } => Situation::AddRootKey(name.clone()),
        Case::RemoveRootKey { name } => Situation::RemoveRootKey(name.clone()),
        Case::ReplaceRootKey { old, new } => Situation::ReplaceRootKey(old.clone(), new.clone()),
        Case::Threshold { role, threshold } => Situation::Threshold(role.clone(), *threshold),
        Case::ReplaceOnlineKey { old, new } => Situation::ReplaceOnlineKey(old.clone(), new.clone()),
        Case::Lost { keys } => Situation::Lost(keys.clone()),
        Case::Compromised { keys } => Situation::Compromised(keys.clone()),
        Case::RenameHolder { key, holder } => Situation::RenameHolder(key.clone(), holder.clone()),
    };
    let workspace = Workspace::open_to_read(&cx.dir)?;
    let plan = plan(&situation, &workspace.repository()?, &workspace.settings()?)?;
    if cx.ui.is_json() {
        return cx.ui.json(&plan);
    }
    cx.ui.result(&plan.title)?;
    for fact in &plan.facts {
        cx.ui.result(format_args!("  - {fact}"))?;
    }
    for (number, step) in (1..).zip(&plan.steps) {
        cx.ui.result(format_args!("{number:>2}. {}", step.text))?;
        if let Some(command) = &step.command {
            cx.ui.result(format_args!("      {command}"))?;
        }
    }
    Ok(())
}
