//! A whole device in one function: what an update daemon on an embedded Linux system comes down to.
//!
//! ```text
//! cargo run --example hello_device -- 1.root.json https://updates.example.com /var/lib/tidegate /var/lib/images/next.img
//! ```

use std::ops::ControlFlow;
use std::process::ExitCode;

use tidegate_client::device::Device;
use tidegate_client::install::FileSlot;
use tidegate_client::updater::Repository;
use tidegate_client::watch::Progress;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, url, state, slot] = &arguments[..] else {
        eprintln!("usage: hello_device ROOT URL STATE SLOT");
        return ExitCode::from(2);
    };
    match update(root, url, state, slot) {
        Ok(done) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn update(root: &str, url: &str, state: &str, slot: &str) -> Result<String, Box<dyn std::error::Error>> {
    let mut device = Device::builder()
        .root(std::fs::read(root)?)
        .repository(Repository::at(url)?)
        .state_dir(state)
        .id("device-0001".parse()?)
        .channel("stable".parse()?)
        .product("os".parse()?)
        .hardware("board-a".parse()?)
        .factory("1.0.0".parse()?, 0)
        .installer(FileSlot::new(slot))
        .open()?;
    let check = device.check()?;
    let Some(update) = &check.update else {
        return Ok(check.outcome().to_string());
    };
    let mut shown = |at: Progress<'_>| {
        eprintln!("{}: {} %", at.name, at.percent());
        ControlFlow::Continue(())
    };
    let downloaded = device.download(update, &mut shown)?;
    device.install(&downloaded, &mut shown)?;
    // A single file runs at once. With slots, restart now; once the new system is well, it calls `device.confirm()`, or `reject()`.
    let release = &update.release;
    Ok(format!("installed {} (sequence {})", release.version, release.sequence))
}
