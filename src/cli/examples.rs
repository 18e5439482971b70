//! Examples for the help of commands that have none beside their flags. A test runs every one of them.

use clap::Command;

/// The command, and the lines below "Examples:".
const EXAMPLES: &[(&str, &str)] = &[
    ("ceremony abort", "tidegate ceremony abort --reason 'the new key was made on the wrong machine'"),
    ("ceremony finish", "tidegate ceremony finish"),
    ("ceremony plan add-root-key", "tidegate ceremony plan add-root-key root-4"),
    ("ceremony plan compromised", "tidegate ceremony plan compromised timestamp"),
    ("ceremony plan lost", "tidegate ceremony plan lost root-3"),
    ("ceremony plan remove-root-key", "tidegate ceremony plan remove-root-key root-3"),
    ("ceremony plan rename-holder", "tidegate ceremony plan rename-holder root-2 'holder 2'"),
    ("ceremony plan replace-online-key", "tidegate ceremony plan replace-online-key timestamp timestamp-2"),
    ("ceremony plan replace-root-key", "tidegate ceremony plan replace-root-key root-1 root-4"),
    ("ceremony plan threshold", "tidegate ceremony plan threshold root 3"),
    ("ceremony rehearse", "tidegate ceremony rehearse\ntidegate ceremony rehearse --lost root-1"),
    (
        "ceremony show",
        "tidegate ceremony show\ntidegate ceremony show ceremony.json --root root.json    (without a workspace)\n\
         tidegate ceremony show --signed-bytes root --out root.bytes",
    ),
    ("ceremony status", "tidegate ceremony status\ntidegate ceremony status ceremony.json --root root.json"),
    ("ceremony verify-transcript", "tidegate ceremony verify-transcript transcripts/*.md"),
    ("demo", "tidegate demo\ntidegate demo trial --image build/rootfs.img"),
    ("explain", "tidegate explain --device device.json"),
    ("key check", "tidegate key check\ntidegate key check rollout snapshot timestamp"),
    ("key list", "tidegate key list"),
    ("key show", "tidegate key show root-1"),
    ("log", "tidegate log\ntidegate log --verify"),
    ("prune", "tidegate prune ../public\ntidegate prune ../public --grace 60d --apply"),
    (
        "publish",
        "tidegate publish ../public --dry-run\ntidegate publish ../public\ntidegate publish ../public --site\n\
         tidegate publish       (to publish.place in tidegate.toml)",
    ),
    ("pull", "tidegate pull ../public\ntidegate -C copy pull ../public --root metadata/1.root.json      (creates one)"),
    ("refresh", "tidegate refresh && tidegate publish ../public"),
    ("release drop", "tidegate release drop 1.2.0"),
    ("release list", "tidegate release list"),
    (
        "release manifest",
        "tidegate release manifest 1.2.0\ntidegate release manifest 1.2.0 --patch-from 1.1.0\ntidegate release manifest 1.2.0 --patch-from none",
    ),
    ("release register", "tidegate release register 1.2.0"),
    ("release remove", "tidegate release remove 1.2.0 rootfs.img"),
    ("release show", "tidegate release show 1.2.0\ntidegate release show stable/os/1.2.0"),
    ("release unfreeze", "tidegate release unfreeze 1.2.0"),
    ("release validate", "tidegate release validate 1.2.0"),
    ("rollout complete", "tidegate rollout complete 1.2.0"),
    ("rollout renew", "tidegate rollout renew 1.2.0"),
    ("rollout resume", "tidegate rollout resume 1.2.0"),
    ("rollout start", "tidegate rollout start 1.2.0\ntidegate rollout start 1.2.0 --ramp 24h"),
    ("rollout status", "tidegate rollout status 1.2.0"),
    ("serve", "tidegate serve ../public --port 8000"),
    ("status", "tidegate status\ntidegate status --expiring 12h"),
    (
        "sync",
        "tidegate sync ../public ../mirror --root metadata/1.root.json --dry-run\n\
         tidegate sync ../public ../mirror --root metadata/1.root.json",
    ),
    (
        "verify",
        "tidegate verify ../public --root metadata/1.root.json\ntidegate verify https://example.com/fleet --root 1.root.json",
    ),
];

/// Adds the examples to a whole command line.
pub(super) fn add(command: Command) -> Command {
    EXAMPLES.iter().fold(command, |command, (path, lines)| {
        let names: Vec<&str> = path.split(' ').collect();
        at(command, &names, lines)
    })
}

fn at(command: Command, path: &[&str], lines: &str) -> Command {
    let Some((name, rest)) = path.split_first() else {
        // What stands beside the flags knows better.
        if command.get_after_help().is_some() {
            return command;
        }
        let indented: Vec<String> = lines.lines().map(|line| format!("  {}", line.trim_start())).collect();
        return command.after_help(format!("Examples:\n{}", indented.join("\n")));
    };
    if command.find_subcommand(name).is_none() {
        return command;
    }
    command.mut_subcommand(name, |below| at(below, rest, lines))
}
