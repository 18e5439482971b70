//! Talking to people and to scripts: results on stdout, everything else on stderr.
//!
//! All that is printed passes here, and here the text of others is escaped: what is printed as one line stays one line, whatever names,
//! notes, servers and files put into it. Messages show URLs without user, password and query.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tidegate_model::text::{lines, one_line, public_urls};

use crate::error::{Error, Result};

/// Progress bars appear only when the work takes longer than this.
const PATIENCE: Duration = Duration::from_millis(250);
/// And are drawn at most this often.
const FRAMES_PER_SECOND: u8 = 30;

/// Where a command's words go.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Ui {
    json: bool,
    quiet: bool,
    /// No hints: what comes next is told otherwise.
    guided: bool,
    /// No results: the one result is told at the end.
    silent: bool,
    /// The workspace, where it is not the folder that commands run in: hints must name it.
    dir: Option<PathBuf>,
    style: Style,
}

impl Ui {
    /// A `Ui` on the process's stdout and stderr. `json`: results are JSON; `quiet`: no status, no hints.
    pub fn new(json: bool, quiet: bool) -> Self {
        let colour = io::stderr().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|value| value != "dumb");
        Self { json, quiet, guided: false, silent: false, dir: None, style: Style { colour } }
    }

    /// The same for commands on the workspace `dir`.
    #[must_use]
    pub fn on(self, dir: &Path) -> Self {
        Self { dir: (dir != Path::new(".")).then(|| dir.to_owned()), ..self }
    }

    /// The same for a command that is one step of a longer one: in text and without hints, or, where the longer one gives JSON,
    /// without a word.
    #[must_use]
    pub fn for_steps(&self) -> Self {
        let silent = self.silent || self.json;
        Self {
            json: false,
            quiet: self.quiet || silent,
            guided: true,
            silent,
            dir: self.dir.clone(),
            style: self.style,
        }
    }

    /// The same without status.
    #[must_use]
    pub fn quieter(&self) -> Self {
        Self { quiet: true, ..self.for_steps() }
    }

    /// Whether the command is one step of a longer one.
    pub fn is_step(&self) -> bool {
        self.guided
    }

    /// Whether results are wanted as JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether status is unwanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// How to emphasise words on stderr.
    pub fn style(&self) -> Style {
        self.style
    }

    /// Prints one line of the result.
    ///
    /// # Errors
    ///
    /// Fails if standard output cannot be written.
    pub fn result(&self, text: impl fmt::Display) -> Result<()> {
        self.print(&one_line(&text.to_string()))
    }

    /// Prints lines of the result, which whoever laid them out has kept apart.
    ///
    /// # Errors
    ///
    /// Fails if standard output cannot be written.
    pub fn block(&self, text: impl fmt::Display) -> Result<()> {
        self.print(&lines(&text.to_string()))
    }

    fn print(&self, text: &str) -> Result<()> {
        if self.silent {
            return Ok(());
        }
        writeln!(io::stdout().lock(), "{text}").map_err(|e| Error::io("write", Path::new("stdout"), e))
    }

    /// Prints a line of the result; on a terminal too narrow for it, folded between words, with what follows indented by `indent`.
    ///
    /// # Errors
    ///
    /// Fails if standard output cannot be written.
    pub fn folded(&self, line: &str, indent: usize) -> Result<()> {
        match terminal_size::terminal_size_of(io::stdout()) {
            Some((terminal_size::Width(columns), _)) => self.block(fold(&one_line(line), usize::from(columns), indent)),
            None => self.result(line),
        }
    }

    /// Prints the result as JSON, indented.
    ///
    /// # Errors
    ///
    /// Fails if the value cannot be serialized, or if standard output cannot be written.
    pub fn json(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(|e| Error::bug(format!("result as JSON: {e}")))?;
        self.block(text)
    }

    /// Says in one line what is being done or has been done.
    pub fn status(&self, text: impl fmt::Display) {
        self.painted(message(&text));
    }

    /// Says it in lines, which whoever laid them out has kept apart.
    pub fn status_block(&self, text: impl fmt::Display) {
        self.painted(lines(&public_urls(&text.to_string())));
    }

    /// Says it with emphasis, as [`Style`] makes it: in words of the program's own, or in text that is escaped already.
    pub fn painted(&self, text: impl fmt::Display) {
        if !self.quiet {
            // Status that nobody can see must not stop the work.
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// Says what may need attention, though the work goes on. Not silenced by `--quiet`.
    pub fn warn(&self, text: impl fmt::Display) {
        if self.silent {
            return;
        }
        let _ = writeln!(io::stderr().lock(), "{} {}", self.style.yellow("warning:"), message(&text));
    }

    /// Says why a command fails, and what to do about it.
    pub fn error(&self, why: &str, remedy: Option<&str>) {
        // What quotes several lines, such as those of a settings file, shows them indented.
        let shown = |text| lines(&public_urls(text)).replace('\n', "\n  ");
        // Nothing is left to report a failure of this to.
        let _ = writeln!(io::stderr().lock(), "{} {}", self.style.red("error:"), shown(why));
        if let Some(remedy) = remedy {
            let _ = writeln!(io::stderr().lock(), "{} {}", self.style.cyan("help:"), shown(remedy));
        }
    }

    /// Names the command that comes next, starting with `tidegate`. Where the workspace was given with `-C`, so it is in
    /// the hint of a command that works on it.
    pub fn hint(&self, text: impl fmt::Display) {
        if !self.quiet && !self.json && !self.guided {
            let text = self.on_workspace(&text.to_string());
            let _ = writeln!(io::stderr().lock(), "{} {}", self.style.cyan("next:"), message(&text));
        }
    }

    /// A command as it is to be typed where this one was: where the workspace was given with `-C`, so it is again.
    pub fn on_workspace(&self, command: &str) -> String {
        match (&self.dir, command.strip_prefix("tidegate ")) {
            (Some(dir), Some(rest)) if !["-C", "verify", "serve"].iter().any(|word| rest.starts_with(word)) => {
                format!("tidegate -C {} {rest}", dir.display())
            }
            _ => command.to_owned(),
        }
    }

    /// A bar over `length` bytes, shown on a terminal when the work takes long.
    pub fn progress_bytes(&self, length: u64, what: &str) -> Progress {
        self.progress(Some(length), what, "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left")
    }

    /// A bar over `length` items, shown on a terminal when the work takes long.
    pub fn progress_items(&self, length: u64, what: &str) -> Progress {
        self.progress(Some(length), what, "{msg} {wide_bar} {pos}/{len}")
    }

    /// A count of items, of which nobody knows how many there are.
    pub fn progress_count(&self, what: &str) -> Progress {
        self.progress(None, what, "{spinner} {pos} {msg}, {per_sec}")
    }

    fn progress(&self, length: Option<u64>, what: &str, template: &str) -> Progress {
        if self.quiet || self.json || !io::stderr().is_terminal() {
            return Progress { bar: ProgressBar::hidden(), shown: true, started: std::time::Instant::now() };
        }
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(message(&what));
        Progress { bar, shown: false, started: std::time::Instant::now() }
    }
}

/// Breaks a line between words so that no part is wider than `columns`, unless a word alone is.
fn fold(line: &str, columns: usize, indent: usize) -> String {
    let lead = line.len() - line.trim_start().len();
    let mut folded = line.get(..lead).unwrap_or_default().to_owned();
    let mut width = lead;
    let mut empty = true;
    for word in line.get(lead..).unwrap_or_default().split(' ') {
        let length = word.chars().count();
        if !empty && width + 1 + length > columns {
            folded.push('\n');
            folded.push_str(&" ".repeat(indent));
            width = indent;
        } else if !empty {
            folded.push(' ');
            width += 1;
        }
        empty = false;
        folded.push_str(word);
        width += length;
    }
    folded
}

/// A message in one line.
fn message(text: &dyn fmt::Display) -> String {
    one_line(&public_urls(&text.to_string()))
}

/// Writes a line of a log, from any thread.
pub fn log(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{}", one_line(&line.to_string()));
}

/// Writes lines, which whoever laid them out has kept apart.
pub fn log_block(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", lines(text.trim_end()));
}

/// Writes each event of `tracing` as a line of the log.
#[derive(Debug)]
pub struct LogLines;

impl io::Write for LogLines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        log(public_urls(String::from_utf8_lossy(event).trim_end_matches('\n')));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A progress bar that keeps out of sight while the work is quick. It disappears when dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    shown: bool,
    started: std::time::Instant,
}

impl Progress {
    /// Moves on by `delta` bytes or items.
    pub fn advance(&mut self, delta: u64) {
        if !self.shown && self.started.elapsed() >= PATIENCE {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(FRAMES_PER_SECOND));
        }
        self.bar.inc(delta);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Emphasis, if stderr is a terminal that wants it.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    colour: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        let text = one_line(text);
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text }
    }

    /// For errors.
    pub fn red(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// For warnings.
    pub fn yellow(self, text: &str) -> String {
        self.paint("1;33", text)
    }

    /// For what went well.
    pub fn green(self, text: &str) -> String {
        self.paint("1;32", text)
    }

    /// For hints and help.
    pub fn cyan(self, text: &str) -> String {
        self.paint("1;36", text)
    }

    /// For headings.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// For what matters less.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_folded_between_words() {
        let line = "  pass  V-ART-01  every artifact is in the store";
        assert_eq!(fold(line, 80, 18), line);
        assert_eq!(
            fold(line, 30, 18),
            "  pass  V-ART-01  every\n                  artifact is\n                  in the store"
        );
        assert_eq!(fold("a wordthatistoolong b", 5, 2), "a\n  wordthatistoolong\n  b");
    }
}
