//! The sources of a device's facts: settings, files, programs, and the running system.
//!
//! Facts are collected before every check, so that the next decision uses a changed fact. A failed source adds nothing
//! and is reported. A missing fact makes the tests on it false.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::command::Command;
use crate::disk::read_regular;
use crate::watch::Cancel;
use tidegate_model::facts::{FactValue, Facts, TypedFact};
use tidegate_model::name::FactName;

/// The maximum length of a file of facts, in bytes.
const LENGTH: u64 = 256 * 1024;

/// A source of facts.
#[derive(Debug, Clone)]
pub enum FactSource {
    /// Fixed facts.
    Given(Facts),
    /// A file, in one of the forms below.
    File(PathBuf),
    /// The output of a program, in one of the forms below.
    ///
    /// Either a JSON object, such as `{"battery-percent": 80}`; or lines `battery-percent=80`, read like the option `--fact`,
    /// where empty lines and lines that start with `#` are ignored.
    Command(Command),
    /// Facts about the running system; see [`system`]. The path is its root folder.
    System(PathBuf),
}

impl FactSource {
    /// The same, ended by this token if it is a program.
    pub(crate) fn until(self, cancel: &Cancel) -> Self {
        match self {
            Self::Command(command) => Self::Command(command.until(cancel)),
            other => other,
        }
    }
}

/// Facts, and the problems of their sources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Gathered {
    /// The facts.
    pub facts: Facts,
    /// The problems, one per failed source.
    pub problems: Vec<String>,
}

/// Collects facts from all sources. A later source overrides an earlier one.
pub fn gather(sources: &[FactSource]) -> Gathered {
    let mut gathered = Gathered::default();
    for source in sources {
        match source.gather() {
            Ok(facts) => {
                for (name, value) in facts.iter() {
                    gathered.facts.insert(name.clone(), value.clone());
                }
            }
            Err(problem) => gathered.problems.push(problem),
        }
    }
    gathered
}

impl FactSource {
    fn gather(&self) -> Result<Facts, String> {
        match self {
            Self::Given(facts) => Ok(facts.clone()),
            Self::File(path) => {
                let text = read(path).map_err(|e| format!("{}: {e}", path.display()))?;
                parse(&text).map_err(|e| format!("{}: {e}", path.display()))
            }
            Self::Command(command) => {
                let said = command.run().and_then(crate::command::Ran::success).map_err(|e| e.to_string())?;
                parse(&said).map_err(|e| format!("{} printed {e}", command.program()))
            }
            Self::System(root) => Ok(system(root)),
        }
    }
}

/// Reads a JSON object, or lines `name=value`.
fn parse(text: &str) -> Result<Facts, String> {
    if text.trim_start().starts_with('{') {
        return Facts::parse(text.as_bytes()).map_err(|e| e.to_string());
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let facts = lines.map(|line| line.parse::<TypedFact>().map(|fact| (fact.name, fact.value)));
    facts.collect::<Result<Facts, _>>().map_err(|e| e.to_string())
}

/// Facts about the system with the root folder `root`, as far as they are available:
///
/// | fact | from |
/// |---|---|
/// | `os-id` `os-version` `os-variant` `os-build` `os-image` `os-image-version` | `ID` `VERSION_ID` `VARIANT_ID` `BUILD_ID` `IMAGE_ID` `IMAGE_VERSION` of `/etc/os-release` |
/// | `dt-model` | the device tree |
/// | `dt-compatible` `dt-compatible-2` and so on | the device tree's `compatible`, the most specific first |
/// | `kernel` | the running kernel's release |
/// | `arch` | the target of this program, such as `aarch64` |
/// | `ram-mb` | the memory that the kernel has, in MiB |
pub fn system(root: &Path) -> Facts {
    let text = |path: &str| read(&root.join(path)).ok();
    let mut found: Vec<(String, FactValue)> = vec![("arch".into(), std::env::consts::ARCH.into())];
    let mut add = |name: &str, value: Option<FactValue>| found.extend(value.map(|value| (name.to_owned(), value)));

    let release = text("etc/os-release").or_else(|| text("usr/lib/os-release")).unwrap_or_default();
    for (name, key) in [
        ("os-id", "ID"),
        ("os-version", "VERSION_ID"),
        ("os-variant", "VARIANT_ID"),
        ("os-build", "BUILD_ID"),
        ("os-image", "IMAGE_ID"),
        ("os-image-version", "IMAGE_VERSION"),
    ] {
        add(name, os_release(&release, key).map(FactValue::Text));
    }
    let as_text =
        |text: &str| Some(text.trim_matches(['\0', '\n'])).filter(|text| !text.is_empty()).map(FactValue::from);
    add("dt-model", text("proc/device-tree/model").as_deref().and_then(as_text));
    let compatible = text("proc/device-tree/compatible").unwrap_or_default();
    for (index, name) in compatible.split('\0').filter(|name| !name.is_empty()).take(8).enumerate() {
        let fact = if index == 0 { "dt-compatible".into() } else { format!("dt-compatible-{}", index + 1) };
        add(&fact, as_text(name));
    }
    add("kernel", text("proc/sys/kernel/osrelease").as_deref().and_then(as_text));
    let memory = text("proc/meminfo").and_then(|text| {
        let kib =
            text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix(" kB")?.parse::<i64>();
        Some(FactValue::Integer(kib.ok()? / 1024))
    });
    add("ram-mb", memory);
    found.into_iter().filter_map(|(name, value)| Some((name.parse::<FactName>().ok()?, value))).collect()
}

/// The value of a variable in `os-release`: shell syntax with quotes and backslashes.
fn os_release(text: &str, key: &str) -> Option<String> {
    let value = text.lines().filter_map(|line| line.trim().split_once('=')).find(|(name, _)| *name == key)?.1;
    let inner =
        ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(value);
    let mut plain = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    Some(plain).filter(|plain| !plain.is_empty() && plain.len() <= tidegate_model::facts::MAX_TEXT)
}

fn read(path: &Path) -> io::Result<String> {
    let bytes = read_regular(path, LENGTH)?;
    if bytes.len() as u64 > LENGTH {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {LENGTH} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn fact(facts: &Facts, name: &str) -> Option<FactValue> {
        facts.value(&name.parse().unwrap()).cloned()
    }

    fn shell(script: &str) -> FactSource {
        FactSource::Command(Command::new(["sh", "-c", script].map(String::from), Duration::from_millis(300)))
    }

    #[test]
    fn later_sources_override_earlier_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("facts.json");
        fs::write(&path, r#"{"group": "lab", "ram-mb": 512}"#).unwrap();
        let sources = [
            FactSource::Given(Facts::parse(br#"{"group": "office", "site": "north"}"#).unwrap()),
            FactSource::File(path.clone()),
            shell("echo '# the battery'; echo; echo battery-percent=80; echo in-use=false"),
            shell("exit 1"),
            shell("sleep 5"),
            shell("echo no fact"),
            FactSource::File(folder.path().join("absent")),
        ];
        let Gathered { facts, problems } = gather(&sources);
        assert_eq!(fact(&facts, "group"), Some("lab".into()));
        assert_eq!(fact(&facts, "site"), Some("north".into()));
        assert_eq!(fact(&facts, "battery-percent"), Some(80.into()));
        assert_eq!(fact(&facts, "in-use"), Some(false.into()));
        assert_eq!(problems.len(), 4);
        for (problem, expected) in problems.iter().zip(["exit code 1", "took longer", "is not a fact", "absent"]) {
            assert!(problem.contains(expected), "{problem}");
        }
        // The next collection reads a changed file.
        fs::write(&path, "group=home").unwrap();
        assert_eq!(fact(&gather(&sources[..2]).facts, "group"), Some("home".into()));
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_in_the_place_of_a_file_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("facts");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let problems = gather(&[FactSource::File(path)]).problems;
        assert!(problems[0].contains("not a regular file"), "{problems:?}");
    }

    #[test]
    fn the_system_says_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        write("etc/os-release", "NAME=\"An OS\"\nID=anos\nVERSION_ID='4.2'\nVARIANT_ID=\"a\\\"b\"\nBUILD_ID=\n");
        write("proc/device-tree/model", "Board A\0");
        write("proc/device-tree/compatible", "maker,board-a\0maker,soc\0");
        write("proc/sys/kernel/osrelease", "6.1.0-18-arm64\n");
        write("proc/meminfo", "MemTotal:        2048000 kB\nMemFree: 1 kB\n");
        let facts = system(folder.path());
        for (name, expected) in [
            ("os-id", Some("anos".into())),
            ("os-version", Some("4.2".into())),
            ("os-variant", Some("a\"b".into())),
            ("os-build", None),
            ("dt-model", Some("Board A".into())),
            ("dt-compatible", Some("maker,board-a".into())),
            ("dt-compatible-2", Some("maker,soc".into())),
            ("dt-compatible-3", None),
            ("kernel", Some("6.1.0-18-arm64".into())),
            ("ram-mb", Some(2000.into())),
            ("arch", Some(std::env::consts::ARCH.into())),
        ] {
            assert_eq!(fact(&facts, name), expected, "{name}");
        }
        assert_eq!(system(&folder.path().join("nowhere")).iter().count(), 1);
    }
}
