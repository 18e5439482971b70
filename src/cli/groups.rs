//! The commands in groups, for the help page; and words from other tools that name a command of ours.

use clap::Command;

/// The groups in the order of the help page, each with its commands.
const GROUPS: &[(&str, &[&str])] = &[
    ("Set up", &["init", "import", "key", "ceremony"]),
    ("Release", &["release", "rollout", "receipts"]),
    ("Publish", &["publish", "refresh", "pull", "sync", "prune"]),
    ("Inspect", &["status", "explain", "doctor", "verify", "diff", "log", "site"]),
    ("Try out and install", &["demo", "serve", "completions", "man"]),
];

const BACK: &str = "devices never go back: stop the release with tidegate rollout withdraw, then replace it with tidegate release retract";
const STOP: &str = "tidegate rollout pause stops a release for now, tidegate rollout withdraw for good";

/// Words of other tools, and the commands to use instead.
const WORDS: &[(&str, &str)] = &[
    ("abort", "tidegate rollout withdraw stops a release, tidegate ceremony abort a proposal"),
    ("cancel", "tidegate rollout withdraw stops a release, tidegate ceremony abort a proposal"),
    ("deploy", "tidegate rollout start offers a release, tidegate publish makes it live"),
    ("downgrade", BACK),
    ("halt", STOP),
    ("promote", "tidegate rollout advance goes to the next cohort or share"),
    ("revert", BACK),
    ("rollback", BACK),
    ("stop", STOP),
    ("upload", "tidegate publish uploads what is new"),
];

/// Lists the commands of the help page in groups, in place of one long list.
pub(super) fn add(command: Command) -> Command {
    let header = *command.get_styles().get_header();
    let literal = *command.get_styles().get_literal();
    let line = |below: &Command| {
        let about = below.get_about().map(ToString::to_string).unwrap_or_default();
        format!("  {literal}{:<13}{literal:#}{about}\n", below.get_name())
    };
    let group = |(title, names): &(&str, &[&str])| {
        let lines: String = names.iter().filter_map(|name| command.find_subcommand(name)).map(line).collect();
        format!("{header}{title}:{header:#}\n{lines}\n")
    };
    let list: String = GROUPS.iter().map(group).collect();
    command
        .override_usage("tidegate [OPTIONS] <COMMAND>")
        .help_template(format!("{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{list}{{all-args}}\n"))
        .mut_subcommands(|below| below.hide(true))
}

/// What to use instead of a command that there is not.
pub(super) fn instead(word: &str) -> Option<&'static str> {
    WORDS.iter().find(|(name, _)| *name == word).map(|(_, remedy)| *remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_in_one_group() {
        let mut grouped: Vec<_> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        grouped.sort_unstable();
        let command = super::super::command();
        let mut all: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
        all.sort_unstable();
        assert_eq!(grouped, all);
        assert!(WORDS.iter().all(|(word, _)| !all.contains(word)));
    }

    /// Help is read in terminals of 80 columns, and examples are copied from it, so no line of them is wrapped.
    #[test]
    fn help_fits_80_columns() {
        fn check(command: &mut Command, path: &str) {
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let text = format!("{examples}\n{}", command.render_long_help());
            let wide: Vec<_> =
                text.lines().filter(|line| line.chars().count() > 80 && !line.starts_with("Usage: ")).collect();
            assert!(wide.is_empty(), "{path}: {wide:#?}");
            for below in command.get_subcommands_mut() {
                let path = format!("{path} {}", below.get_name());
                check(below, &path);
            }
        }
        let mut command = add(super::super::command());
        command.build();
        check(&mut command, "tidegate");
    }
}
