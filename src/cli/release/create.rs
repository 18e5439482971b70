//! `tidegate release create`: from files to a manifest that waits for signatures, in one step.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args as ClapArgs, FromArgMatches};
use serde_json::json;
use tidegate_model::name::{ArtifactName, HardwareId, Text};

use super::{DraftArgs, frozen_json, tell_compared, tell_frozen};
use crate::cli::context::{Context, actor};
use crate::cli::show;
use crate::error::Result;
use crate::keys::KeyRing;
use crate::release::draft::{self, NewArtifact};
use crate::release::record::ReleaseSpec;
use crate::workspace::{Operation, Workspace};

/// Make a release from files: new, add and manifest in one step
///
/// All or nothing: if a file cannot be added, or the manifest cannot be made, nothing is left behind.
///
/// --hardware after the last FILE, or before the first, is for all files. For files that fit different hardware, write each FILE (or
/// several) before its own --hardware. --name and --media-type are for the FILE before them.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate release create 1.2.0 build/rootfs.img --hardware board-a
  tidegate release create 1.2.0 a.img --hardware board-a \\
    b.img --hardware board-b --build-id ci-4711
  tidegate release create 1.2.0 a/rootfs.img --name a.img --hardware board-a \\
    b/rootfs.img --name b.img --hardware board-b --dry-run")]
pub(super) struct CreateArgs {
    /// The release
    release: ReleaseSpec,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    patches: super::PatchArgs,
    /// Show the manifest's content, and write nothing; neither chunks nor patches are made
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    draft: DraftArgs,
}

/// A file, and what is said of it.
#[derive(Debug, Default)]
struct File {
    path: PathBuf,
    hardware: Vec<HardwareId>,
    name: Option<ArtifactName>,
    media_type: Option<Text>,
}

/// The files, each with the options that follow it.
#[derive(Debug)]
struct Files(Vec<File>);

const FILE: &str = "file";
const HARDWARE: &str = "hardware";
const NAME: &str = "name";
const MEDIA_TYPE: &str = "media_type";

impl ClapArgs for Files {
    fn augment_args(command: clap::Command) -> clap::Command {
        let repeatable = |id: &'static str, long: &'static str, value: &'static str| {
            Arg::new(id).long(long).value_name(value).action(ArgAction::Append)
        };
        command
            .arg(
                Arg::new(FILE)
                    .value_name("FILE")
                    .help("The files of the release")
                    .value_parser(clap::value_parser!(PathBuf))
                    .action(ArgAction::Append)
                    .num_args(1..)
                    .required(true),
            )
            .arg(
                repeatable(HARDWARE, "hardware", "ID")
                    .help("The hardware that the files before it are for (repeatable)")
                    .value_parser(|text: &str| text.parse::<HardwareId>())
                    .required(true),
            )
            .arg(
                repeatable(NAME, "name", "NAME")
                    .help("The name in the repository of the file before it [default: the file's name]")
                    .value_parser(|text: &str| text.parse::<ArtifactName>()),
            )
            .arg(
                repeatable(MEDIA_TYPE, "media-type", "TYPE")
                    .help("The media type of the file before it [default: guessed from the name]")
                    .value_parser(|text: &str| text.parse::<Text>()),
            )
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Files {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let files = values::<PathBuf>(matches, FILE);
        let hardware = values::<HardwareId>(matches, HARDWARE);
        let mut found: Vec<File> =
            files.iter().map(|(_, path)| File { path: path.clone(), ..File::default() }).collect();
        let places: Vec<usize> = files.iter().map(|(place, _)| *place).collect();
        for (place, name) in values::<ArtifactName>(matches, NAME) {
            let file = owner(&places, &mut found, place, "--name")?;
            if file.name.replace(name).is_some() {
                return Err(usage("give each FILE at most one --name, after it"));
            }
        }
        for (place, media_type) in values::<Text>(matches, MEDIA_TYPE) {
            let file = owner(&places, &mut found, place, "--media-type")?;
            if file.media_type.replace(media_type).is_some() {
                return Err(usage("give each FILE at most one --media-type, after it"));
            }
        }
        share_out(&places, &hardware, &mut found)?;
        Ok(Self(found))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The values of an option, each with its place on the command line.
fn values<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, id: &str) -> Vec<(usize, T)> {
    let places = matches.indices_of(id).into_iter().flatten();
    places.zip(matches.get_many::<T>(id).into_iter().flatten().cloned()).collect()
}

/// The file that an option at this place is for: the one before it.
fn owner<'a>(places: &[usize], files: &'a mut [File], place: usize, option: &str) -> Result<&'a mut File, clap::Error> {
    let before = places.iter().filter(|file| **file < place).count();
    // With one file there is no question.
    let index = if files.len() == 1 { 0 } else { before.wrapping_sub(1) };
    files.get_mut(index).ok_or_else(|| usage(&format!("write {option} after the FILE that it is for")))
}

/// Gives each file its hardware.
fn share_out(places: &[usize], hardware: &[(usize, HardwareId)], files: &mut [File]) -> Result<(), clap::Error> {
    let (first, last) = (places.first().copied().unwrap_or_default(), places.last().copied().unwrap_or_default());
    let for_all = files.len() == 1
        || hardware.iter().all(|(place, _)| *place < first)
        || hardware.iter().all(|(place, _)| *place > last);
    for (index, file) in files.iter_mut().enumerate() {
        let own = places.get(index).copied().unwrap_or_default();
        // From the next option on up to the next file.
        let from = hardware.iter().map(|(place, _)| *place).find(|place| *place > own);
        let until = places.iter().copied().find(|place| from.is_some_and(|from| *place > from));
        let is_its = |place: usize| {
            for_all || (from.is_some_and(|from| place >= from) && until.is_none_or(|until| place < until))
        };
        file.hardware = hardware.iter().filter(|(place, _)| is_its(*place)).map(|(_, id)| id.clone()).collect();
        if file.hardware.is_empty() {
            return Err(usage(&format!(
                "no --hardware follows {}: write each FILE before its own --hardware",
                file.path.display()
            )));
        }
    }
    match hardware.first() {
        Some((place, id)) if !for_all && *place < first => {
            Err(usage(&format!("no FILE stands before --hardware {id}: write each FILE before its own --hardware")))
        }
        _ => Ok(()),
    }
}

fn usage(why: &str) -> clap::Error {
    clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{why}\n"))
}

pub(super) fn run(args: &CreateArgs, cx: &Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let files = args.files.0.iter();
    let new: Vec<_> = files
        .map(|file| NewArtifact {
            file: &file.path,
            name: file.name.clone(),
            hardware: file.hardware.iter().cloned().collect(),
            media_type: file.media_type.clone(),
            replace: false,
        })
        .collect();
    let mut bar = None;
    let frozen = draft::create(
        &mut Operation::new(&workspace, &actor(), cx.now, &mut KeyRing::empty()),
        args.draft.draft(&args.release),
        &new,
        &args.patches.bases(),
        args.dry_run,
        |progress| show::step(&cx.ui, &mut bar, progress),
    )?;
    drop(bar);
    if cx.ui.is_json() {
        let mut told = frozen_json(&frozen);
        told["artifacts"] = json!(frozen.record.artifacts);
        told["dry_run"] = json!(args.dry_run);
        return cx.ui.json(&told);
    }
    tell_compared(cx, &frozen);
    if args.dry_run {
        for difference in &frozen.differences {
            cx.ui.result(difference)?;
        }
        cx.ui.status("Nothing was written; run it without --dry-run to create the release");
        return Ok(());
    }
    tell_frozen(cx, &workspace, &frozen)
}
