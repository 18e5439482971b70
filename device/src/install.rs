//! `tidegate-device install`

use serde::Serialize;

use super::failure::{Failure, is_refusal};
use super::host::OnceHost;
use super::output::Output;
use super::settings::Settings;
use tidegate_client::agent::{Agent, AgentOptions, Health, Next};
use tidegate_client::device::{Device, Record};
use tidegate_client::state::State;
use tidegate_model::decision::Outcome;

#[derive(Serialize)]
struct Report<'a> {
    outcome: Option<&'a Outcome>,
    installed: Option<&'a Record>,
    state: &'a State,
}

pub(super) fn run(settings: Settings, output: Output) -> Result<bool, Failure> {
    settings.act(output, act)
}

fn act(device: &mut Device, options: &AgentOptions, output: Output) -> Result<bool, Failure> {
    let mut host = OnceHost::new(output);
    let mut agent = Agent::new(device, options, &mut host);
    let mut next = agent.check()?;
    // A program decides on the trial. A person takes as long as it takes.
    while let (Next::Look { after }, Health::Command(_)) = (next, &options.health) {
        std::thread::sleep(after);
        next = agent.resume()?;
    }
    let status = device.status();
    let state = &status.update.state;
    let text = match (state, &host.outcome) {
        (State::Rebooting { .. } | State::Trial { .. } | State::Confirmed { .. }, Some(_)) => {
            let release = state.release().map(|release| format!("{} (sequence {})", release.version, release.sequence));
            format!("installed {}", release.unwrap_or_default())
        }
        (State::Idle, Some(outcome)) => outcome.to_string(),
        _ => state.to_string(),
    };
    let installed = status.installed.as_ref();
    output.result(text, &Report { outcome: host.outcome.as_ref(), installed, state })?;
    match state {
        State::Rebooting { .. } => output.next("restart to run it"),
        State::RolledBack { .. } => output.next("restart to run the previous release"),
        State::Trial { .. } => output.next("after the new release runs and works: tidegate-device confirm"),
        _ => {}
    }
    let failed = matches!(state, State::Quarantined { .. } | State::RolledBack { .. });
    Ok(!failed && !host.outcome.as_ref().is_some_and(is_refusal))
}
