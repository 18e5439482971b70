//! What a proposal is refused for unless whoever signs it allows it by name: what signers would not see, and what other clients cannot
//! read.

mod clients;
mod unseen;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_model::text::one_line;
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::key::Key;

use super::file::Proposal;
use super::verify::Verified;
use crate::error::{Error, Result, Rule};

/// The programs whose reading of metadata is known here, and `every-client` for what no program can use.
pub const CLIENTS: [&str; 4] = ["every-client", "go-tuf", "python-tuf", "tough"];

/// One reason to refuse a proposal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objection {
    /// What it is allowed by: its kind, the role or file, and the place in it, such as `unknown:root/roles/mirrors`.
    pub name: String,
    /// Why it is refused.
    pub why: String,
}

impl Objection {
    fn new(kind: &str, document: &str, path: &str, why: impl Into<String>) -> Self {
        Self { name: one_line(&format!("{kind}:{document}{path}")), why: why.into() }
    }

    fn kind(&self) -> &str {
        self.name.split_once(':').map_or("", |(kind, _)| kind)
    }

    /// Whether it is about programs that read metadata, not about people who sign it.
    fn is_of_clients(&self) -> bool {
        CLIENTS.contains(&self.kind())
    }
}

/// What there is to object to in a proposal.
#[derive(Debug, Clone, Default)]
pub struct Objections {
    /// What it brings: refused unless it is allowed.
    pub new: Vec<Objection>,
    /// What is in force already and stays: shown alone, since a threshold has signed it.
    pub in_force: Vec<Objection>,
}

/// Looks for everything in a verified proposal that is refused by default.
pub fn objections(proposal: &Proposal, verified: &Verified) -> Objections {
    let mut found = Objections::default();
    for change in &proposal.changes {
        let role = change.role.as_str();
        let before = verified.documents.get(role).and_then(|(before, _)| before.as_ref()).map(|old| old.to_value());
        let old: BTreeSet<Objection> = before.iter().flat_map(|before| of_role(role, before)).collect();
        for objection in of_role(role, &change.signed) {
            if old.contains(&objection) { &mut found.in_force } else { &mut found.new }.push(objection);
        }
        found.new.extend(unseen::base(role, verified));
        if let Some(new) = verified.proposed.get(role) {
            found.new.extend(unseen::files(proposal, role, verified.base.get(role), new));
        }
    }
    found
}

/// What makes a key the same one, whatever its id and spelling.
fn material(key: &Value) -> Option<String> {
    let public = Key::from_value(key).ok().and_then(|key| key.decode());
    match public {
        Some(public) => Some(to_hex(&public.fingerprint())),
        None => key.pointer("/keyval/public").map(Value::to_string),
    }
}

fn of_role(role: &str, signed: &Value) -> Vec<Objection> {
    let mut found = unseen::role(role, signed);
    found.extend(clients::role(role, signed));
    found
}

impl Objections {
    /// Refuses what is not allowed; gives what is.
    ///
    /// `allowed` holds names of objections. The name of a client alone allows whatever that client cannot read.
    ///
    /// # Errors
    ///
    /// `C-UNSEEN` or `C-CLIENT` if there is an objection that is not allowed. Fails if something is allowed that nobody objects to.
    pub fn refuse(self, allowed: &BTreeSet<String>) -> Result<Vec<Objection>> {
        let is_allowed = |objection: &Objection| {
            allowed.contains(&objection.name) || objection.is_of_clients() && allowed.contains(objection.kind())
        };
        let idle = allowed.iter().find(|name| {
            !self.new.iter().chain(&self.in_force).any(|o| o.name == **name || o.is_of_clients() && o.kind() == **name)
        });
        if let Some(name) = idle {
            return Err(Error::refused(
                Rule::CeremonyUnseen,
                format!("nothing in this proposal is called {}, so it cannot be allowed", one_line(name)),
            )
            .remedy("take the names as tidegate ceremony show gives them"));
        }
        let (allowed, refused): (Vec<_>, Vec<_>) = self.new.into_iter().partition(is_allowed);
        let Some(first) = refused.first() else { return Ok(allowed) };
        let rule =
            if refused.iter().all(Objection::is_of_clients) { Rule::CeremonyClient } else { Rule::CeremonyUnseen };
        let all: Vec<_> = refused.iter().map(|objection| format!("{} ({})", objection.name, objection.why)).collect();
        Err(Error::refused(rule, format!("refused unless allowed by name: {}", all.join("; "))).remedy(format!(
            "propose it without them; or, if every signer knows and wants this, give each name: --allow '{}'",
            first.name
        )))
    }
}
