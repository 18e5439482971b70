//! The help texts.

use super::command::Command;

pub(super) const VERSION: &str = concat!("tidegate-device ", env!("CARGO_PKG_VERSION"), "\n");

/// What is there with the feature `gate` alone.
#[cfg(feature = "gate")]
macro_rules! with_gate {
    ($text:literal) => {
        $text
    };
}
#[cfg(not(feature = "gate"))]
macro_rules! with_gate {
    ($text:literal) => {
        ""
    };
}

pub(super) const PROGRAM: &str = concat!(
    "\
Finds, verifies and installs signed over-the-air releases.

Usage: tidegate-device [OPTIONS] COMMAND

Commands:
  check      show what this device will do
  explain    show why, with the result of every rule
  download   fetch and verify what is to be installed
  install    fetch, verify and install it
  confirm    keep the release on trial
  reject     reject the release on trial and roll back
  defer      defer the next installation
  run        run as a service that updates the device
  status     show what is installed, without network access
",
    with_gate!("  receipts   show or send pending receipts\n"),
    "
Options:
      --config FILE             read settings from a JSON file; the options below override them
      --root FILE               the root that the device is shipped with
      --repository URL|FOLDER   the folder that holds metadata/ and targets/
      --metadata-url URL        the metadata, if it is elsewhere
      --targets-url URL         the targets, if they are elsewhere
      --state-dir FOLDER        metadata, downloads and what the device remembers
      --device-id ID            what tells this device from others
      --channel NAME            the channel to follow
      --product NAME            the product to look for
      --hardware ID             the hardware that artifacts must fit
      --factory-version V       the version the device left the factory with
      --factory-sequence N      the sequence of that version [default: 0]
      --fact NAME=VALUE         say something about the device; may be repeated
      --slot FILE               the file to install into
      --json                    print results as JSON
  -q, --quiet                   print nothing but results and errors
  -h, --help                    print this, or the help of a command
  -V, --version                 print the version

Exit codes: 0 done, or nothing to do; 1 refused or failed; 2 wrong usage; 3 standard output was closed; 255 a bug.

Examples:
  tidegate-device --config /etc/tidegate/device.json check
  tidegate-device --config /etc/tidegate/device.json install --json

A settings file contains the same names with underscores, and what has no option: installer, trial, policy, poll, network,
reserve, system_facts, facts_file, facts_program",
    with_gate!(", receipts, gate"),
    ". Its paths are relative to its folder:
  {
    \"root\": \"root.json\",
    \"repository\": \"https://updates.example.com\",
    \"state_dir\": \"/var/lib/tidegate\",
    \"device_id\": \"dev-0001\", \"channel\": \"stable\", \"product\": \"os\", \"hardware\": \"board-a\",
    \"factory_version\": \"1.0.0\",
    \"facts\": {\"group\": \"lab\"},
    \"slot\": \"/var/lib/images/next.img\"
  }
"
);

const CHECK: &str = "\
Says what this device is to do: install, wait, or keep what it has. Installs nothing.

Usage: tidegate-device [OPTIONS] check

An unchanged repository costs two requests.

Examples:
  tidegate-device --config device.json check
  tidegate-device --config device.json check --json
";

const EXPLAIN: &str = concat!(
    "\
Says what this device is to do, and why: its cohort, what is offered, and the outcome of every rule.

Usage: tidegate-device [OPTIONS] explain [--at TIME] [--fact NAME=VALUE]...

Options:
      --at TIME                 decide as if it were this time, such as 2026-01-05T18:00:00Z
      --fact NAME=VALUE         decide as if this were so
",
    with_gate!("                                attestation=tpm2, ear or none: as if it had such an attestor\n"),
    "
Examples:
  tidegate-device --config device.json explain
  tidegate-device --config device.json explain --at 2026-01-05T18:00:00Z
  tidegate-device --config device.json explain --fact ram-mb=512
",
    with_gate!("  tidegate-device --config device.json explain --fact attestation=tpm2\n")
);

const DOWNLOAD: &str = "\
Fetches and verifies what is to be installed, and prints where it is. Resumes what was begun.

Usage: tidegate-device [OPTIONS] download

Examples:
  tidegate-device --config device.json download
";

const INSTALL: &str = "\
Fetches, verifies and installs what this device is to run. Does nothing if that is what it has.

Usage: tidegate-device [OPTIONS] install [--now]

Options:
      --now                     do it now, whatever the device's own policy says

What runs is not touched; at every instant the device starts what it had, or the whole new release. What download fetched
is used. The new release is on trial until confirm, or until the health command of the settings says that it is well.

Examples:
  tidegate-device --config device.json install
  tidegate-device --config device.json install --slot /dev/shm/next.img
";

const CONFIRM: &str = "\
Says that the release on trial works. It stays from now on.

Usage: tidegate-device [OPTIONS] confirm

Examples:
  tidegate-device --config device.json confirm
";

const REJECT: &str = "\
Says that the release on trial, or about to be, does not work. The device goes back to what it ran before, and never takes
that release again.

Usage: tidegate-device [OPTIONS] reject

Examples:
  tidegate-device --config device.json reject
";

const DEFER: &str = "\
Puts off the release that is about to be installed. The device's policy says for how long that may be.

Usage: tidegate-device [OPTIONS] defer TIME

TIME is a whole number and s, m, h or d, from now on.

Examples:
  tidegate-device --config device.json defer 4h
";

const RUN: &str = "\
Stays, checks regularly, installs when the policy allows it, and sees new releases through their trial, or back.

Usage: tidegate-device [OPTIONS] run

SIGHUP and SIGUSR1 make it check now; SIGTERM and SIGINT stop it. Stopped at any instant, it goes on where it was. It says
what happens on standard error, or with --json as one JSON object a line on standard output. It reports to systemd
(Type=notify, WatchdogSec). Settings and facts are read anew before every check.

Examples:
  tidegate-device --config /etc/tidegate/device.json run
  systemctl kill --signal=USR1 tidegate-device
";

const STATUS: &str = "\
Shows what is installed, where an update stands and why, and what is quarantined. Asks nobody, and changes nothing: also
while another process works.

Usage: tidegate-device [OPTIONS] status

Examples:
  tidegate-device --config device.json status --json
";

#[cfg(feature = "gate")]
const RECEIPTS: &str = "\
Shows the receipts that wait: what became of releases on this device, signed by it. They are sent by run and at the end of install, confirm
and reject, to where the settings say: \"receipts\": {\"to\": .., \"key\": .., \"device\": ..}

Usage: tidegate-device [OPTIONS] receipts [--send]

Options:
      --send                    send them now, although a failure asked for patience

Examples:
  tidegate-device --config device.json receipts
  tidegate-device --config device.json receipts --send --json
";

pub(super) fn of(command: Command) -> &'static str {
    match command {
        Command::Check => CHECK,
        Command::Explain => EXPLAIN,
        Command::Download => DOWNLOAD,
        Command::Install => INSTALL,
        Command::Confirm => CONFIRM,
        Command::Reject => REJECT,
        Command::Defer => DEFER,
        Command::Run => RUN,
        Command::Status => STATUS,
        #[cfg(feature = "gate")]
        Command::Receipts | Command::SendReceipts => RECEIPTS,
    }
}
