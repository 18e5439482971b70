//! Which objects may be cached, and for how long.

use std::borrow::Cow;

/// The headers that an object of a repository is served with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// `Cache-Control`.
    pub cache_control: &'static str,
}

/// The headers that a publisher may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderRules {
    /// How many seconds a cache may keep `timestamp.json`.
    pub timestamp_max_age: u32,
    /// Whether versioned metadata is stored compressed (`Content-Encoding: gzip`), for stores and caches that do not compress.
    pub compress: bool,
    /// Whether caches must not store any object.
    pub private: bool,
}

impl Default for HeaderRules {
    fn default() -> Self {
        Self { timestamp_max_age: SHORT_SECONDS, compress: false, private: false }
    }
}

impl HeaderRules {
    /// The `Content-Type` and `Cache-Control` of the object with that key.
    pub fn of(self, key: &str) -> (&'static str, Cow<'static, str>) {
        let Headers { content_type, cache_control } = Headers::of(key);
        if self.private {
            return (content_type, Cow::Borrowed(PRIVATE));
        }
        if cache_control == SHORT && self.timestamp_max_age != SHORT_SECONDS {
            return (content_type, Cow::Owned(format!("public, max-age={}", self.timestamp_max_age)));
        }
        (content_type, Cow::Borrowed(cache_control))
    }

    /// Whether the object with that key is stored compressed. Compressing small objects gains nothing.
    pub fn compresses(self, key: &str, length: usize) -> bool {
        self.compress && length >= 512 && key.starts_with("metadata/") && Headers::of(key).cache_control == IMMUTABLE
    }
}

/// For names that contain a version or a hash: their bytes never change.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// For `timestamp.json`: how long an edge may serve an old one. This limits the effect of a stale edge, and still lets an edge
/// send one request a minute to the origin, however many devices it serves.
const SHORT: &str = "public, max-age=60";
const SHORT_SECONDS: u32 = 60;
/// For what a gate serves: no cache may store it, because it would serve it to anyone. Devices store what they need themselves.
const PRIVATE: &str = "private, no-store";
/// For other files beside a repository.
const REVALIDATE: &str = "no-cache";

impl Headers {
    /// The headers of the object with that key, relative to the root of the repository.
    pub fn of(key: &str) -> Self {
        let name = key.rsplit('/').next().unwrap_or(key);
        let json = std::path::Path::new(name).extension().is_some_and(|extension| extension == "json");
        let page = std::path::Path::new(name).extension().is_some_and(|extension| extension == "html");
        let content_type = match (json, page) {
            (true, _) => "application/json",
            (_, true) => "text/html; charset=utf-8",
            _ => "application/octet-stream",
        };
        let cache_control = match name.split_once('.') {
            _ if name == "timestamp.json" => SHORT,
            Some((prefix, _)) if (json && is_version(prefix)) || is_hash(prefix) => IMMUTABLE,
            _ => REVALIDATE,
        };
        Self { content_type, cache_control }
    }
}

/// Whether a file name's first part is a metadata version.
fn is_version(prefix: &str) -> bool {
    (1..=10).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_digit()) && !prefix.starts_with('0')
}

/// Whether it is a SHA-256 or SHA-512 in lower-case hex.
fn is_hash(prefix: &str) -> bool {
    matches!(prefix.len(), 64 | 128) && prefix.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_never_change_are_immutable() {
        let hash = "ab".repeat(32);
        for (key, cache_control) in [
            ("metadata/timestamp.json".to_owned(), SHORT),
            ("metadata/1.root.json".to_owned(), IMMUTABLE),
            ("metadata/12.stable.canary.json".to_owned(), IMMUTABLE),
            (format!("targets/stable/{hash}.cohorts.json"), IMMUTABLE),
            (format!("targets/stable/releases/os/1.0.0/{hash}.os.img"), IMMUTABLE),
            ("metadata/snapshot.json".to_owned(), REVALIDATE),
            ("index.html".to_owned(), REVALIDATE),
            ("metadata/0.root.json".to_owned(), REVALIDATE),
            (format!("targets/{}.img", hash.to_uppercase()), REVALIDATE),
            ("12345".to_owned(), REVALIDATE),
            ("targets/12.img".to_owned(), REVALIDATE),
        ] {
            assert_eq!(Headers::of(&key).cache_control, cache_control, "{key}");
        }
        let rules = HeaderRules { timestamp_max_age: 5, compress: true, private: false };
        assert_eq!(rules.of("metadata/timestamp.json").1, "public, max-age=5");
        assert_eq!(rules.of("metadata/1.root.json").1, IMMUTABLE);
        assert_eq!(HeaderRules::default().of("metadata/timestamp.json").1, SHORT);
        let rules = HeaderRules { private: true, ..rules };
        assert_eq!(rules.of("metadata/7.stable.canary.json"), ("application/json", "private, no-store".into()));
        assert!(rules.compresses("metadata/1.root.json", 5000) && !rules.compresses("metadata/timestamp.json", 5000));
        assert!(!rules.compresses(&format!("targets/stable/{hash}.cohorts.json"), 5000));
        assert_eq!(Headers::of("a/1.root.json").content_type, "application/json");
        assert_eq!(Headers::of("a/os.img").content_type, "application/octet-stream");
    }
}
