//! The folder of a demonstration: recognised by a mark, so that nothing else is ever deleted.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, Rule};
use crate::fs::write_atomic;

/// The mark, and all else that a demonstration puts into its folder.
const MARK: &str = ".tidegate-demo";
const PARTS: [&str; 4] = ["fleet", "site", "devices", "build"];

/// A fresh folder.
#[derive(Debug)]
pub(super) struct Folder {
    /// As it was given.
    pub(super) path: PathBuf,
}

impl Folder {
    /// Creates the folder, and removes the files of an earlier demonstration.
    ///
    /// # Errors
    ///
    /// Fails if the folder contains anything else.
    pub(super) fn create(path: &Path, image: &Path) -> Result<Self> {
        let refuse =
            |why: String| Error::refused(Rule::DemoFolder, why).remedy("give another folder: tidegate demo FOLDER");
        if let Ok(metadata) = fs::symlink_metadata(path) {
            if !metadata.is_dir() {
                return Err(refuse(format!("{} is not a folder", path.display())));
            }
            let entries = fs::read_dir(path).map_err(|e| Error::io("read", path, e))?;
            let mut names = Vec::new();
            for entry in entries {
                names.push(entry.map_err(|e| Error::io("read", path, e))?.file_name().to_string_lossy().into_owned());
            }
            if !names.is_empty() && !names.iter().any(|name| name == MARK) {
                return Err(refuse(format!("{} is not empty, and was not made by a demo", path.display())));
            }
            if let Some(other) = names.iter().find(|name| *name != MARK && !PARTS.contains(&name.as_str())) {
                return Err(refuse(format!("{} holds {other}, which no demo made", path.display())));
            }
            if let (Ok(folder), Ok(image)) = (path.canonicalize(), image.canonicalize())
                && image.starts_with(&folder)
            {
                return Err(refuse(format!("{} lies in the folder that would be replaced", image.display())));
            }
            for part in PARTS.iter().map(|part| path.join(part)).filter(|part| fs::symlink_metadata(part).is_ok()) {
                fs::remove_dir_all(&part).map_err(|e| Error::io("remove", &part, e))?;
            }
        }
        fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))?;
        // Atomically: a link in its place is replaced and not followed.
        write_atomic(&path.join(MARK), b"Made by `tidegate demo`, which may replace this folder.\n")?;
        Ok(Self { path: path.to_owned() })
    }

    /// A path below it.
    pub(super) fn join(&self, part: &str) -> PathBuf {
        self.path.join(part)
    }

    /// A path below it, as an argument of a command.
    pub(super) fn argument(&self, part: &str) -> String {
        self.join(part).display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_demo_made_is_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("demo");
        let image = Path::new("/bin/sh");
        Folder::create(&path, image).unwrap();
        fs::create_dir(path.join("fleet")).unwrap();
        Folder::create(&path, image).unwrap();
        assert!(!path.join("fleet").exists());

        fs::write(path.join("notes.txt"), "mine").unwrap();
        assert!(Folder::create(&path, image).unwrap_err().to_string().contains("notes.txt"));
        assert!(path.join("notes.txt").exists());

        let other = parent.path().join("other");
        fs::create_dir_all(other.join("fleet")).unwrap();
        assert!(Folder::create(&other, image).unwrap_err().to_string().contains("was not made by a demo"));
        assert!(other.join("fleet").exists());
    }

    #[cfg(unix)]
    #[test]
    fn links_in_the_folder_are_replaced_and_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let (path, outside) = (parent.path().join("demo"), parent.path().join("outside"));
        fs::create_dir(&path).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "precious").unwrap();
        for (name, target) in [(MARK, "precious"), ("fleet", "."), ("site", "absent")] {
            std::os::unix::fs::symlink(outside.join(target), path.join(name)).unwrap();
        }
        Folder::create(&path, Path::new("/bin/sh")).unwrap();
        assert_eq!(fs::read(outside.join("precious")).unwrap(), b"precious");
        assert!(fs::symlink_metadata(path.join(MARK)).unwrap().is_file());
        assert!(["fleet", "site"].iter().all(|part| fs::symlink_metadata(path.join(part)).is_err()));
    }

    #[test]
    fn an_image_inside_is_not_deleted_before_it_is_read() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("demo");
        Folder::create(&path, Path::new("/bin/sh")).unwrap();
        let image = path.join("site/image");
        fs::create_dir(path.join("site")).unwrap();
        fs::write(&image, "x").unwrap();
        assert!(Folder::create(&path, &image).is_err());
        assert!(image.exists());
    }
}
