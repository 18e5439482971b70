//! URLs as log events show them.

use std::fmt;

/// A URL without user information, query and fragment, which may contain secrets.
pub(super) struct Redacted<'a>(pub(super) &'a str);

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.0.split(['?', '#']).next().unwrap_or_default();
        let Some((scheme, rest)) = address.split_once("://") else { return f.write_str(address) };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        write!(f, "{scheme}://{host}{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_urls_are_cut() {
        for (url, shown) in [
            ("https://user:word@host:8443/a/b?token=abc#d", "https://host:8443/a/b"),
            ("https://user:w@rd@host?token=abc", "https://host"),
            ("https://host/a@b", "https://host/a@b"),
            ("file:///srv/repository", "file:///srv/repository"),
            ("relative?token=abc", "relative"),
        ] {
            assert_eq!(Redacted(url).to_string(), shown);
        }
    }
}
