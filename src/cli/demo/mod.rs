//! `tidegate demo`: a real file through every stage of a release's life, to three devices.
//!
//! The steps are the program's own commands, run in this process exactly as they are shown, so that the demonstration cannot differ from
//! what it teaches. The story takes six days, which `--now` makes pass at once.

mod devices;
mod folder;
mod story;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args as ClapArgs;
use serde_json::json;
use tidegate_model::text::one_line;

use super::context::{Context, Execute};
use crate::error::Result;
use folder::Folder;
use story::Story;

/// Take a file through all stages of a release, with three devices
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The folder to create; one that an earlier demo created is replaced
    #[arg(value_name = "FOLDER", default_value = "demo")]
    folder: PathBuf,
    /// The file to release [default: this program]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
}

pub(super) fn run(args: &Args, cx: &mut Context, execute: Execute) -> Result<()> {
    let begun = Instant::now();
    let image = match &args.image {
        Some(image) => image.clone(),
        None => std::env::current_exe().map_err(|e| {
            crate::Error::usage("cannot find the file of this program").with_source(e).remedy("give --image FILE")
        })?,
    };
    let folder = Folder::create(&args.folder, &image)?;
    if let (Ok(program), false) = (std::env::current_exe(), cx.ui.is_json()) {
        cx.ui.painted(cx.ui.style().dim(&format!("Below, tidegate means {}", program.display())));
    }
    let told = Story::new(&folder, &image, cx, execute)?.tell()?;
    let seconds = begun.elapsed().as_secs_f32();
    if cx.ui.is_json() {
        return cx.ui.json(&json!({"folder": args.folder, "devices": told, "seconds": seconds}));
    }
    cx.ui.status("");
    cx.ui.painted(
        cx.ui.style().bold(&format!("Done in {seconds:.1} s. The result is a real workspace; continue there:")),
    );
    let shown = args.folder.display();
    for (command, what) in [
        (format!("tidegate -C {shown}/fleet status"), "what is live, who gets what"),
        (format!("tidegate -C {shown}/fleet log --verify"), "the ledger, verified"),
        (
            format!("tidegate verify {shown}/site --root {shown}/fleet/metadata/1.root.json"),
            "two implementations agree",
        ),
        (format!("tidegate serve {shown}/site"), "over HTTP"),
        (format!("tidegate-device --config {shown}/devices/late/device.json check"), "as a device sees it"),
        (format!("tidegate -C {shown}/fleet release create 1.2.0 FILE --hardware board-a"), "the next release"),
    ] {
        cx.ui.painted(format_args!("  {:<68} {}", one_line(&command), cx.ui.style().dim(what)));
    }
    cx.ui.painted(cx.ui.style().dim("(the device's program: cargo build --release -p tidegate-device)"));
    Ok(())
}
