//! Reading a fleet from CSV, a line at a time.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::rc::Rc;
use std::str::FromStr;

use tidegate_model::decision::{Installed, Profile};
use tidegate_model::facts::{FactValue, Facts, MAX_FACTS, MAX_TEXT};
use tidegate_model::name::FactName;
use tidegate_model::version;

use super::{Class, Member, Scope};
use crate::error::{Error, Result, Rule};

/// The longest line, in bytes.
const MAX_LINE: usize = 64 * 1024;
/// The most columns.
const MAX_COLUMNS: usize = MAX_FACTS + 6;
/// So many classes are remembered; a fleet of more, as one with a clock among its facts, takes longer.
const MAX_CLASSES: usize = 1 << 16;

pub(super) struct Reader {
    name: String,
    input: BufReader<Box<dyn Read>>,
    length: u64,
    done: u64,
    line: u64,
    scope: Scope,
    columns: Vec<Column>,
    cells: Cells,
    text: Vec<u8>,
    key: Vec<u8>,
    classes: HashMap<Vec<u8>, Rc<Class>>,
    numbered: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Column {
    Id,
    Product,
    Channel,
    Hardware,
    Version,
    Sequence,
    Fact(FactName),
    /// A fact that nobody asks for.
    Ignored,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("name", &self.name).field("line", &self.line).finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn open(path: &Path, scope: Scope) -> Result<Self> {
        let (input, length): (Box<dyn Read>, u64) = if path == Path::new("-") {
            (Box::new(std::io::stdin()), 0)
        } else {
            let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
            let length = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
            (Box::new(file), length)
        };
        let name = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
        Self::over(name, input, length, scope)
    }

    fn over(name: String, input: Box<dyn Read>, length: u64, scope: Scope) -> Result<Self> {
        let mut reader = Self {
            name,
            input: BufReader::with_capacity(1 << 16, input),
            length,
            done: 0,
            line: 0,
            scope,
            columns: Vec::new(),
            cells: Cells::default(),
            text: Vec::new(),
            key: Vec::new(),
            classes: HashMap::new(),
            numbered: 0,
        };
        if !reader.read_line()? {
            return Err(reader.wrong("line 1 does not name the columns"));
        }
        reader.columns = reader.head()?;
        Ok(reader)
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn next(&mut self) -> Result<Option<Member>> {
        if !self.read_line()? {
            return Ok(None);
        }
        if self.cells.len() != self.columns.len() {
            let (found, named) = (self.cells.len(), self.columns.len());
            return Err(self.wrong(format!("it has {found} values for the {named} columns of line 1")));
        }
        let mut id = "";
        self.key.clear();
        for (column, cell) in self.columns.iter().zip(self.cells.iter()) {
            match column {
                Column::Id => id = cell,
                Column::Ignored => {}
                _ => {
                    self.key.extend(cell.len().to_le_bytes());
                    self.key.extend(cell.as_bytes());
                }
            }
        }
        let id = id.parse().map_err(|e| self.wrong(e))?;
        let class = if let Some(class) = self.classes.get(&self.key) {
            Rc::clone(class)
        } else {
            let class = Rc::new(self.class(&id)?);
            self.numbered += 1;
            if self.classes.len() == MAX_CLASSES {
                self.classes.clear();
            }
            self.classes.insert(self.key.clone(), Rc::clone(&class));
            class
        };
        Ok(Some(Member { id, class }))
    }

    /// The columns that the first line names.
    fn head(&self) -> Result<Vec<Column>> {
        let mut seen = BTreeSet::new();
        let mut columns = Vec::new();
        for name in self.cells.iter() {
            if !seen.insert(name) {
                return Err(self.wrong(format!("it names the column {name} twice")));
            }
            columns.push(match name {
                "id" => Column::Id,
                "product" => Column::Product,
                "channel" => Column::Channel,
                "hardware" => Column::Hardware,
                "version" => Column::Version,
                "sequence" => Column::Sequence,
                _ => {
                    let fact: FactName = name.parse().map_err(|e| self.wrong(e))?;
                    let asked = self.scope.facts.as_ref().is_none_or(|facts| facts.contains(&fact));
                    if asked { Column::Fact(fact) } else { Column::Ignored }
                }
            });
        }
        if columns.len() > MAX_COLUMNS {
            return Err(self.wrong(format!("{} columns are too many: at most {MAX_COLUMNS}", columns.len())));
        }
        for (name, must) in [
            ("id", true),
            ("hardware", true),
            ("version", true),
            ("product", self.scope.product.is_none()),
            ("channel", self.scope.channel.is_none()),
        ] {
            if must && !seen.contains(name) {
                return Err(self.wrong(format!("it names no column {name}")));
            }
        }
        Ok(columns)
    }

    fn class(&self, id: &tidegate_model::name::DeviceId) -> Result<Class> {
        let mut product = self.scope.product.clone();
        let mut channel = self.scope.channel.clone();
        let (mut hardware, mut installed, mut sequence) = (None, None, 0);
        let mut facts = Facts::new();
        for (column, cell) in self.columns.iter().zip(self.cells.iter()) {
            match column {
                Column::Id | Column::Ignored => {}
                // An empty value takes what the scope says.
                Column::Product if cell.is_empty() && product.is_some() => {}
                Column::Channel if cell.is_empty() && channel.is_some() => {}
                Column::Product => product = Some(self.parsed("product", cell)?),
                Column::Channel => channel = Some(self.parsed("channel", cell)?),
                Column::Hardware => hardware = Some(self.parsed("hardware", cell)?),
                Column::Version => {
                    let version = version::parse(cell);
                    installed = Some(version.map_err(|e| self.wrong(format!("version: {e}")))?);
                }
                Column::Sequence | Column::Fact(_) if cell.is_empty() => {}
                Column::Sequence => {
                    sequence =
                        cell.parse().map_err(|_| self.wrong(format!("sequence: {cell:?} is not a whole number")))?;
                }
                Column::Fact(fact) if cell.len() > MAX_TEXT => {
                    return Err(self.wrong(format!("{fact}: {} bytes are too many: at most {MAX_TEXT}", cell.len())));
                }
                Column::Fact(fact) => {
                    facts.insert(fact.clone(), FactValue::from_typed(cell));
                }
            }
        }
        let lacks = |what: &str| self.wrong(format!("it has no {what}"));
        let profile = Profile {
            id: id.clone(),
            product: product.ok_or_else(|| lacks("product"))?,
            channel: channel.ok_or_else(|| lacks("channel"))?,
            hardware: hardware.ok_or_else(|| lacks("hardware"))?,
            installed: Installed { version: installed.ok_or_else(|| lacks("version"))?, sequence },
            own_facts: facts,
            attestation: None,
        };
        let profile = profile.assumed().map_err(|e| self.wrong(e))?;
        let facts = profile.facts();
        Ok(Class { number: self.numbered, profile, facts })
    }

    fn parsed<T: FromStr<Err: std::fmt::Display>>(&self, column: &str, cell: &str) -> Result<T> {
        cell.parse().map_err(|e| self.wrong(format!("{column}: {e}")))
    }

    /// Reads the next line that is not blank into `cells`; whether there was one.
    fn read_line(&mut self) -> Result<bool> {
        loop {
            self.text.clear();
            self.line += 1;
            let read = self.input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut self.text);
            let count = read.map_err(|e| self.wrong("it cannot be read").with_source(e))?;
            if count == 0 {
                return Ok(false);
            }
            if count > MAX_LINE {
                return Err(self.wrong(format!("it is longer than {MAX_LINE} bytes")));
            }
            self.done += count as u64;
            let text = std::str::from_utf8(&self.text).map_err(|e| self.wrong("it is not UTF-8").with_source(e))?;
            let text = text.strip_suffix('\n').unwrap_or(text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            // Spreadsheets begin their files with a byte order mark.
            let text = if self.line == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
            if text.is_empty() {
                continue;
            }
            let split = self.cells.split(text);
            return split.map(|()| true).map_err(|why| self.wrong(why));
        }
    }

    fn wrong(&self, why: impl std::fmt::Display) -> Error {
        Error::input(format!("{}, line {}: {why}", self.name, self.line)).rule(Rule::FleetCsv).remedy(
            "the columns of a fleet are described in docs/rollout.md: id,hardware,version,sequence and facts by name",
        )
    }
}

/// The values of a line.
#[derive(Debug)]
struct Cells {
    reader: csv_core::Reader,
    /// Without quotes, one after the other.
    text: Vec<u8>,
    ends: Vec<usize>,
    count: usize,
}

impl Default for Cells {
    fn default() -> Self {
        // No line has more of either.
        let (length, count) = (MAX_LINE, MAX_COLUMNS + 1);
        Self { reader: csv_core::Reader::new(), text: vec![0; length], ends: vec![0; count], count: 0 }
    }
}

impl Cells {
    fn len(&self) -> usize {
        self.count
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let ends = self.ends.iter().take(self.count);
        std::iter::once(&0).chain(ends.clone()).zip(ends).map(|(start, end)| {
            // The line is UTF-8, and is cut at commas and quotes.
            self.text.get(*start..*end).and_then(|cell| std::str::from_utf8(cell).ok()).unwrap_or_default()
        })
    }

    fn split(&mut self, line: &str) -> Result<(), String> {
        self.reader.reset();
        self.count = 0;
        let (result, _, written, count) = self.reader.read_record(line.as_bytes(), &mut self.text, &mut self.ends);
        if matches!(result, csv_core::ReadRecordResult::OutputEndsFull) {
            return Err(format!("there are too many columns: at most {MAX_COLUMNS}"));
        }
        // The end of the line is the end of the record.
        let (text, ends) = (self.text.get_mut(written..), self.ends.get_mut(count..));
        let (Some(text), Some(ends)) = (text, ends) else { return Err("the line is too long".into()) };
        let (result, .., last) = self.reader.read_record(&[], text, ends);
        if matches!(result, csv_core::ReadRecordResult::OutputEndsFull) {
            return Err(format!("there are too many columns: at most {MAX_COLUMNS}"));
        }
        self.count = count + last;
        self.check_quotes(line)
    }

    /// Refuses what the reader accepts although it is not well-formed by RFC 4180: stray and unclosed quotes.
    fn check_quotes(&self, mut line: &str) -> Result<(), String> {
        if !line.contains('"') {
            return Ok(());
        }
        for cell in self.iter() {
            let written =
                if line.starts_with('"') { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.into() };
            let after = line.strip_prefix(&*written);
            let next = after.and_then(|after| if after.is_empty() { Some("") } else { after.strip_prefix(',') });
            line = match next {
                Some(_) if !line.starts_with('"') && cell.contains('"') => {
                    return Err(format!("a double quote inside {cell:?}: put the whole value in quotes"));
                }
                Some(next) => next,
                None if line.get(1..).is_some_and(|rest| rest.replace("\"\"", "").contains('"')) => {
                    return Err("a comma must follow a closing double quote".into());
                }
                None => {
                    return Err(
                        "a value that begins with a double quote does not end with one; it cannot go on in the next line"
                            .into(),
                    );
                }
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::gate::Attestation;

    use super::*;

    fn scope() -> Scope {
        Scope { product: "os".parse().ok(), channel: "stable".parse().ok(), facts: None }
    }

    fn read(text: &str, scope: Scope) -> Result<Vec<Member>> {
        let bytes = std::io::Cursor::new(text.to_owned().into_bytes());
        let mut reader = Reader::over("fleet.csv".into(), Box::new(bytes), 0, scope)?;
        let mut members = Vec::new();
        while let Some(member) = reader.next()? {
            members.push(member);
        }
        Ok(members)
    }

    #[test]
    fn columns_may_stand_in_any_order_and_others_are_facts() {
        let text = "\u{feff}version,id,group,hardware,ram-mb,sequence,note\r\n\
            1.0.0,a-1,lab,board-a,512,7,\"one, \"\"two\"\"\"\r\n\
            \r\n\
            1.0.0,a-2,lab,board-a,512,7,\"one, \"\"two\"\"\"\n\
            0.9.0,a-3,,board-b,,,";
        let members = read(text, scope()).unwrap();
        assert_eq!(members.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["a-1", "a-2", "a-3"]);
        let profile = &members[0].class.profile;
        assert_eq!((profile.product.as_str(), profile.channel.as_str()), ("os", "stable"));
        assert_eq!((profile.hardware.as_str(), profile.installed.sequence), ("board-a", 7));
        let fact = |name: &str| profile.own_facts.value(&name.parse().unwrap()).cloned();
        assert_eq!(fact("ram-mb"), Some(FactValue::Integer(512)));
        assert_eq!(fact("note"), Some("one, \"two\"".into()));
        assert!(Rc::ptr_eq(&members[0].class, &members[1].class), "they differ in their ids only");
        assert_eq!(members[2].class.profile.installed.sequence, 0);
        assert!(members[2].class.profile.own_facts.is_empty(), "an empty value is no fact");
    }

    #[test]
    fn the_evidence_that_devices_give_is_a_column() {
        let text = "id,hardware,version,attestation\na,b,1.0.0,tpm2\nb,b,1.0.0,none\nc,b,1.0.0,\n";
        let members = read(text, scope()).unwrap();
        let given: Vec<_> = members.iter().map(|member| member.class.profile.attestation).collect();
        assert_eq!(given, [Some(Attestation::Tpm2), None, None]);
        assert!(members.iter().all(|member| member.class.profile.own_facts.is_empty()));
        assert_eq!(members[0].class.facts.value(&"attestation".parse().unwrap()), Some(&"tpm2".into()));
        let error = read("id,hardware,version,attestation\na,b,1.0.0,rumour\n", scope()).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("tpm2, ear, none"), "{error}");
    }

    #[test]
    fn facts_that_nobody_asks_for_make_no_classes() {
        let asked = Scope { facts: Some(BTreeSet::from(["group".parse().unwrap()])), ..scope() };
        let text = "id,hardware,version,serial,group\na,b,1.0.0,1,lab\nb,b,1.0.0,2,lab\nc,b,1.0.0,3,field\n";
        let members = read(text, asked).unwrap();
        let numbers: Vec<_> = members.iter().map(|member| member.class.number).collect();
        assert_eq!(numbers, [0, 0, 1]);
        assert_eq!(members[0].class.profile.own_facts.iter().count(), 1);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let long = format!("id,hardware,version\n{}", "x".repeat(70_000));
        for (text, says) in [
            ("", "line 1: line 1 does not name the columns"),
            ("id,version\n", "line 1: it names no column hardware"),
            ("id,id,hardware,version\n", "line 1: it names the column id twice"),
            ("id,hardware,version,Group\n", "line 1: \"Group\""),
            ("id,hardware,version\na,b\n", "line 2: it has 2 values for the 3 columns of line 1"),
            ("id,hardware,version\n\n\na,b,1\n", "line 4: version: "),
            ("id,hardware,version\na b,b,1.0.0\n", "line 2: \"a b\""),
            ("id,hardware,version\na,,1.0.0\n", "line 2: hardware: "),
            ("id,hardware,version,sequence\na,b,1.0.0,-1\n", "line 2: sequence: \"-1\" is not a whole number"),
            ("id,hardware,version\na,\"b,1.0.0\n", "line 2: a value that begins with a double quote"),
            ("id,hardware,version\na,\"b\"x,1.0.0\n", "line 2: a comma must follow"),
            ("id,hardware,version\na,b\"x,1.0.0\n", "line 2: a double quote inside"),
            (long.as_str(), "line 2: it is longer than 65536 bytes"),
        ] {
            let error = read(text, scope()).unwrap_err();
            assert!(error.to_string().starts_with(&format!("fleet.csv, {says}")), "{error}");
            assert!(error.remedy_text().is_some());
        }
        let error = read("id,hardware,version\n", Scope::default()).unwrap_err();
        assert!(error.to_string().contains("it names no column product"), "{error}");
    }
}
