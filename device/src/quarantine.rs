//! `tidegate-device quarantine`

use super::failure::Failure;
use super::output::Output;
use super::settings::Settings;
use tidegate_model::version::Version;

/// Lists what is quarantined, after it has lifted the quarantine of `lift`.
pub(super) fn run(settings: Settings, lift: Option<&Version>, output: Output) -> Result<bool, Failure> {
    let quarantined = if let Some(version) = lift {
        let mut device = settings.builder.open()?;
        device.lift(version)?;
        device.status().quarantined
    } else {
        settings.builder.observe()?.quarantined
    };
    let lines: Vec<_> = quarantined
        .iter()
        .map(|failed| format!("{} (sequence {}): {}", failed.version, failed.sequence, failed.why))
        .collect();
    let text = match (lift, lines.is_empty()) {
        (Some(version), _) => format!("{version} may be tried again"),
        (None, true) => "nothing is in quarantine".into(),
        (None, false) => lines.join("\n"),
    };
    output.result(text, &quarantined)?;
    if let (None, Some(failed)) = (lift, quarantined.first()) {
        output.next(&format!("tidegate-device quarantine lift {} lets it be tried again", failed.version));
    }
    Ok(true)
}
