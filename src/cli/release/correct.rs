//! `tidegate release remove`, `edit`, `unfreeze` and `drop`: drafts are corrected until somebody signs.

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::json;
use tidegate_model::name::{ArtifactName, Text};

use super::{DetailArgs, parse_urgency};
use crate::cli::context::{Context, actor};
use crate::cli::next;
use crate::error::{Error, Result};
use crate::keys::KeyRing;
use crate::release::draft::{self, DraftEdit, Optional};
use crate::release::record::{RecordedUrgency, ReleaseSpec};
use crate::workspace::{Operation, Workspace};

/// Take an artifact out of a draft
///
/// The stored bytes stay. To give an artifact other bytes, hardware or another media type: tidegate release add --replace.
#[derive(Debug, ClapArgs)]
pub(super) struct RemoveArgs {
    /// The release
    release: ReleaseSpec,
    /// The artifact's name in the repository
    name: ArtifactName,
}

/// Change what a draft says beside its artifacts
///
/// What is not named stays as it is. The version cannot be changed: drop the draft, and start another one.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate release edit 1.2.0 --urgency security --note 'Fixes the updater'
  tidegate release edit 1.2.0 --upgrade-from '>=1.8, <2' --clear note")]
pub(super) struct EditArgs {
    /// The release
    release: ReleaseSpec,
    /// The build's id in the system that ran it
    #[arg(long, value_name = "TEXT")]
    build_id: Option<Text>,
    /// normal or security
    #[arg(long, value_name = "URGENCY", value_parser = parse_urgency)]
    urgency: Option<RecordedUrgency>,
    #[command(flatten)]
    details: DetailArgs,
    /// The sequences that it may replace although their version is not lower, in place of those before (repeatable)
    #[arg(long, value_name = "SEQUENCE")]
    supersedes: Vec<u64>,
    /// The lines of notes for people, in place of those before (repeatable)
    #[arg(long, value_name = "TEXT")]
    note: Vec<Text>,
    /// Remove what the draft says of this (repeatable)
    #[arg(long, value_name = "FIELD", value_enum)]
    clear: Vec<Field>,
}

/// What need not be said of a release, by the name of its option.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Field {
    BuildId,
    Source,
    Provenance,
    Eligibility,
    UpgradeFrom,
    Supersedes,
    Note,
}

impl Field {
    fn optional(self) -> Option<Optional> {
        Some(match self {
            // Every release has one.
            Self::BuildId => return None,
            Self::Source => Optional::Source,
            Self::Provenance => Optional::Provenance,
            Self::Eligibility => Optional::Eligibility,
            Self::UpgradeFrom => Optional::UpgradeFrom,
            Self::Supersedes => Optional::Supersedes,
            Self::Note => Optional::Notes,
        })
    }
}

/// Make a frozen manifest a draft again, as long as nobody has signed it
///
/// Removes the proposal. Tell those who have a copy of it not to sign it: their signature would count for nothing.
#[derive(Debug, ClapArgs)]
pub(super) struct UnfreezeArgs {
    /// The release
    release: ReleaseSpec,
}

/// Remove a draft that nobody has signed; its version can be used again
///
/// The stored bytes of its artifacts stay, and so does its history in the ledger. A release that somebody has signed is given up
/// with tidegate rollout withdraw instead.
#[derive(Debug, ClapArgs)]
pub(super) struct DropArgs {
    /// The release
    release: ReleaseSpec,
}

pub(super) fn remove(args: &RemoveArgs, cx: &Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let (record, removed) = draft::remove(
        &mut Operation::new(&workspace, &actor(), cx.now, &mut KeyRing::empty()),
        &args.release,
        &args.name,
    )?;
    if cx.ui.is_json() {
        return cx.ui.json(&record);
    }
    cx.ui.status(format_args!("Removed {} from {}", removed.name, record.id()));
    next::hint(cx, &workspace, &record.id());
    Ok(())
}

pub(super) fn edit(args: &EditArgs, cx: &Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let is_cleared = args.clear.iter().any(|field| matches!(field, Field::BuildId));
    let by_hand = is_cleared.then(|| draft::BY_HAND.parse().map_err(|e| Error::bug(format!("a build's id: {e}"))));
    let edit = DraftEdit {
        clear: args.clear.iter().filter_map(|field| field.optional()).collect(),
        build_id: args.build_id.clone().or(by_hand.transpose()?),
        source: args.details.source.clone(),
        provenance: args.details.provenance.clone(),
        urgency: args.urgency,
        eligibility: args.details.eligibility.clone(),
        upgrade_from: args.details.upgrade_from.clone(),
        supersedes: args.supersedes.iter().copied().collect(),
        notes: args.note.clone(),
    };
    let (record, changed) =
        draft::edit(&mut Operation::new(&workspace, &actor(), cx.now, &mut KeyRing::empty()), &args.release, &edit)?;
    if cx.ui.is_json() {
        return cx.ui.json(&record);
    }
    cx.ui.status(format_args!("Changed {} of {}", changed.join(", "), record.id()));
    next::hint(cx, &workspace, &record.id());
    Ok(())
}

pub(super) fn unfreeze(args: &UnfreezeArgs, cx: &Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let record =
        draft::unfreeze(&mut Operation::new(&workspace, &actor(), cx.now, &mut KeyRing::empty()), &args.release)?;
    if cx.ui.is_json() {
        return cx.ui.json(&record);
    }
    cx.ui.status(format_args!("{} is a draft again, and its proposal is removed", record.id()));
    next::hint(cx, &workspace, &record.id());
    Ok(())
}

pub(super) fn drop(args: &DropArgs, cx: &Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let record = draft::drop(&mut Operation::new(&workspace, &actor(), cx.now, &mut KeyRing::empty()), &args.release)?;
    if cx.ui.is_json() {
        return cx.ui.json(&json!({"dropped": record.id().to_string()}));
    }
    cx.ui.status(format_args!("Removed {}: its version can be used again", record.id()));
    Ok(())
}
