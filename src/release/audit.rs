//! Checks that the ledger is intact and agrees with the records.

use std::path::Path;

use super::record;
use crate::error::{Result, chain};
use crate::workspace::Ledger;
use crate::workspace::ledger::Entry;

/// The ledger's entries, and everything that is wrong with them: breaks of the chain, and releases whose recorded state differs.
///
/// # Errors
///
/// Fails if the ledger or a folder of records cannot be read.
pub fn audit(dir: &Path) -> Result<(Vec<Entry>, Vec<String>)> {
    let (entries, breaks) = Ledger::examine(dir)?;
    let mut wrong: Vec<String> = breaks.iter().map(|at| format!("line {}: {}", at.line, at.why)).collect();
    wrong.extend(record::unreadable(dir)?.into_iter().map(|(_, error)| chain(&error)));
    for record in record::all(dir)? {
        let id = record.id().to_string();
        let state = record.status().to_string();
        match entries.iter().rev().find(|entry| entry.subject == id) {
            None => wrong.push(format!("nothing is written about {id}: lines were cut off at the end")),
            Some(Entry { to: Some(to), .. }) if *to != state => wrong.push(format!(
                "{id} is {state}, but the ledger says {to}: lines were cut off, or the record was edited"
            )),
            Some(_) => {}
        }
    }
    Ok((entries, wrong))
}
