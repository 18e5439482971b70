//! From a request's path to an object of the repository, by the repository's own types. What is not one of its paths is refused.

use tidegate_model::layout::{DelegatedRole, Location};
use tidegate_model::name::Name;
use tidegate_tuf::path::TargetPath;

use crate::refusal::Refusal;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The key of the object, below the place's prefix.
    pub key: String,
    /// Whose it is.
    pub owner: Owner,
}

/// Who may have an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The metadata of a cohort's role: whoever was let into it.
    Role(String),
    /// A target: whoever was let into a cohort of the channel that lists it.
    Channel(Name),
}

/// Reads what follows `/v1/repo/`, as it was sent.
pub fn parse(path: &str) -> Result<Wanted, Refusal> {
    let refused = || Refusal::malformed("G-PATH-01", "this is not the path of a cohort's metadata or of a target");
    if path.len() > 1024 {
        return Err(refused());
    }
    let key = decode(path).ok_or_else(refused)?;
    let owner = match key.split_once('/') {
        Some(("metadata", file)) => metadata(file),
        Some(("targets", target)) => self::target(target),
        _ => None,
    };
    Ok(Wanted { owner: owner.ok_or_else(refused)?, key })
}

/// Of all that needs an escape only `+` occurs in our paths, and it has one spelling (`%2B`) or none. So no other escape is read at all,
/// and no two readers of the path can differ.
fn decode(path: &str) -> Option<String> {
    let plain = path.replace("%2B", "+");
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"/._+-".contains(&c);
    plain.bytes().all(allowed).then_some(plain)
}

/// `12.stable.canary.json`
fn metadata(file: &str) -> Option<Owner> {
    let (version, role) = file.strip_suffix(".json")?.split_once('.')?;
    let is_version =
        matches!(version.len(), 1..=10) && version.bytes().all(|c| c.is_ascii_digit()) && !version.starts_with('0');
    match DelegatedRole::parse(role)? {
        DelegatedRole::Cohort { .. } if is_version => Some(Owner::Role(role.to_owned())),
        _ => None,
    }
}

/// `stable/releases/os/1.2.0/HASH.rootfs.img`
fn target(path: &str) -> Option<Owner> {
    let (folder, file) = path.rsplit_once('/')?;
    let (hash, name) = file.split_once('.')?;
    if hash.len() != 64 || !hash.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let target = TargetPath::new(format!("{folder}/{name}")).ok()?;
    let channel = match Location::parse(target.as_str())? {
        Location::CohortMap { channel }
        | Location::Manifest { channel, .. }
        | Location::Artifact { channel, .. }
        | Location::Assignment { channel, .. } => channel,
    };
    Some(Owner::Channel(channel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_repository_are_read() {
        let hash = "ab".repeat(32);
        let stable: Name = "stable".parse().unwrap();
        let canary = Owner::Role("stable.canary".into());
        assert_eq!(parse("metadata/12.stable.canary.json").unwrap().owner, canary);
        for path in [
            "stable/HASH.cohorts.json",
            "stable/releases/os/1.2.0/HASH.manifest.json",
            "stable/releases/os/1.2.0/HASH.a_b-c.img",
            "stable/cohorts/canary/HASH.os.json",
        ] {
            let path = format!("targets/{}", path.replace("HASH", &hash));
            assert_eq!(parse(&path).unwrap(), Wanted { key: path, owner: Owner::Channel(stable.clone()) });
        }
        let plus = format!("targets/stable/releases/os/1.2.0%2Bb1/{hash}.a%2Bb");
        assert_eq!(parse(&plus).unwrap().key, plus.replace("%2B", "+"));
    }
}
