//! An update agent inside another program: two slots, a boot hook, a trial with a health command. docs/integrate.md explains it.

use std::ops::ControlFlow;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use tidegate_client::agent::{Agent, AgentOptions, Entry, Health, HealthCommand, Host, Next};
use tidegate_client::command::Command;
use tidegate_client::device::Device;
use tidegate_client::fetch::file::url_of;
use tidegate_client::install::{BootHook, SlotImage, SlotInstaller};
use tidegate_client::updater::Repository;
use tidegate_client::watch::Progress;
use tidegate_model::facts::Facts;

/// The system beneath the agent, and where it says what happens.
struct Board;

impl Host for Board {
    fn note(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::Checked(check) => println!("checked: {}", check.outcome()),
            Entry::Now(state) => println!("now: {state}"),
            Entry::Restarting => println!("restarting"),
            Entry::Problem(problem) => eprintln!("warning: {problem}"),
        }
    }

    fn progress(&mut self, at: Progress<'_>) -> ControlFlow<()> {
        eprintln!("{}: {} of {} bytes", at.name, at.done, at.total);
        ControlFlow::Continue(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let program = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let hook = Command::new(program(&["./boot-hook"]), Duration::from_secs(10)).in_folder(Path::new("."));
    let hook = BootHook::new(hook);
    let slots = SlotInstaller::new(vec![SlotImage::only("slot.a", "slot.b")], hook)?;
    let mut device = Device::builder()
        .root(std::fs::read("root.json")?)
        // On a real board: Repository::at("https://updates.example.com/fleet").
        .repository(Repository::at(&url_of(&Path::new("demo/site").canonicalize()?)?)?)
        .state_dir("state")
        .id("dev-0001".parse()?)
        .channel("stable".parse()?)
        .product("os".parse()?)
        .hardware("board-a".parse()?)
        .factory("1.0.0".parse()?, 0)
        .facts(Facts::parse(br#"{"group": "lab", "ram-mb": 1024}"#)?)
        .installer(slots)
        .open()?;
    let healthy = program(&["sh", "-c", "grep -q well slot.$(cat running)"]);
    let options = AgentOptions {
        health: Health::Command(HealthCommand {
            command: Command::new(healthy, Duration::from_secs(10)),
            within: Duration::from_secs(60),
            every: Duration::from_secs(1),
        }),
        ..AgentOptions::default()
    };
    loop {
        match Agent::new(&mut device, &options, &mut Board).check()? {
            Next::Look { after } => sleep(after),
            // A device would restart. Its next boot starts this program again, which finds the new system on trial.
            Next::Restart => {
                println!("restart the board, and start this again");
                return Ok(());
            }
            // A device would sleep until its next regular check, or until this instant if it is sooner.
            Next::Check { until } => {
                println!("nothing more to do{}", until.map(|until| format!(" until {until}")).unwrap_or_default());
                return Ok(());
            }
        }
    }
}
