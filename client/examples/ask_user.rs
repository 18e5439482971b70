//! An update agent that asks: "update available: version, size, notes". The user may install it now, postpone it, or let the device restart later.
//!
//! ```text
//! tidegate demo                                     makes a repository in demo/site
//! cargo run --example ask_user                      n: not now, l: later (as long as the policy allows), anything else: now
//! ```

use std::io::{BufRead, Write};
use std::path::Path;

use tidegate_client::agent::{Agent, AgentOptions, Entry, Host, Next, Permission, Stage};
use tidegate_client::device::{Device, Update};
use tidegate_client::fetch::file::url_of;
use tidegate_client::install::FileSlot;
use tidegate_client::model::facts::Facts;
use tidegate_client::model::span::Span;
use tidegate_client::model::time;
use tidegate_client::policy::Policy;
use tidegate_client::updater::Repository;

/// A user at a terminal.
struct Terminal<R, W> {
    answers: R,
    screen: W,
    /// What the user was asked about last, and whether it was refused.
    later: Option<Update>,
}

impl<R: BufRead, W: Write> Terminal<R, W> {
    fn ask(&mut self, question: &str) -> String {
        let _ = write!(self.screen, "{question} ").and_then(|()| self.screen.flush());
        let mut answer = String::new();
        let _ = self.answers.read_line(&mut answer);
        answer.trim().to_owned()
    }

    fn say(&mut self, text: &str) {
        let _ = writeln!(self.screen, "{text}");
    }
}

impl<R: BufRead, W: Write> Host for Terminal<R, W> {
    fn may(&mut self, stage: Stage<'_>) -> Permission {
        let answer = match stage {
            Stage::Download(update) => {
                self.say(&format!("Update available: version {}, {} bytes", update.release.version, update.length()));
                self.say(&format!("{} bytes are still to be fetched; urgency: {}", update.to_fetch, update.urgency));
                for note in &update.notes {
                    self.say(&format!("  - {note}"));
                }
                self.ask("Install it? [now, n: not now, l: later]")
            }
            Stage::Restart(release) => {
                self.ask(&format!("Restart into version {}? [now, n: not now]", release.version))
            }
            _ => return Permission::Go,
        };
        if let (Stage::Download(update), "l") = (stage, answer.as_str()) {
            self.later = Some(update.clone());
        }
        if matches!(answer.as_str(), "n" | "l") { Permission::NotNow { until: None } } else { Permission::Go }
    }

    fn note(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::Now(state) => self.say(&format!("now: {state}")),
            Entry::Problem(problem) => self.say(&format!("warning: {problem}")),
            _ => {}
        }
    }
}

/// Checks once, and does what the user wants.
pub fn converse(
    device: &mut Device,
    answers: impl BufRead,
    screen: impl Write,
) -> Result<Next, tidegate_client::Error> {
    let mut user = Terminal { answers, screen, later: None };
    let next = Agent::new(device, &AgentOptions::default(), &mut user).check()?;
    if let Some(update) = user.later.take() {
        // As long as the policy lets users postpone this release, and not at all where it does not.
        let tomorrow = time::after(device.now(), Span::hours(24));
        match device.defer(&update, tomorrow) {
            Ok(deferral) => user.say(&format!("postponed until {}", time::format(deferral.until))),
            Err(error) => user.say(&format!("not postponed: {error}")),
        }
    }
    Ok(next)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let demo = Path::new("demo");
    let mut device = Device::builder()
        .root(std::fs::read(demo.join("fleet/metadata/1.root.json"))?)
        .repository(Repository::at(&url_of(&demo.join("site").canonicalize()?)?)?)
        .state_dir("state")
        .id("dev-0001".parse()?)
        .channel("stable".parse()?)
        .product("os".parse()?)
        .hardware("board-a".parse()?)
        .factory("1.0.0".parse()?, 0)
        .facts(Facts::parse(br#"{"group": "lab", "ram-mb": 1024}"#)?)
        .policy(Policy::new().with_deferral_limit("7d".parse()?))
        .installer(FileSlot::new("slot.img"))
        .open()?;
    let next = converse(&mut device, std::io::stdin().lock(), std::io::stdout())?;
    println!("next: {next:?}");
    Ok(())
}
