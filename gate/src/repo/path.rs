//! Parses the path of a request with the types of the repository's layout, and refuses every other path.

use tidegate_model::layout::{DelegatedRole, Location};
use tidegate_model::name::Name;
use tidegate_tuf::path::TargetPath;

use crate::encoding::is_sha256_hex;
use crate::refusal::Refusal;

/// The object that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedObject {
    /// The name in storage.
    pub name: String,
    /// Who has access to it.
    pub access: Access,
}

/// Who has access to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// The metadata of a cohort's role: devices with a grant for this cohort.
    Cohort(String),
    /// A target: devices with a grant for a cohort of this channel whose listing contains it.
    Channel(Name),
}

/// Parses the path after `/v1/repo/`, as sent.
///
/// # Errors
///
/// Refuses every path that is not in the layout.
pub fn parse(path: &str) -> Result<RequestedObject, Refusal> {
    let refused = || Refusal::bad_request("G-PATH-01", "the path is neither a cohort's metadata nor a target");
    if path.len() > 1024 {
        return Err(refused());
    }
    let name = decode(path).ok_or_else(refused)?;
    let access = match name.split_once('/') {
        Some(("metadata", file)) => metadata(file),
        Some(("targets", target)) => self::target(target),
        _ => None,
    };
    Ok(RequestedObject { access: access.ok_or_else(refused)?, name })
}

/// Decodes `%2B` only. Of all characters that need escaping only `+` occurs in valid paths, and without other escapes no two parsers of a
/// path can disagree.
fn decode(path: &str) -> Option<String> {
    let plain = path.replace("%2B", "+");
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"/._+-".contains(&c);
    plain.bytes().all(allowed).then_some(plain)
}

/// `12.stable.canary.json`
fn metadata(file: &str) -> Option<Access> {
    let (version, role) = file.strip_suffix(".json")?.split_once('.')?;
    let is_version =
        matches!(version.len(), 1..=10) && version.bytes().all(|c| c.is_ascii_digit()) && !version.starts_with('0');
    match DelegatedRole::parse(role)? {
        DelegatedRole::Cohort { .. } if is_version => Some(Access::Cohort(role.to_owned())),
        _ => None,
    }
}

/// `stable/releases/os/1.2.0/HASH.rootfs.img`
fn target(path: &str) -> Option<Access> {
    let (folder, file) = path.rsplit_once('/')?;
    let (hash, name) = file.split_once('.')?;
    if !is_sha256_hex(hash) {
        return None;
    }
    let target = TargetPath::new(format!("{folder}/{name}")).ok()?;
    // The name of a file of delivery has no further hash before it.
    let channel = match Location::parse(path).or_else(|| Location::parse(target.as_str()))? {
        Location::CohortMap { channel }
        | Location::Manifest { channel, .. }
        | Location::Artifact { channel, .. }
        | Location::Patches { channel, .. }
        | Location::Delivery { channel, .. }
        | Location::Assignment { channel, .. } => channel,
    };
    Some(Access::Channel(channel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_paths_of_the_repository() {
        let hash = "ab".repeat(32);
        let stable: Name = "stable".parse().unwrap();
        let canary = Access::Cohort("stable.canary".into());
        assert_eq!(parse("metadata/12.stable.canary.json").unwrap().access, canary);
        for path in [
            "stable/HASH.cohorts.json",
            "stable/releases/os/1.2.0/HASH.manifest.json",
            "stable/releases/os/1.2.0/HASH.a_b-c.img",
            "stable/cohorts/canary/HASH.os.json",
            "stable/delivery/HASH.patch",
            "stable/patches/os/1.2.0/HASH.a.img.json",
        ] {
            let path = format!("targets/{}", path.replace("HASH", &hash));
            assert_eq!(parse(&path).unwrap(), RequestedObject { name: path, access: Access::Channel(stable.clone()) });
        }
        let plus = format!("targets/stable/releases/os/1.2.0%2Bb1/{hash}.a%2Bb");
        assert_eq!(parse(&plus).unwrap().name, plus.replace("%2B", "+"));
    }
}
