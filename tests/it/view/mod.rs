//! The operator's view: the site, `status.json`, `diff`, `doctor`; and a takeover, completions and manuals.

mod busy;
mod diff;
mod doctor;
mod examples;
mod foreign;
pub mod import;
mod manual;
mod server;
mod site;
pub mod story;
mod takeover;
#[cfg(unix)]
mod terminal;
mod wrong_clock;

use server::Server;
