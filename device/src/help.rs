//! The help texts.

use super::command::Command;

pub(super) const VERSION: &str = concat!("tidegate-device ", env!("CARGO_PKG_VERSION"), "\n");

pub(super) const PROGRAM: &str = "\
Finds, verifies and installs signed over-the-air releases.

Usage: tidegate-device [OPTIONS] COMMAND

Commands:
  check      show what this device will do
  explain    show why, with the result of every rule
  download   download and verify the release to be installed
  install    download, verify and install it
  confirm    keep the release on trial
  reject     reject the release on trial and roll back
  defer      defer the next installation
  doctor     check settings, hooks, space, clock, network and state
  quarantine list the releases that failed here, or let one be tried again
  run        run as a service that updates the device
  status     show what is installed, without network access
  receipts   show or send pending receipts (feature gate)

Options:
      --config FILE             read settings from a JSON file; the options below override them
      --root FILE               the trusted root that the device was shipped with
      --repository URL|FOLDER   the folder that contains metadata/ and targets/
      --metadata-url URL        the metadata, if it is elsewhere
      --targets-url URL         the targets, if they are elsewhere
      --state-dir FOLDER        the folder for metadata, downloads and the device's state
      --device-id ID            the unique ID of this device
      --channel NAME            the channel to follow
      --product NAME            the product to update
      --hardware ID             the hardware that artifacts must fit
      --factory-version V       the version the device left the factory with
      --factory-sequence N      the sequence of that version [default: 0]
      --fact NAME=VALUE         add a fact about the device; may be repeated
      --slot FILE               the file to install into
      --json                    print results as JSON
  -q, --quiet                   print only results and errors
  -v, --verbose                 log requests and steps; -vv logs more. TIDEGATE_LOG=debug and =trace do the same
  -h, --help                    print this help, or that of a command
  -V, --version                 print the version

Exit codes: 0 done, or nothing to do; 1 refused or failed; 2 usage error; 3 standard output was closed; 255 internal error.

Examples:
  tidegate-device --config /etc/tidegate/device.json check
  tidegate-device --config /etc/tidegate/device.json install --json

A settings file uses the same names with underscores, and has settings without an option: installer, trial, policy, poll,
network, reserve, keep_fallback, system_facts, facts_file, facts_program; with the feature gate also receipts and gate.
Its paths are relative to its folder:
  {
    \"root\": \"root.json\",
    \"repository\": \"https://updates.example.com\",
    \"state_dir\": \"/var/lib/tidegate\",
    \"device_id\": \"dev-0001\", \"channel\": \"stable\", \"product\": \"os\", \"hardware\": \"board-a\",
    \"factory_version\": \"1.0.0\",
    \"facts\": {\"group\": \"lab\"},
    \"slot\": \"/var/lib/images/next.img\"
  }
";

const CHECK: &str = "\
Shows what this device will do: install a release, wait, or keep what it runs. Installs nothing.

Usage: tidegate-device [OPTIONS] check

An unchanged repository costs two requests.

Examples:
  tidegate-device --config device.json check
  tidegate-device --config device.json check --json
";

const EXPLAIN: &str = "\
Shows what this device will do and why: its cohort, what is offered, and the result of every rule.

Usage: tidegate-device [OPTIONS] explain [--at TIME] [--fact NAME=VALUE]...

Options:
      --at TIME                 decide as if it were this time, such as 2026-01-05T18:00:00Z
      --fact NAME=VALUE         decide as if the device had this fact. attestation=tpm2, ear or none stands for
                                an attestor of that kind

Examples:
  tidegate-device --config device.json explain
  tidegate-device --config device.json explain --at 2026-01-05T18:00:00Z
  tidegate-device --config device.json explain --fact ram-mb=512
  tidegate-device --config device.json explain --fact attestation=tpm2
";

const DOWNLOAD: &str = "\
Downloads and verifies the release to be installed: into the slot that does not
run, or into the state folder. Prints its path. Resumes an interrupted download.

Usage: tidegate-device [OPTIONS] download

Examples:
  tidegate-device --config device.json download
";

const INSTALL: &str = "\
Downloads, verifies and installs the release this device should run. Does nothing if the device already runs it.

Usage: tidegate-device [OPTIONS] install [--now]

Options:
      --now                     install now, ignoring the device's own policy

The running system is not changed. If the device stops at any time, it starts either the old release or the complete new
one. A finished download is used. After the restart, install again: where the settings have a health command, it waits
until that succeeds or its time is over, and confirms the release or rolls back; otherwise confirm or reject decides.

Examples:
  tidegate-device --config device.json install
  tidegate-device --config device.json install --slot /dev/shm/next.img
";

const CONFIRM: &str = "\
Confirms that the release on trial works, and keeps it.

Usage: tidegate-device [OPTIONS] confirm

Examples:
  tidegate-device --config device.json confirm
";

const REJECT: &str = "\
Rejects the release that is on trial or about to be. The device rolls back and never installs that release again.

Usage: tidegate-device [OPTIONS] reject

Examples:
  tidegate-device --config device.json reject
";

const DEFER: &str = "\
Defers the next installation, as far as the device's policy lets the user: policy.deferral.limit, counted from the first
time. A security release cannot be deferred unless the policy says so.

Usage: tidegate-device [OPTIONS] defer TIME

TIME is a duration from now, such as 4h or '1d 12h'.

Examples:
  tidegate-device --config device.json defer 4h
";

const DOCTOR: &str = "\
Checks that this device can be updated: its settings, hooks, space, clock, network and state. Names each problem with its
remedy. Installs nothing, and works while another process updates the device. Exits with 1 if something is wrong.

Usage: tidegate-device [OPTIONS] doctor

Of the hooks it calls running; it looks for the other programs without running them.

Examples:
  tidegate-device --config device.json doctor
";

const QUARANTINE: &str = "\
Lists the releases that failed on this device and are not tried again, or lets one be tried again.

Usage: tidegate-device [OPTIONS] quarantine [list]
       tidegate-device [OPTIONS] quarantine lift VERSION

Examples:
  tidegate-device --config device.json quarantine
  tidegate-device --config device.json quarantine lift 1.2.0
";

const RUN: &str = "\
Runs as a service: checks regularly, installs when the policy allows it, confirms new releases that are healthy, and rolls
back the others.

Usage: tidegate-device [OPTIONS] run

SIGHUP and SIGUSR1 start a check; SIGTERM and SIGINT stop the service. It may be stopped at any time and continues where it
was. It logs to standard error, or with --json as one JSON object a line to standard output. It notifies systemd
(Type=notify, WatchdogSec). It reads settings and facts again before every check.

Examples:
  tidegate-device --config /etc/tidegate/device.json run
  systemctl kill --signal=USR1 tidegate-device
";

const STATUS: &str = "\
Shows what is installed, the state of an update, what is quarantined, and every offer that the last check found, with what becomes of it.
Uses no network and changes nothing, and works while another process updates the device.

Usage: tidegate-device [OPTIONS] status

Examples:
  tidegate-device --config device.json status --json
";

const RECEIPTS: &str = "\
Shows pending receipts: install results, signed by this device. run sends them, and install, confirm and reject do when
they end. The settings say where to: \"receipts\": {\"to\": .., \"key\": .., \"device\": ..}. Needs the feature gate.

Usage: tidegate-device [OPTIONS] receipts [--send]

Options:
      --send                    send them now, without waiting after a failure

Examples:
  tidegate-device --config device.json receipts
  tidegate-device --config device.json receipts --send --json
";

/// The help of a command.
pub(super) fn of(command: Command) -> &'static str {
    match command {
        Command::Check => CHECK,
        Command::Explain => EXPLAIN,
        Command::Download => DOWNLOAD,
        Command::Install => INSTALL,
        Command::Confirm => CONFIRM,
        Command::Reject => REJECT,
        Command::Defer => DEFER,
        Command::Doctor => DOCTOR,
        Command::Quarantine => QUARANTINE,
        Command::Run => RUN,
        Command::Status => STATUS,
        Command::Receipts | Command::SendReceipts => RECEIPTS,
    }
}
