//! Makes and applies deliveries, from files to files: what `benches/delivery` measures beside other tools.
//!
//!     make OLD NEW DIR     chunks of NEW and a patch from OLD, in DIR
//!     old OLD DIR          chunks of OLD, as they were made with its release
//!     missing OLD NEW DIR  how many bytes of the pack OLD does not have
//!     apply OLD DIR OUT    the patch, piece by piece and in little memory, as devices do; how many ranges it took

#![allow(missing_docs)]

use std::env::args_os;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tidegate::delivery::{cut, make_patch, missing};
use tidegate::error::{Error, Result};
use tidegate_model::delivery::{Directory, Method, apply};

fn main() -> ExitCode {
    // cargo adds `--bench`.
    let arguments: Vec<PathBuf> = args_os().skip(1).filter(|argument| argument != "--bench").map(Into::into).collect();
    let done = match arguments.iter().map(PathBuf::as_path).collect::<Vec<_>>().as_slice() {
        [command, old, new, dir] if *command == Path::new("make") => make(old, new, dir),
        [command, old, dir] if *command == Path::new("old") => cut_old(old, dir),
        [command, old, new, dir] if *command == Path::new("missing") => missing_bytes(old, new, dir),
        [command, old, dir, out] if *command == Path::new("apply") => apply_patch(old, dir, out),
        // `cargo bench` alone: the script runs it.
        _ => Ok("run benches/delivery OLD NEW".into()),
    };
    match done {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(old: &Path, new: &Path, dir: &Path) -> Result<String> {
    let chunks = cut(new, &dir.join("new.index"), &dir.join("new.pack"), &|_| ())?;
    let patch = make_patch(old, new, &dir.join("patch"), &|_| ())?;
    fs::write(dir.join("directory"), patch.directory.length.to_string())
        .map_err(|error| Error::io("write", dir, error))?;
    Ok(format!(
        r#"{{"patch": {}, "directory": {}, "index": {}, "pack": {}, "length": {}}}"#,
        patch.length,
        patch.directory.length,
        chunks.index.length,
        chunks.pack.length,
        length(new)?
    ))
}

fn cut_old(old: &Path, dir: &Path) -> Result<String> {
    cut(old, &dir.join("old.index"), &dir.join("old.pack"), &|_| ())?;
    Ok("{}".into())
}

fn missing_bytes(old: &Path, new: &Path, dir: &Path) -> Result<String> {
    let paths = |name: &str| (dir.join(format!("{name}.index")), dir.join(format!("{name}.pack")));
    let ((old_index, old_pack), (new_index, new_pack)) = (paths("old"), paths("new"));
    let bytes =
        missing((&old_index, length(old)?, length(&old_pack)?), (&new_index, length(new)?, length(&new_pack)?))?;
    Ok(format!(r#"{{"missing": {bytes}}}"#))
}

/// One piece in memory at a time.
fn apply_patch(old: &Path, dir: &Path, out: &Path) -> Result<String> {
    let patch = dir.join("patch");
    let failed = |error| Error::io("apply", &patch, error);
    let wrong = |error| Error::input(format!("{}: {error}", patch.display()));
    let directory = fs::read_to_string(dir.join("directory")).map_err(failed)?;
    let directory: usize = directory.parse().map_err(|_| Error::bug("the length of the directory is no number"))?;
    let (mut old, mut file) = (File::open(old).map_err(failed)?, File::open(&patch).map_err(failed)?);
    let mut out = File::create(out).map_err(failed)?;
    let mut bytes = vec![0; directory];
    file.read_exact(&mut bytes).map_err(failed)?;
    // The length of the new artifact is signed; here, the directory has it.
    let new_length = bytes.get(4..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    let directory = Directory::parse(&bytes, new_length, length(&patch)?).map_err(wrong)?;
    drop(bytes);
    let (mut source, mut data, mut made, mut ranges, mut end) = (Vec::new(), Vec::new(), Vec::new(), 1, 0);
    for piece in directory.pieces() {
        source.clear();
        for part in &piece.sources {
            read(&mut old, part.offset, part.length as usize, &mut source).map_err(failed)?;
        }
        data.clear();
        read(&mut file, piece.data_offset, piece.data_length, &mut data).map_err(failed)?;
        if !matches!(piece.method, Method::Zeros | Method::Copy) && piece.data_offset != end {
            ranges += 1;
        }
        end = piece.data_offset + piece.data_length as u64;
        made.clear();
        apply(&piece, &source, &data, &mut made).map_err(wrong)?;
        out.write_all(&made).map_err(failed)?;
    }
    Ok(format!(r#"{{"requests": {ranges}}}"#))
}

fn read(file: &mut File, offset: u64, length: usize, into: &mut Vec<u8>) -> std::io::Result<()> {
    let start = into.len();
    into.resize(start + length, 0);
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(into.get_mut(start..).unwrap_or_default())
}

fn length(path: &Path) -> Result<u64> {
    fs::metadata(path).map(|file| file.len()).map_err(|error| Error::io("read", path, error))
}
