//! `tidegate-device status`

use std::fmt::Write as _;

use super::failure::Failure;
use super::output::Output;
use super::settings::Settings;
use tidegate_client::device::{InstallState, Overwritten, Record, Release, Status};
use tidegate_model::time;

pub(super) fn run(settings: Settings, output: Output) -> Result<bool, Failure> {
    let status = settings.builder.observe_offers()?;
    output.repairs(&status.repairs);
    output.result(text(&status), &status)?;
    Ok(true)
}

fn text(status: &Status) -> String {
    let device = &status.device;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "device       {}, product {}, channel {}, hardware {}",
        device.id, device.product, device.channel, device.hardware
    );
    let runs = |record: &&Record| record.release.version == device.installed.version;
    let record = status.installed.as_ref().filter(runs);
    let state = match record.map(|record| record.state) {
        None if status.update.state.release().is_some_and(|release| release.version == device.installed.version) => {
            "until the restart"
        }
        None if status.installed.is_some() => "not what was installed last",
        None => "as it left the factory",
        Some(InstallState::Left) => "not what was confirmed",
        Some(InstallState::Trial) => "on trial",
        Some(InstallState::Confirmed) => "confirmed",
    };
    let _ =
        writeln!(text, "runs         {} (sequence {}), {state}", device.installed.version, device.installed.sequence);
    if let Some(previous) = record.and_then(|record| record.previous.as_ref()) {
        let _ = writeln!(text, "before       {} (sequence {})", previous.version, previous.sequence);
    }
    let _ = writeln!(text, "update       {}", status.update.state);
    if let Some(Overwritten { release: Release { version, sequence, .. }, complete, .. }) = &status.overwritten {
        let how = if *complete { "has" } else { "is being written with" };
        let _ = writeln!(text, "fallback     none: the other slot {how} {version} (sequence {sequence})");
    }
    for remark in &status.remarks {
        let _ = writeln!(text, "remark       {remark}");
    }
    if status.update.failures > 0 {
        let _ = write!(text, "failures     {} in a row", status.update.failures);
        if let Some(at) = status.update.restart {
            let _ = write!(text, ": the restart command fails, and runs again by {}", time::format(at));
        }
        text.push('\n');
    }
    if let Some(deferral) = &status.deferral {
        let until = time::format(deferral.until);
        let _ = writeln!(text, "deferral     sequence {}, by the user, until {until}", deferral.sequence);
    }
    if let Some(kind) = device.attestation {
        let _ = writeln!(text, "evidence     {kind}, for gates that ask");
    }
    if let Some(receipts) = &status.receipts {
        let _ = writeln!(text, "receipts     {receipts}");
    }
    if let Some(decision) = &status.decision {
        let _ = writeln!(text, "cohort       {}", decision.cohort);
        for offer in &decision.offers {
            let _ = writeln!(text, "offered      {} (sequence {}): {}", offer.release, offer.sequence, offer.outcome());
        }
        let _ = writeln!(text, "decision     {}", decision.outcome);
    }
    if let Some(why) = &status.undecided {
        let _ = writeln!(text, "decision     unknown until the next check: {why}");
    }
    for failed in &status.quarantined {
        let _ = writeln!(text, "quarantined  {} (sequence {}): {}", failed.version, failed.sequence, failed.why);
    }
    text
}
