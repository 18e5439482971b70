//! `tidegate-device confirm` and `tidegate-device reject`

use super::failure::Failure;
use super::host::OnceHost;
use super::output::Output;
use super::settings::Settings;
use tidegate_client::Error;
use tidegate_client::agent::{Agent, AgentOptions, Next};
use tidegate_client::device::Device;

pub(super) fn confirm(settings: Settings, output: Output) -> Result<bool, Failure> {
    settings.act(output, act_confirm)
}

pub(super) fn reject(settings: Settings, output: Output) -> Result<bool, Failure> {
    settings.act(output, act_reject)
}

fn act_confirm(device: &mut Device, options: &AgentOptions, output: Output) -> Result<bool, Failure> {
    Agent::new(device, options, &mut OnceHost::new(output)).confirm()?;
    let status = device.status();
    output.repairs(&status.repairs);
    let record = status.installed.ok_or_else(|| Error::State("nothing is installed on this device yet".into()))?;
    let text = format!("confirmed {} (sequence {})", record.release.version, record.release.sequence);
    output.result(text, &record)?;
    Ok(true)
}

fn act_reject(device: &mut Device, options: &AgentOptions, output: Output) -> Result<bool, Failure> {
    let next = Agent::new(device, options, &mut OnceHost::new(output)).reject()?;
    let status = device.status();
    output.repairs(&status.repairs);
    output.result(status.update.state.to_string(), &status)?;
    if next == Next::Restart {
        output.next("restart to run the previous release");
    }
    Ok(true)
}
