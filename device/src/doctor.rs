//! `tidegate-device doctor`: what keeps this device from being updated.

use std::io::ErrorKind;
use std::path::Path;

use chrono::TimeDelta;
use serde::Serialize;

use super::failure::{Failure, error_body};
use super::output::Output;
use super::settings::Settings;
use tidegate_client::Error;
use tidegate_client::clock::{BUILT, Clock as _, SystemClock};
use tidegate_client::device::Device;
use tidegate_client::store::{DirStore, StoreError};
use tidegate_model::time::{self, UtcTime};

/// What was found of a part of the device.
#[derive(Serialize)]
struct Finding {
    part: &'static str,
    ok: bool,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

type Found = Result<String, (String, Option<String>)>;

/// What an empty state folder is taken to be.
const NO_STATE: &str = "/proc/tidegate";
/// How long after it was built a program is used at most.
const USED: TimeDelta = TimeDelta::days(15 * 365);

/// The findings where the settings cannot be read.
pub(super) fn without_settings(error: &Error, output: Output) -> Result<bool, Failure> {
    let unknown = || Err(("not checked, since the settings cannot be used".to_owned(), None));
    report(
        [
            ("settings", Err(told(error))),
            ("hooks", unknown()),
            ("space", unknown()),
            ("clock", clock(SystemClock::new().now(), BUILT)),
            ("network", unknown()),
            ("state", unknown()),
        ],
        output,
    )
}

pub(super) fn run(settings: Settings, output: Output) -> Result<bool, Failure> {
    let wrong: Vec<_> = settings.faults.iter().chain(&settings.problems).cloned().collect();
    let remark = settings.remark.map(|remark| format!("; {remark}")).unwrap_or_default();
    let settings_found =
        if wrong.is_empty() { Ok(format!("they can be used{remark}")) } else { Err((wrong.join("; "), None)) };
    let (reserve, state_dir, no_network) = (settings.reserve, settings.state_dir, settings.no_network);
    let readable = std::fs::read_dir(&state_dir).map_or_else(|e| e.kind() == ErrorKind::NotFound, |_| true);
    // The other parts are checked as on a new device.
    let builder = if readable { settings.builder } else { settings.builder.state_dir(Path::new(NO_STATE)) };
    let writable = match DirStore::open(state_dir) {
        Ok(_) | Err(StoreError::Locked { .. }) => Ok(()),
        Err(e) => Err(told(&e.into())),
    };
    let mut device = match builder.open_in_memory() {
        Ok(device) => device,
        Err(e) => return without_settings(&e, output),
    };
    let hooks = match device.ready() {
        Ok(Some(place)) => Ok(format!("{place} runs, and a release can be installed beside it")),
        Ok(None) => Ok("a release can be installed; there is no way back from it".into()),
        Err(Error::Setting(why)) if !device.has_installer() => Err((why, None)),
        Err(e) => Err(told(&e)),
    };
    let network = if no_network {
        Err(("not checked, since the network's settings cannot be used".to_owned(), None))
    } else {
        device.check().map(|check| check.outcome().to_string()).map_err(|e| told(&e))
    };
    let found = [
        ("settings", settings_found),
        ("hooks", hooks),
        ("space", space(&device, reserve)),
        ("clock", clock(SystemClock::new().now(), device.remembered())),
        ("network", network),
        ("state", writable.and_then(|()| state(&device))),
    ];
    report(found, output)
}

fn report(found: [(&'static str, Found); 6], output: Output) -> Result<bool, Failure> {
    let findings: Vec<_> = found.into_iter().map(|(part, found)| finding(part, found)).collect();
    let lines: Vec<_> = findings.iter().map(line).collect();
    output.result(lines.join("\n"), &findings)?;
    Ok(findings.iter().all(|finding| finding.ok))
}

fn told(error: &Error) -> (String, Option<String>) {
    let body = error_body(error);
    (body.message, body.remedy)
}

fn finding(part: &'static str, found: Found) -> Finding {
    match found {
        Ok(message) => Finding { part, ok: true, message, remedy: None },
        Err((message, remedy)) => Finding { part, ok: false, message, remedy },
    }
}

fn line(Finding { part, ok, message, remedy }: &Finding) -> String {
    let verdict = if *ok { "ok" } else { "FAIL" };
    let remedy = remedy.as_ref().map(|remedy| format!("\n                help: {remedy}")).unwrap_or_default();
    format!("{verdict:<4}  {part:<8}  {message}{remedy}")
}

fn space(device: &Device, reserve: u64) -> Found {
    match device.room() {
        None => Ok("unknown".into()),
        Some(free) if free < reserve => {
            let why = format!("{free} bytes are free for downloads, fewer than the reserve of {reserve}");
            Err((why, Some("free some space, or lower the setting reserve".into())))
        }
        Some(free) => Ok(format!("{free} bytes are free for downloads, of which {reserve} are reserved")),
    }
}

/// `signed` is the newest signed time that the clock had reached.
fn clock(now: UtcTime, signed: UtcTime) -> Found {
    // The date of the build may be the wrong one.
    if now > BUILT + USED {
        return Ok(format!("{}: set it if it is wrong, this program was built 15 years before", time::format(now)));
    }
    if now < signed {
        let why = format!("it says {}, but {} was signed before", time::format(now), time::format(signed));
        return Err((why, Some("set the clock, for example by NTP; until then signed time counts".into())));
    }
    if now < BUILT {
        let why = format!("it says {}, before this program was built", time::format(now));
        return Err((why, Some("set the clock, for example by NTP; until then signed time counts".into())));
    }
    Ok(time::format(now))
}

fn state(device: &Device) -> Found {
    let status = device.status();
    let mut wrong = status.remarks;
    wrong.extend(status.repairs.into_iter().map(|repair| format!("{}: {}", repair.name, repair.reason)));
    if !wrong.is_empty() {
        return Err((wrong.join("; "), None));
    }
    match status.quarantined.len() {
        0 => Ok(status.update.state.to_string()),
        count => {
            let why = format!("{}; {count} releases are in quarantine", status.update.state);
            Err((why, Some("tidegate-device quarantine shows why".into())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_far_from_the_build_are_told() {
        let hour = TimeDelta::hours(1);
        assert!(clock(BUILT, BUILT).is_ok() && clock(BUILT + hour, BUILT).is_ok());
        // Which of both is wrong is not known, so the device works.
        let future = clock(time::parse("2099-01-01T00:00:00Z").unwrap(), BUILT).unwrap();
        assert!(future.contains("set it if it is wrong"), "{future}");
        let past = clock(time::parse("1970-01-01T00:00:00Z").unwrap(), UtcTime::MIN_UTC).unwrap_err().0;
        assert!(past.contains("before this program"), "{past}");
        let behind = clock(BUILT + hour, BUILT + hour * 2).unwrap_err().0;
        assert!(behind.contains("was signed before"), "{behind}");
    }
}
