//! `tidegate refresh`: renew what expires.

use clap::Args as ClapArgs;
use serde_json::{Map, json};

use super::context::Context;
use super::passphrase::PassphraseArgs;
use super::show;
use crate::error::Result;
use crate::report::stops::renewal;
use crate::rollout::refresh::{due, redate, refresh};
use crate::workspace::{Operation, Workspace, check_begun};

/// Renew timestamp and snapshot, and cohorts that expire soon
///
/// Also renews targets and channels near their expiry, if enough of their keys can be used and no proposal of the last week
/// would be spoiled; never root. Does not extend limited rollouts: `tidegate rollout renew` does.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Sign again what is dated later than now: another machine's clock was wrong, and this one's is right
    #[arg(long)]
    redate: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    check_begun(workspace.dir())?;
    let settings = workspace.settings()?;
    let mut ring = workspace.ring(&settings, args.passphrase.source())?;
    // No line of the ledger comes of it.
    let mut op = Operation::new(&workspace, "", cx.now, &mut ring);
    let (repository, roles) = if args.redate { redate(&mut op, &settings)? } else { refresh(&mut op, &settings)? };
    if cx.ui.is_json() {
        let expires = |role: &String| {
            let expires = repository.role(role).map(|file| tidegate_model::time::format(file.expires));
            (role.clone(), json!(expires))
        };
        return cx.ui.json(&json!({"renewed": roles.iter().map(expires).collect::<Map<_, _>>()}));
    }
    for file in roles.iter().filter_map(|role| repository.role(role)) {
        cx.ui.result(format_args!(
            "{:<12} version {}, expires {}",
            file.name,
            file.version,
            show::expiry(file.expires, cx.now)
        ))?;
    }
    for role in due(&repository, cx.now) {
        let mut how = renewal([role.name.as_str()]);
        if role.name.contains('.') {
            how += ", on a machine that has the rollout key";
        }
        cx.ui.warn(format_args!("{} expires at {}: {how}", role.name, show::expiry(role.expires, cx.now)));
    }
    let next = super::publish::live::publish_command(cx);
    cx.ui.hint(if args.redate { next.replacen("publish", "publish --redate", 1) } else { next.to_owned() });
    Ok(())
}
