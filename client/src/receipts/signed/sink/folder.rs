//! Receipts as files in a folder, for example on a network share or a removable medium.

use std::io;
use std::path::PathBuf;

use super::{Answer, Destination, NotTaken, Sink, one_by_one};
use crate::disk::{Disk, read_regular};
use tidegate_model::receipt::SignedReceipt;
use tidegate_tuf::json;

/// Writes each receipt to its own file, with the same name as in a gate's store: `receipts/CHANNEL/PRODUCT/SEQUENCE/HASH.json` below the folder.
///
/// An existing file is never changed.
#[derive(Debug, Clone)]
pub struct FolderSink {
    folder: PathBuf,
    disk: Disk,
}

impl FolderSink {
    /// The folder; it is created with the first receipt.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), disk: Disk::new() }
    }

    /// The same on a disk that can inject faults.
    #[must_use]
    pub fn on(self, disk: Disk) -> Self {
        Self { disk, ..self }
    }

    fn keep(&self, signed: &SignedReceipt) -> Result<(), NotTaken> {
        let (name, bytes) = object(signed)?;
        let path = name.split('/').fold(self.folder.clone(), |path, segment| path.join(segment));
        let later = |e: io::Error| NotTaken::Now { why: format!("{}: cannot write: {e}", path.display()), after: None };
        match read_regular(&path, bytes.len() as u64) {
            Ok(there) if there == bytes => return Ok(()),
            Ok(_) => return Err(NotTaken::Ever(format!("{}: a different file has this name", path.display()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(later(e)),
        }
        if let Some(folder) = path.parent() {
            self.disk.create_folder(folder).map_err(later)?;
        }
        // Another process may have written it first, with the same bytes, because the name depends on them.
        self.disk.replace(&path, &bytes).map_err(later)
    }
}

impl Sink for FolderSink {
    fn at_once(&self) -> usize {
        64
    }

    fn send(&mut self, receipts: &[SignedReceipt], _: &Destination) -> Answer {
        one_by_one(receipts, |signed| self.keep(signed))
    }
}

/// The name of a receipt and its bytes, canonical JSON.
pub(super) fn object(signed: &SignedReceipt) -> Result<(String, Vec<u8>), NotTaken> {
    let name = signed.object_name().map_err(|e| NotTaken::Ever(e.to_string()))?;
    let bytes = json::canonical(&signed.to_value()).map_err(|e| NotTaken::Ever(e.to_string()))?;
    Ok((name, bytes))
}

#[cfg(test)]
mod tests {
    use super::super::super::ledger::tests::{key, offered};
    use super::*;
    use crate::disk::Faults;

    #[test]
    fn each_receipt_is_a_file_that_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = FolderSink::new(folder.path().join("usb"));
        let ledger = offered(3);
        let receipts = ledger.waiting();
        let to = Destination::default();
        assert_eq!(sink.send(receipts, &to), Answer::Kept(3));
        let path = |signed: &SignedReceipt| folder.path().join("usb").join(signed.object_name().unwrap());
        for signed in receipts {
            let read = SignedReceipt::parse(&std::fs::read(path(signed)).unwrap()).unwrap();
            assert!(read == *signed && read.verify(key().public()));
        }
        assert_eq!(sink.send(receipts, &to), Answer::Kept(3), "they are known");
        std::fs::write(path(&receipts[1]), "something else").unwrap();
        let Answer::Refused { kept: 1, of: 1, why } = sink.send(receipts, &to) else { panic!() };
        assert!(why.contains("a different file"), "{why}");
        assert_eq!(std::fs::read(path(&receipts[1])).unwrap(), b"something else");
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_in_the_place_of_a_receipt_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = offered(1);
        let path = folder.path().join(ledger.waiting()[0].object_name().unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let answer = FolderSink::new(folder.path()).send(ledger.waiting(), &Destination::default());
        assert!(matches!(answer, Answer::Later { .. }), "{answer:?}");
    }

    #[test]
    fn what_cannot_be_written_waits() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = offered(2);
        let counted = Faults::none();
        let send = |name: &str, faults| {
            let mut sink = FolderSink::new(folder.path().join(name)).on(Disk::with_faults(faults));
            sink.send(ledger.waiting(), &Destination::default())
        };
        assert_eq!(send("whole", counted.clone()), Answer::Kept(2));
        for n in 0..counted.steps() {
            let name = n.to_string();
            let answer = send(&name, Faults::stop_at(n));
            assert!(matches!(answer, Answer::Later { .. }), "{n}: {answer:?}");
            assert_eq!(send(&name, Faults::none()), Answer::Kept(2), "{n}");
        }
    }
}
