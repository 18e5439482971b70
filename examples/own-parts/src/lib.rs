//! Parts of one's own for [`tidegate_client`], and the suites that check them: `cargo test`.
//!
//! - [`UsbFetch`] fetches from a stick, by URLs such as `usb:fleet/metadata/1.root.json`.
//! - [`Records`] stores everything in one file, as a device with little more than a settings partition does.
//! - [`Pages`] installs into one of two files and switches by a third, as a boot loader with a flag does.
//! - [`RealTimeClock`] reads a counter of seconds.
//! - [`policy`], [`facts`] and [`tomorrow`] are made in code. The package depends on `tidegate-client` alone: no `chrono`, no `serde_json`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use tidegate_client::clock::{Clock, Monotonic};
use tidegate_client::disk::Disk;
use tidegate_client::fetch::{Body, Fetch, FetchError, Reply, Request};
use tidegate_client::install::{Artifact, InstallError, Installer, Place};
use tidegate_client::model::condition::Condition;
use tidegate_client::model::facts::Facts;
use tidegate_client::model::span::Span;
use tidegate_client::model::time::{self, UtcTime};
use tidegate_client::model::version::Version;
use tidegate_client::policy::{Metered, Policy};
use tidegate_client::store::{Store, StoreError, check_name};
use tidegate_client::tuf::hash::Checker;
use tidegate_client::watch::{Phase, Progress, Watch};

/// Fetches `usb:` URLs from the folder where a stick is mounted.
#[derive(Debug)]
pub struct UsbFetch {
    mounted_at: PathBuf,
}

impl UsbFetch {
    /// A fetcher of what is below this folder.
    pub fn new(mounted_at: impl Into<PathBuf>) -> Self {
        Self { mounted_at: mounted_at.into() }
    }
}

impl Fetch for UsbFetch {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        let url = || request.url.to_owned();
        let bad = |reason| FetchError::BadUrl { url: url(), reason };
        let path = request.url.strip_prefix("usb:").ok_or_else(|| bad("it must start with usb:"))?;
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(bad("it must name a file below the stick"));
        }
        // Of a stick that is pulled out or broken, another attempt may succeed: the error must be temporary.
        let failed = |e: io::Error| FetchError::Unreachable { url: url(), reason: e.to_string() };
        let mut file = match fs::File::open(self.mounted_at.join(path)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Reply::NotFound(String::new())),
            file => file.map_err(failed)?,
        };
        let length = file.metadata().map_err(failed)?.len();
        if length > request.limit {
            return Err(FetchError::TooLong { url: url(), limit: request.limit });
        }
        if request.end.is_some_and(|end| end > length) {
            return Err(FetchError::NoRanges { url: url(), reason: format!("the file has {length} bytes") });
        }
        let offset = request.offset.min(length);
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let rest = file.take(request.end.unwrap_or(length) - offset);
        Ok(Reply::Found(Body::new(Box::new(rest), request, offset)))
    }
}

/// Stores entries in one file: for each its name, its length and its bytes.
#[derive(Debug)]
pub struct Records {
    file: PathBuf,
    disk: Disk,
}

impl Records {
    /// A store in this file, which need not exist.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), disk: Disk::new() }
    }

    fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> StoreError {
        let path = self.file.clone();
        move |source| StoreError::Io { action, path: path.clone(), source }
    }

    fn read(&self) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        let bytes = match fs::read(&self.file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            bytes => bytes.map_err(self.failed("read"))?,
        };
        // What is damaged counts as missing: the client repairs it.
        Ok(entries(&bytes).unwrap_or_default())
    }

    fn write(&self, entries: &BTreeMap<String, Vec<u8>>) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        for (name, content) in entries {
            bytes.extend_from_slice(format!("{name} {}\n", content.len()).as_bytes());
            bytes.extend_from_slice(content);
        }
        // Whole or not at all, whatever happens.
        self.disk.replace(&self.file, &bytes).map_err(self.failed("write"))
    }
}

fn entries(mut bytes: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut entries = BTreeMap::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|&byte| byte == b'\n')?;
        let (name, length) = std::str::from_utf8(bytes.get(..end)?).ok()?.split_once(' ')?;
        let rest = bytes.get(end + 1..)?;
        let (content, next) = rest.split_at_checked(length.parse().ok()?)?;
        entries.insert(name.to_owned(), content.to_vec());
        bytes = next;
    }
    Some(entries)
}

impl Store for Records {
    fn load(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        check_name(name)?;
        match self.read()?.remove(name) {
            Some(bytes) if bytes.len() as u64 > limit => Err(StoreError::TooLong { path: name.into(), limit }),
            found => Ok(found),
        }
    }

    fn save(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_name(name)?;
        let mut entries = self.read()?;
        entries.insert(name.to_owned(), bytes.to_vec());
        self.write(&entries)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        check_name(name)?;
        let mut entries = self.read()?;
        if entries.remove(name).is_some() { self.write(&entries) } else { Ok(()) }
    }
}

/// Two files, `page.0` and `page.1`. `running` names the one that runs, `kept` the one that starts, and `tried` the one that starts once.
#[derive(Debug)]
pub struct Pages {
    folder: PathBuf,
    disk: Disk,
}

impl Pages {
    /// The pages in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), disk: Disk::new() }
    }

    /// The same, writing through this disk.
    #[must_use]
    pub fn on(self, disk: Disk) -> Self {
        Self { disk, ..self }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn failed(path: &Path, action: &'static str) -> impl Fn(io::Error) -> InstallError {
        let path = path.to_owned();
        move |source| InstallError::Io { action, path: path.clone(), source }
    }

    fn runs(&self) -> Result<Place, InstallError> {
        let path = self.path("running");
        fs::read_to_string(&path).map_err(Self::failed(&path, "read"))
    }

    fn set(&self, flag: &str, page: &str) -> Result<(), InstallError> {
        let path = self.path(flag);
        self.disk.replace(&path, page.as_bytes()).map_err(Self::failed(&path, "write"))
    }

    fn clear_tried(&self) -> Result<(), InstallError> {
        let path = self.path("tried");
        self.disk.remove(&path).map_err(Self::failed(&path, "remove"))
    }
}

impl Installer for Pages {
    fn install(
        &mut self,
        _: &Version,
        artifacts: &[Artifact],
        watch: &mut Watch<'_>,
    ) -> Result<(), InstallError> {
        let [artifact] = artifacts else {
            return Err(InstallError::Unsuitable("a page takes one artifact".into()));
        };
        let other = if self.runs()? == "0" { "1" } else { "0" };
        // Before the first byte: a page that is half written must not start.
        self.clear_tried()?;
        let page = self.path(&format!("page.{other}"));
        let mut checker = Checker::new(Some(artifact.length), Some(&artifact.hashes));
        let mut source = fs::File::open(&artifact.path).map_err(Self::failed(&artifact.path, "read"))?;
        let mut target = self.disk.create(&page).map_err(Self::failed(&page, "write"))?;
        let changed = |mismatch| InstallError::Changed { path: artifact.path.clone(), mismatch };
        let mut buffer = [0; 16 * 1024];
        loop {
            watch.at(Progress::new(Phase::Install, &artifact.name, checker.seen(), artifact.length))?;
            match source.read(&mut buffer).map_err(Self::failed(&artifact.path, "read"))? {
                0 => break,
                count => {
                    checker.update(&buffer[..count]).map_err(changed)?;
                    target.append(&buffer[..count]).map_err(Self::failed(&page, "write"))?;
                }
            }
        }
        // The file was verified when it was downloaded; what counts is what was written now.
        checker.finish().map_err(changed)?;
        target.sync().map_err(Self::failed(&page, "write"))?;
        self.set("tried", other)
    }

    fn accepts(&self, artifacts: &[&str]) -> Result<(), String> {
        if artifacts.len() == 1 { Ok(()) } else { Err(format!("{} artifacts do not fit one page", artifacts.len())) }
    }

    fn running(&mut self) -> Result<Option<Place>, InstallError> {
        self.runs().map(Some)
    }

    fn confirm(&mut self) -> Result<(), InstallError> {
        self.set("kept", &self.runs()?)
    }

    fn revert(&mut self, before: &Place) -> Result<(), InstallError> {
        self.set("kept", before)?;
        self.clear_tried()
    }
}

/// What the owner of the device allows: installations at night, and not with an empty battery.
///
/// # Errors
///
/// If one of the texts has another form.
pub fn policy(windows: &[&str], defer: &str) -> Result<Policy, Box<dyn std::error::Error>> {
    let windows: Result<Vec<_>, _> = windows.iter().map(|window| window.parse()).collect();
    Ok(Policy::new()
        .with_windows(windows?)
        .with_utc_offset("+01:00".parse()?)
        .with_deferral_limit(defer.parse()?)
        .with_required(Condition::parse(r#"{"fact": "battery-percent", "ge": 30}"#)?)
        .with_metered(Metered::Refuse)
        .with_security_overrides("windows deferral newer".parse()?))
}

/// What the device knows of itself.
///
/// # Errors
///
/// If a name cannot be that of a fact.
pub fn facts(battery: i64, is_metered: bool) -> Result<Facts, Box<dyn std::error::Error>> {
    Ok(Facts::new().with("battery-percent", battery)?.with("metered", is_metered)?.with("group", "lab")?)
}

/// Until when "remind me tomorrow" defers an update.
pub fn tomorrow(now: UtcTime) -> UtcTime {
    time::after(now, Span::hours(24))
}

/// A clock that counts the seconds from 1970 on.
#[derive(Debug)]
pub struct RealTimeClock {
    seconds: fn() -> i64,
    started: std::time::Instant,
}

impl RealTimeClock {
    /// A clock that is read by this function.
    pub fn new(seconds: fn() -> i64) -> Self {
        Self { seconds, started: std::time::Instant::now() }
    }
}

impl Monotonic for RealTimeClock {
    fn elapsed(&self) -> std::time::Duration {
        self.started.elapsed()
    }
}

impl Clock for RealTimeClock {
    fn now(&self) -> UtcTime {
        // A counter that was never set starts in 1970: the client takes signed times instead.
        time::from_seconds((self.seconds)()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use tidegate_client::testing::{Board, TestFiles, check_fetch, check_installer, check_store};

    use super::*;

    struct Stick(PathBuf);

    impl TestFiles for Stick {
        fn put(&self, name: &str, content: Option<&[u8]>) -> String {
            if let Some(bytes) = content {
                fs::write(self.0.join(name), bytes).unwrap();
            }
            format!("usb:{name}")
        }
    }

    #[test]
    fn the_fetcher_keeps_the_suite() {
        let folder = tempfile::tempdir().unwrap();
        check_fetch(&UsbFetch::new(folder.path()), &Stick(folder.path().into())).unwrap();
    }

    #[test]
    fn the_store_keeps_the_suite() {
        let folder = tempfile::tempdir().unwrap();
        check_store(&Records::new(folder.path().join("records"))).unwrap();
    }

    struct PageBoard(PathBuf);

    impl PageBoard {
        fn new(folder: &Path) -> Self {
            for (name, content) in [("page.0", "the old image"), ("running", "0"), ("kept", "0")] {
                fs::write(folder.join(name), content).unwrap();
            }
            Self(folder.into())
        }
    }

    impl Board for PageBoard {
        fn installer(&self, disk: Disk) -> Box<dyn Installer> {
            Box::new(Pages::new(&self.0).on(disk))
        }

        fn restart(&self) -> Option<Vec<Vec<u8>>> {
            // What the boot loader does.
            let tried = fs::read_to_string(self.0.join("tried")).ok();
            let page = tried.or_else(|| fs::read_to_string(self.0.join("kept")).ok())?;
            let _ = fs::remove_file(self.0.join("tried"));
            fs::write(self.0.join("running"), &page).unwrap();
            Some(vec![fs::read(self.0.join(format!("page.{page}"))).ok()?])
        }

        fn artifacts(&self) -> &'static [&'static str] {
            &["image.bin"]
        }
    }

    #[test]
    fn the_installer_keeps_the_suite() {
        let folder = tempfile::tempdir().unwrap();
        check_installer(folder.path(), &|folder| Box::new(PageBoard::new(folder))).unwrap();
    }

    #[test]
    fn settings_are_made_without_another_package() {
        let read = Policy::parse(
            r#"{"windows": ["23:00 - 05:00"], "utc_offset": "+01:00", "deferral": {"limit": "7d"},
            "require": {"fact": "battery-percent", "ge": 30}, "metered": "refuse"}"#,
        );
        assert_eq!(policy(&["23:00 - 05:00"], "7d").unwrap(), read.unwrap());
        assert!(policy(&["23:00"], "7d").is_err() && policy(&[], "a week").is_err());
        let read = Facts::parse(br#"{"battery-percent": 80, "metered": false, "group": "lab"}"#);
        assert_eq!(facts(80, false).unwrap(), read.unwrap());
        let now = RealTimeClock::new(|| 1_764_590_400).now();
        assert_eq!(time::format(tomorrow(now)), "2025-12-02T12:00:00Z");
        assert_eq!(time::between(now, tomorrow(now)).to_string(), "1d");
    }
}
