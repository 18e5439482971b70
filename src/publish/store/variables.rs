//! The variables for endpoints, regions and credentials: from the process's environment, or given instead.

use std::collections::BTreeMap;
use std::fmt;

/// Variables by name. Their values may be secret, so `Debug` shows none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// The variables of this process that are valid text.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// The value, unless it is missing or empty.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Variables with this prefix, names in lower case, as the store builders read them.
    pub(super) fn beginning<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (String, &'a str)> + 'a {
        let found = self.0.iter().filter(move |(name, value)| name.starts_with(prefix) && !value.is_empty());
        found.map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
    }
}

/// The prefix of variables for the private place.
const PRIVATE: &str = "TIDEGATE_PRIVATE_";

impl Variables {
    /// The variables for the private place: `TIDEGATE_PRIVATE_NAME`, if set, replaces `NAME`. If the private place has its own
    /// keys, the public place's session and profile are dropped.
    #[must_use]
    pub fn for_private(&self) -> Self {
        let own: Vec<(&str, &String)> =
            self.0.iter().filter_map(|(name, value)| Some((name.strip_prefix(PRIVATE)?, value))).collect();
        let mut variables = self.0.clone();
        if own.iter().any(|(name, _)| matches!(*name, "AWS_ACCESS_KEY_ID" | "AWS_PROFILE")) {
            for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"] {
                variables.remove(name);
            }
        }
        variables.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value.clone())));
        Self(variables)
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(variables: T) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Variables({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_private_place_may_have_credentials_of_its_own() {
        let variables = |pairs: &[(&str, &str)]| -> Variables {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let shared = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_SESSION_TOKEN", "c")];
        let one = variables(&shared).for_private();
        assert_eq!((one.value("AWS_ACCESS_KEY_ID"), one.value("AWS_SESSION_TOKEN")), (Some("a"), Some("c")));
        let own = [("TIDEGATE_PRIVATE_AWS_ACCESS_KEY_ID", "x"), ("TIDEGATE_PRIVATE_AWS_SECRET_ACCESS_KEY", "y")];
        let other = variables(&[&shared[..], &own, &[("AWS_REGION", "r")]].concat()).for_private();
        assert_eq!((other.value("AWS_ACCESS_KEY_ID"), other.value("AWS_SECRET_ACCESS_KEY")), (Some("x"), Some("y")));
        assert_eq!((other.value("AWS_SESSION_TOKEN"), other.value("AWS_REGION")), (None, Some("r")));
        let profile = variables(&[&shared[..], &[("TIDEGATE_PRIVATE_AWS_PROFILE", "vault")]].concat()).for_private();
        assert_eq!((profile.value("AWS_PROFILE"), profile.value("AWS_ACCESS_KEY_ID")), (Some("vault"), None));
    }
}
