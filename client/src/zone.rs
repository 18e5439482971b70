//! Time zones by name: from the zone files of the system (TZif, RFC 9636), or from a rule such as `CET-1CEST,M3.5.0,M10.5.0/3`.
//!
//! Only offsets are read, of a file of at most 64 KiB; whatever is wrong in it makes it no zone.

use std::io::ErrorKind;
use std::path::Path;

use chrono::{DateTime, Datelike as _, NaiveDate};

use crate::disk::read_regular;
use tidegate_model::time::UtcTime;

/// Where systems keep zone files.
const FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/etc/zoneinfo"];
const LENGTH: u64 = 64 * 1024;
const DAY: i64 = 86_400;

/// How far local time is ahead of UTC, in seconds, at each instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    /// Before the first change.
    first: i64,
    /// When it changes, and to what, in order.
    changes: Vec<(i64, i64)>,
    /// What holds after the last change.
    rule: Option<Rule>,
    is_assumed: bool,
}

/// A rule for every year: POSIX's notation of `TZ`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    standard: i64,
    /// The offset of the summer, its start, and its end.
    summer: Option<(i64, Change, Change)>,
}

/// A day of each year, and the seconds from its start.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    day: Day,
    time: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Day {
    /// Month, week (5 for the last), day of the week from Sunday.
    Week(u32, i64, i64),
    /// The day of the year from 0, and whether the 29th of February counts.
    Year(i64, bool),
}

impl Zone {
    /// The zone of this name, such as `Europe/Berlin`, or of this rule; `system` is that of `TZ` or `/etc/localtime`.
    ///
    /// # Errors
    ///
    /// The reason if there is none.
    pub fn find(name: &str) -> Result<Self, String> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let unknown = || format!("the time zone {name:?} is neither a rule nor in the system's zone files");
        if name == "system" {
            let zone = variable("TZ").map(|zone| zone.trim_start_matches(':').to_owned());
            return match zone.filter(|zone| zone != "system") {
                Some(zone) => Self::find(&zone),
                None => Self::local(Path::new("/etc/localtime")).ok_or_else(unknown),
            };
        }
        let name = name.trim_start_matches(':');
        if name.starts_with('/') {
            return Self::load(Path::new(name)).ok_or_else(unknown);
        }
        let folders = variable("TZDIR").into_iter().chain(FOLDERS.map(str::to_owned));
        Self::named(name, folders).ok_or_else(unknown)
    }

    /// The zone of this name in the first folder that has it, or else of this rule.
    fn named(name: &str, mut folders: impl Iterator<Item = String>) -> Option<Self> {
        let is_path = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let file = is_path.then(|| folders.find_map(|folder| Self::load(&Path::new(&folder).join(name))));
        // Needs no files.
        let utc = matches!(name, "UTC" | "GMT" | "Etc/UTC" | "Etc/GMT");
        let rule = || Some(Self { rule: Some(Rule::read(if utc { "UTC0" } else { name })?), ..Self::default() });
        file.flatten().or_else(rule)
    }

    /// The system's zone; UTC if none is set.
    fn local(path: &Path) -> Option<Self> {
        let is_unset = path.symlink_metadata().is_err_and(|e| e.kind() == ErrorKind::NotFound);
        if is_unset { Some(Self { is_assumed: true, ..Self::default() }) } else { Self::load(path) }
    }

    /// Whether it is UTC because the system sets none.
    pub fn is_assumed(&self) -> bool {
        self.is_assumed
    }

    fn load(path: &Path) -> Option<Self> {
        // Many are links.
        Self::read(&read_regular(&path.canonicalize().ok()?, LENGTH).ok()?)
    }

    /// Reads a zone file.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (old, rest) = Self::block(bytes, 4)?;
        if bytes.get(4).is_some_and(|version| *version < b'2') {
            return Some(old);
        }
        let (zone, rest) = Self::block(rest, 8)?;
        let rule = std::str::from_utf8(rest.strip_prefix(b"\n")?.split(|byte| *byte == b'\n').next()?).ok()?;
        Some(Self { rule: if rule.is_empty() { None } else { Some(Rule::read(rule)?) }, ..zone })
    }

    /// Reads a header and what it describes, with instants of this many bytes.
    fn block(bytes: &[u8], width: usize) -> Option<(Self, &[u8])> {
        let (header, mut rest) = bytes.split_at_checked(44)?;
        let counts = header.strip_prefix(b"TZif")?.get(16..)?;
        let counts = counts.chunks_exact(4).map(|count| usize::try_from(number(count)?).ok());
        let counts: Vec<usize> = counts.collect::<Option<_>>()?;
        let [utc, standard, leaps, times, kinds, names] = counts[..] else { return None };
        let mut take = |count: usize| {
            let (taken, left) = rest.split_at_checked(count)?;
            rest = left;
            Some(taken)
        };
        let instants = take(times.checked_mul(width)?)?;
        let indices = take(times)?;
        let kinds = take(kinds.checked_mul(6)?)?;
        let others = names.checked_add(leaps.checked_mul(width + 4)?)?.checked_add(standard)?.checked_add(utc)?;
        take(others)?;
        let offset = |index: usize| number(kinds.chunks_exact(6).nth(index)?.get(..4)?);
        let changes = instants.chunks_exact(width).zip(indices);
        let changes = changes.map(|(at, index)| Some((number(at)?, offset(usize::from(*index))?)));
        Some((Self { first: offset(0)?, changes: changes.collect::<Option<_>>()?, ..Self::default() }, rest))
    }

    /// How far local time is ahead of UTC, in minutes.
    pub fn offset(&self, at: UtcTime) -> i64 {
        let at = at.timestamp();
        let next = self.changes.partition_point(|(change, _)| *change <= at);
        let before = next.checked_sub(1).and_then(|last| self.changes.get(last));
        let known = before.map_or(self.first, |(_, offset)| *offset);
        let rule = self.rule.as_ref().filter(|_| next == self.changes.len());
        rule.and_then(|rule| rule.offset(at)).unwrap_or(known).div_euclid(60)
    }
}

/// A signed number, the highest byte first.
fn number(bytes: &[u8]) -> Option<i64> {
    match bytes.len() {
        4 => Some(i32::from_be_bytes(bytes.try_into().ok()?).into()),
        _ => Some(i64::from_be_bytes(bytes.try_into().ok()?)),
    }
}

impl Rule {
    fn read(text: &str) -> Option<Self> {
        let mut rest = text;
        name(&mut rest)?;
        let standard = -clock(&mut rest)?;
        if rest.is_empty() {
            return Some(Self { standard, summer: None });
        }
        name(&mut rest)?;
        let summer = if rest.starts_with(',') { standard + 3600 } else { -clock(&mut rest)? };
        let mut change = || {
            rest = rest.strip_prefix(',')?;
            let day = Day::read(&mut rest)?;
            let time = match rest.strip_prefix('/') {
                Some(time) => {
                    rest = time;
                    clock(&mut rest)?
                }
                None => 7200,
            };
            Some(Change { day, time })
        };
        let summer = (summer, change()?, change()?);
        rest.is_empty().then_some(Self { standard, summer: Some(summer) })
    }

    fn offset(&self, at: i64) -> Option<i64> {
        let Some((summer, from, until)) = &self.summer else { return Some(self.standard) };
        let year = DateTime::from_timestamp(at.checked_add(self.standard)?, 0)?.year();
        let (from, until) = (from.at(year)? - self.standard, until.at(year)? - summer);
        let is_summer = if from < until { (from..until).contains(&at) } else { !(until..from).contains(&at) };
        Some(if is_summer { *summer } else { self.standard })
    }
}

impl Change {
    /// In local seconds.
    fn at(&self, year: i32) -> Option<i64> {
        let date = |month| NaiveDate::from_ymd_opt(year, month, 1);
        let days = match self.day {
            Day::Week(month, week, day) => {
                let first = date(month)?;
                let next = if month == 12 { NaiveDate::from_ymd_opt(year + 1, 1, 1) } else { date(month + 1) };
                let length = next?.signed_duration_since(first).num_days();
                let day = (day - i64::from(first.weekday().num_days_from_sunday())).rem_euclid(7) + (week - 1) * 7;
                days(first) + if day < length { day } else { day - 7 }
            }
            Day::Year(day, counts_all) => {
                let first = date(1)?;
                days(first) + day + i64::from(!counts_all && first.leap_year() && day >= 59)
            }
        };
        Some(days * DAY + self.time)
    }
}

/// Since 1970.
fn days(date: NaiveDate) -> i64 {
    date.signed_duration_since(NaiveDate::default()).num_days()
}

impl Day {
    fn read(text: &mut &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('M') {
            *text = rest;
            let mut next = |range: std::ops::RangeInclusive<i64>| {
                *text = text.strip_prefix('.').unwrap_or(text);
                digits(text).filter(|number| range.contains(number))
            };
            return Some(Self::Week(u32::try_from(next(1..=12)?).ok()?, next(1..=5)?, next(0..=6)?));
        }
        let counts_all = !text.starts_with('J');
        *text = text.strip_prefix('J').unwrap_or(text);
        let day = digits(text)? - i64::from(!counts_all);
        (0..=365).contains(&day).then_some(Self::Year(day, counts_all))
    }
}

/// Skips `CET` or `<+03>`.
fn name(text: &mut &str) -> Option<()> {
    let length = match text.strip_prefix('<') {
        Some(rest) => rest.find('>')? + 2,
        None => text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len()),
    };
    *text = text.get(length..).filter(|_| length > 2)?;
    Some(())
}

/// Reads `-1`, `3:30` or `02:00:00`, in seconds.
fn clock(text: &mut &str) -> Option<i64> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    *text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut seconds = digits(text).filter(|hours| *hours <= 167)? * 3600;
    for unit in [60, 1] {
        if let Some(rest) = text.strip_prefix(':') {
            *text = rest;
            seconds += digits(text).filter(|number| *number < 60)? * unit;
        }
    }
    Some(sign * seconds)
}

fn digits(text: &mut &str) -> Option<i64> {
    let (number, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    *text = rest;
    if number.len() > 3 { None } else { number.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::time;

    fn minutes(zone: &Zone, at: &str) -> i64 {
        zone.offset(time::parse(at).unwrap())
    }

    #[test]
    fn rules_change_on_the_right_day() {
        for (rule, at, expected) in [
            ("CET-1CEST,M3.5.0,M10.5.0/3", "2027-03-28T00:59:59Z", 60),
            ("CET-1CEST,M3.5.0,M10.5.0/3", "2027-03-28T01:00:00Z", 120),
            ("CET-1CEST,M3.5.0,M10.5.0/3", "2027-10-31T00:59:59Z", 120),
            ("CET-1CEST,M3.5.0,M10.5.0/3", "2027-10-31T01:00:00Z", 60),
            ("EST5EDT,M3.2.0,M11.1.0", "2027-03-14T06:59:59Z", -300),
            ("EST5EDT,M3.2.0,M11.1.0", "2027-03-14T07:00:00Z", -240),
            ("EST5EDT,M3.2.0,M11.1.0", "2027-11-07T06:00:00Z", -300),
            // South of the equator, by half an hour, and a winter that has the name of a summer.
            ("AEST-10AEDT,M10.1.0,M4.1.0/3", "2027-01-01T00:00:00Z", 660),
            ("AEST-10AEDT,M10.1.0,M4.1.0/3", "2027-07-01T00:00:00Z", 600),
            ("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", "2027-01-01T00:00:00Z", 660),
            ("IST-1GMT0,M10.5.0,M3.5.0/1", "2027-01-01T00:00:00Z", 0),
            ("IST-1GMT0,M10.5.0,M3.5.0/1", "2027-07-01T00:00:00Z", 60),
            ("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "2027-03-28T00:59:59Z", -120),
            ("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "2027-03-28T01:00:00Z", -60),
            // Day 60 without the 29th of February is the 1st of March, also in a leap year; day 59 counted from 0 is the 29th there.
            ("XXX0YYY,J60,J61", "2028-03-01T12:00:00Z", 60),
            ("XXX0YYY,59,60", "2028-02-29T12:00:00Z", 60),
            ("<+0545>-5:45", "2027-07-01T00:00:00Z", 345),
        ] {
            let zone = Zone { rule: Rule::read(rule), ..Zone::default() };
            assert!(zone.rule.is_some(), "{rule}");
            assert_eq!(minutes(&zone, at), expected, "{rule} at {at}");
        }
        for wrong in
            ["", "C-1", "CET-1CEST", "CET-1CEST,M3.5.0", "CET-1CEST,M13.5.0,M10.5.0", "CET-1x", "CET-999", "<CET"]
        {
            assert_eq!(Rule::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn zone_files_agree_with_date() {
        let must = std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_some();
        // Where the code looks, too.
        let folders: Vec<String> = std::env::var("TZDIR").into_iter().chain(FOLDERS.map(str::to_owned)).collect();
        let file_of =
            |name| folders.iter().map(|folder| format!("{folder}/{name}")).find(|file| Path::new(file).exists());
        let Some(file) = file_of("Europe/Berlin") else { return assert!(!must, "the system's zone files are needed") };
        let zone = Zone::find("Europe/Berlin").unwrap();
        for same in [":Europe/Berlin", &file, &format!(":{file}")] {
            assert_eq!(Zone::find(same).as_ref(), Ok(&zone), "{same}");
        }
        for (zone_name, at) in [
            ("Europe/Berlin", "2026-03-29T00:59:59Z"),
            ("Europe/Berlin", "2026-03-29T01:00:00Z"),
            ("Europe/Berlin", "2099-07-01T00:00:00Z"),
            ("Europe/Berlin", "1970-07-01T00:00:00Z"),
            ("America/New_York", "2026-11-01T05:59:59Z"),
            ("America/New_York", "2026-11-01T06:00:00Z"),
            ("Australia/Lord_Howe", "2027-01-01T00:00:00Z"),
            ("Asia/Kathmandu", "2027-01-01T00:00:00Z"),
            ("Africa/Casablanca", "2026-02-20T00:00:00Z"),
            ("UTC", "2027-01-01T00:00:00Z"),
        ] {
            let Some(file) = file_of(zone_name) else {
                assert!(!must, "the zone file of {zone_name} is needed");
                continue;
            };
            let zone = Zone::find(zone_name).unwrap();
            assert!(!zone.is_assumed(), "{zone_name}");
            let said = std::process::Command::new("date")
                .env("TZ", format!(":{file}"))
                .args(["-d", at, "+%z"])
                .output()
                .unwrap();
            let said = String::from_utf8(said.stdout).unwrap();
            let found = minutes(&zone, at);
            let text = format!("{}{:02}{:02}", if found < 0 { '-' } else { '+' }, found.abs() / 60, found.abs() % 60);
            assert_eq!(text, said.trim(), "{zone_name} at {at}");
        }
        // Nothing outside the folders of zones, and nothing else than a zone.
        for wrong in [
            "../../../etc/passwd",
            "/etc/passwd",
            "/dev/zero",
            "/none",
            ":",
            "Europe",
            "Europe/Nowhere",
            "zone.tab",
            "",
        ] {
            assert!(Zone::find(wrong).is_err(), "{wrong}");
        }
        assert_eq!(zone.changes.last(), zone.changes.iter().max());
    }

    #[test]
    fn utc_needs_no_zone_files() {
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("none").display().to_string();
        for name in ["UTC", "GMT", "Etc/UTC", "Etc/GMT"] {
            let zone = Zone::named(name, [none.clone()].into_iter());
            assert_eq!(zone.map(|zone| (minutes(&zone, "2027-07-01T00:00:00Z"), zone.is_assumed())), Some((0, false)));
        }
        assert_eq!(Zone::named("Europe/Berlin", [none].into_iter()), None);
        let local = folder.path().join("localtime");
        let unset = Zone::local(&local).unwrap();
        assert!(unset.is_assumed() && minutes(&unset, "2027-07-01T00:00:00Z") == 0);
        // One that is set, but cannot be read, is none.
        std::fs::write(&local, "no zone").unwrap();
        assert_eq!(Zone::local(&local), None);
    }

    #[test]
    fn damaged_zone_files_are_no_zones_or_harmless() {
        let header = |version: u8, counts: [u32; 6]| {
            let mut bytes = [b"TZif".as_slice(), &[version], &[0; 15]].concat();
            bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
            bytes
        };
        let body = [&[0, 0, 0, 9][..], &[1], &[0, 0, 14, 16, 0, 0], &[0, 0, 28, 32, 1, 0], b"A\0"].concat();
        let old = [header(0, [0, 0, 0, 1, 2, 2]), body].concat();
        let zone = Zone::read(&old).unwrap();
        // One without changes whose offset is 0 is one that is set.
        let zero = [header(0, [0, 0, 0, 0, 1, 0]), vec![0; 6]].concat();
        assert_eq!(Zone::read(&zero).map(|zone| zone.is_assumed()), Some(false));
        assert_eq!((minutes(&zone, "1970-01-01T00:00:08Z"), minutes(&zone, "1970-01-01T00:00:09Z")), (60, 120));
        let new =
            [&old[..], &header(b'2', [0, 0, 0, 0, 1, 0]), &[0, 0, 0, 60, 0, 0], b"\nCET-1CEST,M3.5.0,M10.5.0/3\n"]
                .concat();
        let new = [&[b"TZif2".as_slice(), &new[5..]].concat()[..]].concat();
        assert_eq!(minutes(&Zone::read(&new).unwrap(), "2027-07-01T00:00:00Z"), 120);
        let at = time::parse("2027-07-01T00:00:00Z").unwrap();
        for file in [&old, &new] {
            for length in 0..file.len() {
                if let Some(zone) = Zone::read(&file[..length]) {
                    zone.offset(at);
                }
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut damaged = file.clone();
                    damaged[length] = value;
                    if let Some(zone) = Zone::read(&damaged) {
                        zone.offset(at);
                    }
                }
            }
        }
        assert_eq!(Zone::read(&header(b'2', [u32::MAX; 6])), None);
    }
}
