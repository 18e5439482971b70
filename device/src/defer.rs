//! `tidegate-device defer`

use std::time::Duration;

use chrono::TimeDelta;

use super::failure::Failure;
use super::output::Output;
use super::settings::Settings;
use tidegate_client::clock::{BUILT, Clock as _, FlooredClock, SystemClock};
use tidegate_model::time;

pub(super) fn run(settings: Settings, time: Option<Duration>, output: Output) -> Result<bool, Failure> {
    let now = FlooredClock::new(SystemClock::new(), BUILT).now();
    let time = TimeDelta::from_std(time.unwrap_or_default()).unwrap_or_default();
    let until = now.checked_add_signed(time).unwrap_or(now);
    let deferral = settings.builder.defer(until)?;
    let limit = if deferral.until < until { ", the longest that the device's policy allows" } else { "" };
    output.result(format!("deferred until {}{limit}", time::format(deferral.until)), &deferral)?;
    output.next("tidegate-device explain shows what else delays it");
    Ok(true)
}
