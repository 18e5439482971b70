//! JSON values as slices of their document: checked once, and read in place.

use alloc::borrow::Cow;
use core::str::Chars;

use serde_json::{Map, Number, Value};

use super::JsonError;
use crate::limits::Bounds;
use crate::prelude::*;

/// What may stand between two values of a sound document.
const BETWEEN: [char; 6] = [' ', '\t', '\n', '\r', ',', ':'];

/// A value of a document that [`Raw::scan`] has checked: its text, without the white space around it.
///
/// Reading a document in place takes no memory, whatever is in it; only [`tree`](Self::tree) does, up to a bound.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a>(&'a str);

impl<'a> Raw<'a> {
    /// Checks a whole document in one pass, strictly and within `bounds`. That takes 4 bytes for each key of the widest objects.
    ///
    /// # Errors
    ///
    /// If the document is malformed, exceeds a bound, or contains what [`parse`](super::parse) refuses.
    pub fn scan(bytes: &'a [u8], bounds: &Bounds) -> Result<Self, JsonError> {
        let text = core::str::from_utf8(bytes).map_err(|e| JsonError(e.to_string()))?;
        let mut scan = Scan { text, at: 0, keys: Vec::new(), values: bounds.values, longest: bounds.text };
        scan.space();
        let start = scan.at;
        scan.value(bounds.depth)?;
        let value = text.get(start..scan.at).unwrap_or_default();
        scan.space();
        if scan.at == text.len() { Ok(Self(value)) } else { Err(scan.error("trailing characters")) }
    }

    /// Whether the value is an object.
    pub fn is_object(self) -> bool {
        self.0.starts_with('{')
    }

    /// Whether the value is a list.
    pub fn is_list(self) -> bool {
        self.0.starts_with('[')
    }

    /// The elements of a list, or the keys and values of an object in turn.
    pub(crate) fn parts(self) -> Parts<'a> {
        Parts(if self.is_object() || self.is_list() { self.0.get(1..).unwrap_or_default() } else { "" })
    }

    /// The value of a member of an object.
    pub fn get(self, name: &str) -> Option<Self> {
        let mut parts = if self.is_object() { self.parts() } else { Parts("") };
        while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
            if key.is_text(name) {
                return Some(value);
            }
        }
        None
    }

    /// The characters of a string.
    fn characters(self) -> Characters<'a> {
        Characters(self.0.get(1..).unwrap_or_default().chars())
    }

    fn is_text(self, text: &str) -> bool {
        self.0.starts_with('"') && self.characters().eq(text.chars())
    }

    /// The value as a string.
    pub fn text(self) -> Option<String> {
        self.0.starts_with('"').then(|| self.characters().collect())
    }

    /// The value as a tree, which takes about as many bytes as are deducted from `room`.
    ///
    /// # Errors
    ///
    /// If `room` is too small.
    pub fn tree(self, room: &mut usize) -> Result<Value, JsonError> {
        self.tree_without(&[], room)
    }

    /// The same, without these members of the object.
    ///
    /// # Errors
    ///
    /// If `room` is too small.
    pub fn tree_without(self, names: &[&str], room: &mut usize) -> Result<Value, JsonError> {
        // A node of a map has room for eleven entries.
        let own = if self.is_object() { 640 } else { 48 };
        spend(room, own)?;
        let mut parts = self.parts();
        Ok(match self.0.as_bytes().first() {
            Some(b'{') => {
                let mut map = Map::new();
                while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
                    if names.iter().any(|name| key.is_text(name)) {
                        continue;
                    }
                    spend(room, 32 + key.0.len())?;
                    map.insert(key.text().unwrap_or_default(), value.tree(room)?);
                }
                Value::Object(map)
            }
            Some(b'[') => {
                let mut items = Vec::new();
                for item in parts {
                    items.push(item.tree(room)?);
                }
                Value::Array(items)
            }
            Some(b'"') => {
                spend(room, self.0.len())?;
                Value::String(self.characters().collect())
            }
            Some(b't') => Value::Bool(true),
            Some(b'f') => Value::Bool(false),
            Some(b'n') | None => Value::Null,
            Some(_) => number(self.0).map_or(Value::Null, Value::Number),
        })
    }

    /// The canonical form: the value's own text if that has it already, otherwise a copy of at most `most` bytes.
    ///
    /// # Errors
    ///
    /// If the copy were longer.
    pub fn canonical(self, most: usize) -> Result<Cow<'a, [u8]>, JsonError> {
        let mut out = Out { text: self.0.as_bytes(), same: 0, copy: None, most };
        self.write(&mut out)?;
        Ok(match out.copy {
            Some(copy) => Cow::Owned(copy),
            None => Cow::Borrowed(out.text.get(..out.same).unwrap_or_default()),
        })
    }

    fn write(self, out: &mut Out<'_>) -> Result<(), JsonError> {
        if self.is_object() {
            let (mut keys, mut parts) = (Vec::new(), self.parts());
            while let Some(key) = parts.next() {
                keys.push(position(self.0.len().saturating_sub(key.0.len() + parts.0.len())));
                parts.next();
            }
            sort(self.0, &mut keys);
            out.push(b"{")?;
            for (index, at) in keys.iter().enumerate() {
                let mut member = Parts(from(self.0, *at));
                if index > 0 {
                    out.push(b",")?;
                }
                member.next().map_or(Ok(()), |key| key.write(out))?;
                out.push(b":")?;
                member.next().map_or(Ok(()), |value| value.write(out))?;
            }
            out.push(b"}")
        } else if self.is_list() {
            out.push(b"[")?;
            for (index, item) in self.parts().enumerate() {
                if index > 0 {
                    out.push(b",")?;
                }
                item.write(out)?;
            }
            out.push(b"]")
        } else if self.0.contains('\\') {
            out.push(b"\"")?;
            for character in self.characters() {
                if matches!(character, '"' | '\\') {
                    out.push(b"\\")?;
                }
                out.push(character.encode_utf8(&mut [0; 4]).as_bytes())?;
            }
            out.push(b"\"")
        } else {
            // Text without escapes, numbers and words have one spelling.
            out.push(self.0.as_bytes())
        }
    }
}

/// The values of a list or object that is written from here on, up to its end.
pub(crate) struct Parts<'a>(&'a str);

impl<'a> Iterator for Parts<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        let rest = self.0.trim_start_matches(BETWEEN);
        let (value, rest) = rest.split_at_checked(length(rest))?;
        self.0 = rest;
        (!value.is_empty()).then_some(Raw(value))
    }
}

/// The length of the value at the start of checked text; 0 if there is none.
fn length(text: &str) -> usize {
    let (mut depth, mut is_text, mut is_escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        let mut ends = false;
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => {
                is_text = !is_text;
                ends = !is_text;
            }
            _ if is_text => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                ends = true;
            }
            b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' if depth == 0 => return at,
            _ => {}
        }
        if ends && depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// The characters of a string, up to its closing quote.
struct Characters<'a>(Chars<'a>);

impl Iterator for Characters<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        character(&mut self.0).ok().flatten()
    }
}

/// The next character of a string; `None` at its closing quote.
fn character(text: &mut Chars<'_>) -> Result<Option<char>, &'static str> {
    const END: &str = "unexpected end";
    const BAD: &str = "invalid escape in a string";
    let unit = |text: &mut Chars<'_>| -> Option<u32> {
        (0..4).try_fold(0, |unit, _| Some(unit * 16 + text.next()?.to_digit(16)?))
    };
    Ok(Some(match text.next().ok_or(END)? {
        '"' => return Ok(None),
        '\0'..='\x1f' => return Err("control character in a string"),
        '\\' => match text.next().ok_or(END)? {
            same @ ('"' | '\\' | '/') => same,
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let mut code = unit(text).ok_or(BAD)?;
                if (0xd800..0xdc00).contains(&code) && text.next() == Some('\\') && text.next() == Some('u') {
                    let low = unit(text).filter(|low| (0xdc00..0xe000).contains(low)).ok_or(BAD)?;
                    code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                }
                char::from_u32(code).ok_or(BAD)?
            }
            _ => return Err(BAD),
        },
        other => other,
    }))
}

/// A whole number of at most 64 bits in its one spelling.
fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !digits.starts_with('0'));
    let positive = || text.parse::<u64>().map(Number::from);
    positive().or_else(|_| text.parse::<i64>().map(Number::from)).ok().filter(|_| is_plain)
}

fn spend(room: &mut usize, bytes: usize) -> Result<(), JsonError> {
    *room = room.checked_sub(bytes).ok_or_else(|| JsonError("it would take too much memory".into()))?;
    Ok(())
}

fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn from(text: &str, at: u32) -> &str {
    usize::try_from(at).ok().and_then(|at| text.get(at..)).unwrap_or_default()
}

/// Puts the strings that start at these places of a text in order.
fn sort(text: &str, keys: &mut [u32]) {
    keys.sort_unstable_by(|a, b| Raw(from(text, *a)).characters().cmp(Raw(from(text, *b)).characters()));
}

/// Canonical text, which is not copied as long as it is the same as another.
struct Out<'a> {
    text: &'a [u8],
    /// How many bytes of `text` are the same.
    same: usize,
    copy: Option<Vec<u8>>,
    most: usize,
}

impl Out<'_> {
    fn push(&mut self, bytes: &[u8]) -> Result<(), JsonError> {
        if self.copy.is_none() && self.text.get(self.same..).is_some_and(|rest| rest.starts_with(bytes)) {
            self.same += bytes.len();
            return Ok(());
        }
        let copy = self.copy.get_or_insert_with(|| self.text.get(..self.same).unwrap_or_default().to_vec());
        if copy.len() + bytes.len() > self.most {
            return Err(JsonError(format!("it is not in canonical form, and longer than {} bytes in it", self.most)));
        }
        copy.extend_from_slice(bytes);
        Ok(())
    }
}

/// The pass over a document.
struct Scan<'a> {
    text: &'a str,
    at: usize,
    /// Where the keys of the objects start that are open here.
    keys: Vec<u32>,
    /// How many more values there may be.
    values: usize,
    longest: usize,
}

impl Scan<'_> {
    fn error(&self, why: &str) -> JsonError {
        let before = self.text.as_bytes().get(..self.at).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        JsonError(format!("{why} at line {line} column {column}"))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Takes this byte if it is next, and the white space before it.
    fn take(&mut self, byte: u8) -> bool {
        self.space();
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.take(byte) {
            return Ok(());
        }
        match self.peek() {
            None => Err(self.error("unexpected end")),
            Some(_) => Err(self.error(&format!("expected `{}`", char::from(byte)))),
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        self.space();
        self.values = self.values.checked_sub(1).ok_or_else(|| self.error("too many values"))?;
        match self.peek() {
            Some(b'{') => self.members(depth, true, b'}'),
            Some(b'[') => self.members(depth, false, b']'),
            Some(b'"') => self.string(),
            Some(_) => self.word(),
            None => Err(self.error("unexpected end")),
        }
    }

    fn members(&mut self, depth: usize, has_keys: bool, end: u8) -> Result<(), JsonError> {
        let depth = depth.checked_sub(1).ok_or_else(|| self.error("nested too deep"))?;
        let first = self.keys.len();
        self.at += 1;
        if !self.take(end) {
            loop {
                if has_keys {
                    self.space();
                    self.keys.push(position(self.at));
                    self.string()?;
                    self.expect(b':')?;
                }
                self.value(depth)?;
                if !self.take(b',') {
                    self.expect(end)?;
                    break;
                }
            }
        }
        let keys = self.keys.get_mut(first..).unwrap_or_default();
        sort(self.text, keys);
        let key = |at: &u32| Raw(from(self.text, *at)).characters();
        if let Some((at, _)) = keys.iter().zip(keys.iter().skip(1)).find(|(a, b)| key(a).eq(key(b))) {
            let name: String = key(at).take(80).collect();
            return Err(self.error(&format!("the key {name:?} appears twice in the object before")));
        }
        self.keys.truncate(first);
        Ok(())
    }

    fn string(&mut self) -> Result<(), JsonError> {
        self.expect(b'"')?;
        let mut rest = self.text.get(self.at..).unwrap_or_default().chars();
        let mut length = 0;
        loop {
            let next = character(&mut rest);
            self.at = self.text.len() - rest.as_str().len();
            match next {
                Ok(None) => return Ok(()),
                Ok(Some(character)) => length += character.len_utf8(),
                Err(why) => return Err(self.error(why)),
            }
            if length > self.longest {
                return Err(self.error("too long a string"));
            }
        }
    }

    /// A number, or one of three words.
    fn word(&mut self) -> Result<(), JsonError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let word = rest.find(|c| !is_part(c)).and_then(|end| rest.get(..end)).unwrap_or(rest);
        if matches!(word, "true" | "false" | "null") || number(word).is_some() {
            self.at += word.len();
            return Ok(());
        }
        let is_number = word.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        Err(self.error(if is_number {
            "the number is not a whole number of at most 64 bits"
        } else {
            "expected a value"
        }))
    }
}
