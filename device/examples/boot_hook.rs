//! A boot hook: the program between `tidegate-device` and a boot loader. This one keeps the choice in a folder of text files, which is
//! what a board needs that has no boot loader to ask, such as a container or a test: `boot_hook FOLDER running|try|keep|invalid [a|b]`.
//!
//! | call | effect |
//! |---|---|
//! | `running` | prints the slot that runs, `a` or `b` |
//! | `try SLOT` | the next restart starts SLOT, once |
//! | `keep SLOT` | every restart starts SLOT from now on |
//! | `invalid SLOT` | no restart starts SLOT until `try` or `keep` names it again: it is being written |
//!
//! `installer.boot` in the settings of the device names it: `"boot": ["boot_hook", "/var/lib/boot"]`.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [folder, "running"] => println!("{}", fs::read_to_string(Path::new(folder).join("running"))?.trim()),
        [folder, "try", slot @ ("a" | "b")] => {
            validate(Path::new(folder), slot)?;
            write(Path::new(folder), "next", slot)?;
        }
        [folder, "keep", slot @ ("a" | "b")] => {
            validate(Path::new(folder), slot)?;
            write(Path::new(folder), "kept", slot)?;
        }
        [folder, "invalid", slot @ ("a" | "b")] => write(Path::new(folder), "invalid", slot)?,
        _ => return Err("usage: boot_hook FOLDER running|try|keep|invalid [a|b]".into()),
    }
    Ok(())
}

/// Forgets that a slot must not start, if it is this one.
fn validate(folder: &Path, slot: &str) -> Result<(), Box<dyn Error>> {
    let path = folder.join("invalid");
    if fs::read_to_string(&path).is_ok_and(|invalid| invalid.trim() == slot) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Writes a file completely or not at all, and durably: what a boot hook must guarantee.
fn write(folder: &Path, name: &str, slot: &str) -> Result<(), Box<dyn Error>> {
    let temporary = folder.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    writeln!(file, "{slot}")?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(name))?;
    File::open(folder)?.sync_all()?;
    Ok(())
}
