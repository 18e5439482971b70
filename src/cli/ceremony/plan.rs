//! `tidegate ceremony plan`: the steps out of a situation.

use clap::{Args as ClapArgs, Subcommand};

use crate::cli::context::Context;
use crate::error::Result;
use crate::proposal::{Situation, plan};
use crate::workspace::Workspace;

/// Say what to do, step by step, from what is in force here
///
/// Says plainly when something cannot be recovered.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(subcommand)]
    situation: Case,
}

#[derive(Debug, Subcommand)]
enum Case {
    /// One more holder of root
    AddRootKey {
        /// The new key's name
        name: String,
    },
    /// One root key fewer
    RemoveRootKey {
        /// The key's name
        name: String,
    },
    /// Another root key in the place of one
    ReplaceRootKey {
        /// The key that goes
        old: String,
        /// The key that comes
        new: String,
    },
    /// Raise or lower a threshold
    Threshold {
        /// The role
        role: String,
        /// The new threshold
        threshold: u64,
    },
    /// Another key of snapshot or timestamp, with an overlap
    ReplaceOnlineKey {
        /// The key that goes
        old: String,
        /// The key that comes
        new: String,
    },
    /// Keys that nobody has any more
    Lost {
        /// Their names
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Keys that somebody else may have
    Compromised {
        /// Their names
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Another name for a key's holder
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
    let workspace = Workspace::open(&cx.dir)?;
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
