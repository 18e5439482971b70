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
    ("renew", "tidegate rollout renew extends a rollout, tidegate refresh renews roles that expire"),
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

/// What to use instead of a command that there is not: of that name or meaning, or of one that is nearly that. `None` if it is nearest to
/// one of `known`, what is suggested anyway.
pub(super) fn instead(command: &Command, word: &str, known: &[String]) -> Option<String> {
    let named: Vec<(String, String)> = command
        .get_subcommands()
        .flat_map(|group| {
            let name = group.get_name();
            let below = group.get_subcommands().filter(|below| below.get_name() != "help");
            let below =
                below.map(move |below| (below.get_name().to_owned(), format!("tidegate {name} {}", below.get_name())));
            std::iter::once((name.to_owned(), format!("tidegate {name}"))).chain(below)
        })
        .collect();
    let words = WORDS.iter().map(|(word, _)| *word).chain(named.iter().map(|(name, _)| name.as_str()));
    let nearest = words.min_by_key(|known| edits(word, known))?;
    if edits(word, nearest) > word.len() / 3 || known.iter().any(|known| known == nearest) {
        return None;
    }
    if let Some((_, remedy)) = WORDS.iter().find(|(name, _)| *name == nearest) {
        return Some((*remedy).to_owned());
    }
    let lines: Vec<_> = named.iter().filter(|(name, _)| name == nearest).map(|(_, line)| line.as_str()).collect();
    Some(lines.join(", or "))
}

/// How many letters differ: exchanged neighbours, left out, added or replaced ones.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(32).collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    let at = |row: Option<&Vec<usize>>, j: usize| row.and_then(|row| row.get(j)).copied().unwrap_or_default();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let above = rows.last();
            let mut best = (at(above, j + 1) + 1).min(at(Some(&row), j) + 1).min(at(above, j) + usize::from(x != y));
            let before = |letters: &[char], at: usize| at.checked_sub(1).and_then(|at| letters.get(at)).copied();
            if before(&a, i) == Some(*y) && before(&b, j) == Some(*x) {
                best = best.min(at(rows.get(i.saturating_sub(1)), j.saturating_sub(1)) + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    at(rows.last(), b.len())
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

    #[test]
    fn other_words_name_the_command_to_use() {
        let command = super::super::command();
        for (word, expected) in [
            ("pause", "tidegate rollout pause"),
            ("puase", "tidegate rollout pause"),
            ("withdraw", "tidegate rollout withdraw"),
            ("renew", "tidegate rollout renew extends a rollout, tidegate refresh renews roles that expire"),
            ("retract", "tidegate release retract"),
            ("sign", "tidegate ceremony sign, or tidegate release sign"),
            ("rolback", BACK),
            ("stop", STOP),
        ] {
            assert_eq!(instead(&command, word, &[]).as_deref(), Some(expected), "{word}");
        }
        assert_eq!(instead(&command, "statsu", &["status".to_owned()]), None);
        assert_eq!(instead(&command, "xyzzy", &[]), None);
        assert_eq!([edits("", "abc"), edits("abc", "acb"), edits("kitten", "sitting")], [3, 1, 3]);
    }

    /// Help is read in terminals of 80 columns, and examples are copied from it, so no line of them is wrapped.
    #[test]
    fn help_fits_80_columns() {
        fn check(command: &mut Command, path: &str) {
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let text = format!("{examples}\n{}", command.render_long_help());
            let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > 80).collect();
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
