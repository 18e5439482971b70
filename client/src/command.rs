//! Running other programs: hooks, installers, health checks, sources of facts. Each has a time limit.
//!
//! All of them are started here: with an environment of a few variables, so that no program inherits a passphrase or token, and never from
//! the caller's folder.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf, is_separator};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{debug, trace};

use crate::disk::Disk;
use crate::watch::{Cancel, Cancelled};

/// The maximum length kept of each output of a program.
const MOST_OUTPUT: u64 = 64 * 1024;
/// The time between the request to end and the kill.
const GRACE: Duration = Duration::from_secs(2);
/// The same, if the caller ended it.
const HURRY: Duration = Duration::from_millis(300);
/// The variables that every program inherits, beside `PATH` and those whose names start with `LC_`.
const INHERITED: [&str; 9] = ["HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM", "SystemRoot"];
/// Where programs are searched for if `PATH` names no folder.
const SEARCH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A program to start, with an environment of a few variables: `HOME`, `USER`, `LOGNAME`, `LANG`, `LANGUAGE`, `LC_*`, `TZ`, `TMPDIR`, `TERM`,
/// and `PATH` without elements that are empty or relative.
pub fn with_clean_environment(program: impl AsRef<OsStr>) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    let inherited =
        |name: &OsString| name.to_str().is_some_and(|name| name.starts_with("LC_") || INHERITED.contains(&name));
    command.env_clear().envs(env::vars_os().filter(|(name, _)| inherited(name))).env("PATH", search_path());
    command
}

/// `PATH` without elements that are empty or relative: they stand for the caller's folder.
fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::join_paths(env::split_paths(&path).filter(|folder| folder.is_absolute()));
    folders.ok().filter(|folders| !folders.is_empty()).unwrap_or_else(|| SEARCH.into())
}

/// A program to run, with arguments, variables and a time limit.
#[derive(Debug, Clone)]
pub struct Command {
    words: Vec<String>,
    variables: Vec<(String, String)>,
    input: Vec<u8>,
    limit: Duration,
    folder: Option<PathBuf>,
    disk: Disk,
    cancel: Cancel,
}

/// The result of a program that ran to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The program.
    pub program: String,
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed to standard output, at most 64 KiB of it.
    pub output: String,
    /// What it printed to standard error, at most 64 KiB of it.
    pub errors: String,
}

/// Why a program failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It could not be started.
    #[error("{program}: cannot be run: {source}")]
    Start {
        /// The program.
        program: String,
        /// The system's error.
        source: io::Error,
    },
    /// The caller ended it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// It reached its time limit and was killed with its child processes.
    #[error("{program}: killed, because it took longer than {limit:?}")]
    TooLong {
        /// The program.
        program: String,
        /// The time limit.
        limit: Duration,
    },
    /// It ended with a nonzero exit code, or by a signal.
    #[error("{program}: {}{complaint}", match code { Some(code) => format!("exit code {code}"), None => "ended by a signal".into() })]
    Failed {
        /// The program.
        program: String,
        /// Its exit code; `None` if a signal ended it.
        code: Option<i32>,
        /// The last line of its standard error, after a colon; empty if there was none.
        complaint: String,
    },
}

impl Command {
    /// A program with its first arguments and its time limit: an absolute path, or a name that is searched for in `PATH`.
    pub fn new(words: impl IntoIterator<Item = String>, limit: Duration) -> Self {
        let words = words.into_iter().collect();
        Self {
            words,
            variables: Vec::new(),
            input: Vec::new(),
            limit,
            folder: None,
            disk: Disk::new(),
            cancel: Cancel::new(),
        }
    }

    /// The same, running in this folder, which a relative path of the program starts at.
    #[must_use]
    pub fn in_folder(self, folder: &Path) -> Self {
        Self { folder: env::current_dir().ok().map(|here| here.join(folder)), ..self }
    }

    /// The same, with this time limit if it is shorter.
    #[must_use]
    pub fn at_most(self, limit: Duration) -> Self {
        Self { limit: self.limit.min(limit), ..self }
    }

    /// The same, ended by this token.
    #[must_use]
    pub fn until(self, cancel: &Cancel) -> Self {
        Self { cancel: cancel.clone(), ..self }
    }

    /// The same, counted among the steps of this disk.
    #[must_use]
    pub fn on(self, disk: Disk) -> Self {
        Self { disk, ..self }
    }

    /// The same, with these arguments after its own.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.words.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// The same, with one more variable in its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same, with these variables of this process, if they are set.
    #[must_use]
    pub fn inherit(mut self, names: &[String]) -> Self {
        self.variables.extend(names.iter().filter_map(|name| Some((name.clone(), env::var(name).ok()?))));
        self
    }

    /// The same, with these bytes on its standard input, which is empty by default.
    #[must_use]
    pub fn input(mut self, bytes: Vec<u8>) -> Self {
        self.input = bytes;
        self
    }

    /// The same, with paths substituted for words such as `{folder}`.
    #[must_use]
    pub fn with_paths(&self, replacements: &[(&str, &Path)]) -> Self {
        let replaced = |word: &String| {
            let found = replacements.iter().find(|(name, _)| name == word);
            found.map_or_else(|| word.clone(), |(_, path)| path.display().to_string())
        };
        Self { words: self.words.iter().map(replaced).collect(), ..self.clone() }
    }

    /// The program.
    pub fn program(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The program's path, or the name that is searched for.
    fn path(&self) -> io::Result<PathBuf> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
        let first = self.words.first().ok_or_else(|| wrong("no program is named"))?;
        if !first.contains(is_separator) {
            return Ok(first.into());
        }
        let path = self.folder.as_deref().unwrap_or(Path::new("")).join(first);
        if path.is_relative() { Err(wrong("its path must be absolute")) } else { Ok(path) }
    }

    /// Why the program cannot be run, as far as that shows without running it.
    pub fn missing(&self) -> Option<String> {
        let path = match self.path() {
            Ok(path) => path,
            Err(e) => return Some(e.to_string()),
        };
        let found = if path.is_absolute() {
            is_program(&path)
        } else {
            env::split_paths(&search_path()).any(|folder| is_program(&folder.join(&path)))
        };
        (!found).then(|| format!("{}: there is no such program", path.display()))
    }

    /// Runs the program to its end.
    ///
    /// It has its own process group, so that its child processes can be ended with it.
    ///
    /// # Errors
    ///
    /// If it cannot be started or reaches its time limit. A nonzero exit code is not an error here.
    pub fn run(&self) -> Result<Ran, CommandError> {
        trace!(program = self.program(), arguments = self.words.len().saturating_sub(1), "starting a program");
        let started = Instant::now();
        let result = self.run_to_end();
        let milliseconds = started.elapsed().as_millis();
        match &result {
            Ok(ran) => debug!(program = self.program(), code = ran.code, milliseconds, "ran a program"),
            Err(CommandError::TooLong { .. }) => {
                debug!(program = self.program(), milliseconds, "ended a program that took too long");
            }
            Err(_) => debug!(program = self.program(), "could not run a program"),
        }
        result
    }

    fn run_to_end(&self) -> Result<Ran, CommandError> {
        let program = self.program().to_owned();
        let start = |source| CommandError::Start { program: program.clone(), source };
        self.cancel.check()?;
        self.disk.call().map_err(start)?;
        let rest = self.words.get(1..).unwrap_or_default();
        let mut command = with_clean_environment(self.path().map_err(start)?);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.args(rest).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(if self.input.is_empty() { Stdio::null() } else { Stdio::piped() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let started = Instant::now();
        let mut child = command.spawn().map_err(start)?;
        write_along(child.stdin.take(), self.input.clone());
        let output = read_along(child.stdout.take());
        let errors = read_along(child.stderr.take());
        let Some(status) = wait(&mut child, started, self.limit, &self.cancel).map_err(start)? else {
            end(&mut child, if self.cancel.is_cancelled() { HURRY } else { GRACE });
            self.cancel.check()?;
            return Err(CommandError::TooLong { program, limit: self.limit });
        };
        // Child processes may keep the outputs open; the wait for them has the same time limit.
        let left = self.limit.saturating_sub(started.elapsed()).min(GRACE);
        let collect = |from: Receiver<Vec<u8>>| {
            String::from_utf8_lossy(&from.recv_timeout(left).unwrap_or_default()).into_owned()
        };
        Ok(Ran { program, code: status.code(), output: collect(output), errors: collect(errors) })
    }
}

impl Ran {
    /// What it printed to standard output.
    ///
    /// # Errors
    ///
    /// [`CommandError::Failed`] unless it ended with exit code 0.
    pub fn success(self) -> Result<String, CommandError> {
        if self.code == Some(0) {
            return Ok(self.output);
        }
        let complaint = match self.complaint() {
            line if line.is_empty() => line,
            line => format!(": {line}"),
        };
        Err(CommandError::Failed { program: self.program, code: self.code, complaint })
    }

    /// The last line that it printed to standard error, at most 200 characters of it.
    pub fn complaint(&self) -> String {
        let line = self.errors.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        line.chars().filter(|c| !c.is_control()).take(200).collect()
    }
}

impl CommandError {
    /// The stable name of this kind of error, one of [those of all errors](crate::Error::code).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Start { .. } => "command-start",
            Self::Cancelled(_) => "cancelled",
            Self::TooLong { .. } => "command-too-long",
            Self::Failed { .. } => "command-failed",
        }
    }

    /// A call stopped by an injected fault.
    pub(crate) fn stopped(source: io::Error) -> Self {
        Self::Start { program: "boot".into(), source }
    }
}

fn is_program(path: &Path) -> bool {
    #[cfg(unix)]
    let may_run =
        |found: &std::fs::Metadata| std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let may_run = |_: &std::fs::Metadata| true;
    path.metadata().is_ok_and(|found| found.is_file() && may_run(&found))
}

/// Waits for the end; `None` after the time limit, or once it is cancelled.
fn wait(
    child: &mut Child,
    started: Instant,
    limit: Duration,
    cancel: &Cancel,
) -> io::Result<Option<std::process::ExitStatus>> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = limit.saturating_sub(started.elapsed());
        if left.is_zero() || cancel.sleep(pause.min(left)).is_err() {
            return Ok(None);
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Ends a program with its child processes: first with a request, then with a kill.
fn end(child: &mut Child, grace: Duration) {
    signal(child, End::Ask);
    if !matches!(wait(child, Instant::now(), grace, &Cancel::new()), Ok(Some(_))) {
        let _ = child.kill();
    }
    // Also when the program itself has ended: its child processes may still run.
    signal(child, End::Kill);
    let _ = child.wait();
}

#[derive(Clone, Copy)]
enum End {
    Ask,
    Kill,
}

#[cfg(unix)]
fn signal(child: &Child, end: End) {
    use rustix::process::{Pid, Signal, kill_process_group};
    let signal = match end {
        End::Ask => Signal::TERM,
        End::Kill => Signal::KILL,
    };
    // It does not matter if the group no longer exists.
    let _ = kill_process_group(Pid::from_child(child), signal);
}

#[cfg(not(unix))]
fn signal(_: &Child, _: End) {}

/// Writes the input while the program runs, because a program that does not read it must not block this one.
fn write_along(to: Option<ChildStdin>, bytes: Vec<u8>) {
    if let Some(mut to) = to {
        // The program need not read all of it.
        thread::spawn(move || to.write_all(&bytes));
    }
}

/// Reads an output to its end and keeps the first part, because a full pipe would block the program.
fn read_along(from: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut from) = from {
            let _ = (&mut from).take(MOST_OUTPUT).read_to_end(&mut kept);
            let _ = send.send(kept);
            let _ = io::copy(&mut from, &mut io::sink());
        }
    });
    receive
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str, limit: u64) -> Command {
        Command::new(["sh", "-c", script].map(String::from), Duration::from_millis(limit))
    }

    #[test]
    fn what_a_program_says_is_kept() {
        let ran = shell("echo $1 $NAME; echo bad >&2; echo worse >&2; exit 3", 5000)
            .arguments(&["zero", "one"])
            .variable("NAME", "value")
            .run()
            .unwrap();
        assert_eq!((ran.code, ran.output.as_str(), ran.errors.as_str()), (Some(3), "one value\n", "bad\nworse\n"));
        assert_eq!(ran.success().unwrap_err().to_string(), "sh: exit code 3: worse");
        assert_eq!(shell("echo fine", 5000).run().unwrap().success().unwrap(), "fine\n");
    }

    #[test]
    fn a_hanging_program_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let script = format!("(sleep 1.5; echo late > {}) & sleep 60", mark.display());
        let started = Instant::now();
        let error = shell(&script, 200).run().unwrap_err();
        assert!(matches!(error, CommandError::TooLong { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(3));
        thread::sleep(Duration::from_millis(1800));
        assert!(!mark.exists(), "what it started goes on");
    }

    #[test]
    fn a_program_that_does_not_listen_is_killed() {
        let started = Instant::now();
        let error = shell("trap '' TERM; while true; do sleep 0.1; done", 100).run().unwrap_err();
        assert!(matches!(error, CommandError::TooLong { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn output_is_bounded() {
        let ran = shell("head -c 1000000 /dev/zero; echo done >&2", 10_000).run().unwrap();
        assert_eq!((ran.code, ran.output.len(), ran.errors.as_str()), (Some(0), 65_536, "done\n"));
    }

    #[test]
    fn input_is_passed_to_programs() {
        let long = vec![b'x'; 1_000_000];
        assert_eq!(shell("wc -c", 10_000).input(long.clone()).run().unwrap().output.trim(), "1000000");
        assert_eq!(shell("exec <&-; echo fine", 10_000).input(long).run().unwrap().output, "fine\n");
    }

    #[test]
    fn what_is_left_running_is_not_waited_for() {
        let started = Instant::now();
        assert_eq!(shell("sleep 30 & echo here", 400).run().unwrap().code, Some(0));
        assert!(started.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Command::new(["/no/such/program".into()], Duration::from_secs(1)).run().unwrap_err();
        assert!(error.to_string().starts_with("/no/such/program: cannot be run"), "{error}");
        assert!(Command::new([], Duration::from_secs(1)).run().is_err());
        let error = Command::new(["./program".into()], Duration::from_secs(1)).run().unwrap_err();
        assert!(error.to_string().contains("must be absolute"), "{error}");
    }
}
