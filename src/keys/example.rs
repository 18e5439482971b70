//! The public example keys of `keys-example/`, for demonstrations and tests.
//!
//! They are compiled in, so that `tidegate demo` needs no checkout, and recognized by their ids everywhere: nothing that they
//! sign may leave the machine.

use tidegate_tuf::key::Key;

/// One example key: its name, its key id, and its private part as PEM.
#[derive(Debug, Clone, Copy)]
pub struct ExampleKey {
    /// Its name in `repo-template/tidegate.toml`.
    pub name: &'static str,
    /// The SHA-256 of its canonical key object, in hex (TUF 4.2.2).
    pub id: &'static str,
    /// The content of its file.
    pub pem: &'static str,
}

macro_rules! example_keys {
    ($($name:literal $id:literal),* $(,)?) => {
        /// All example keys, by name.
        pub const EXAMPLE_KEYS: &[ExampleKey] = &[$(ExampleKey {
            name: $name,
            id: $id,
            pem: include_str!(concat!("../../keys-example/", $name, ".pem")),
        }),*];
    };
}

example_keys! {
    "root-1" "723ea7b0259120567f9c0c2eadd709d399af13f24c2949c5e9d55de12057ebb6",
    "root-2" "6e9685a3fae70bdc2fd3afa5222ce765014ec92c67e1bb0b9fdb5afee618611b",
    "root-3" "1c1f4ec200d733ab406498c1914201ff1cbb3f4ca4af9515603239661a4e3804",
    "targets-1" "070c3cb6c5972307045f74120a31b30fa3b04a8cca3e75fc728388dbf4c7e709",
    "targets-2" "67d59ddea70f473a96439b98033c8c15f721b8b48c6f7ade489e509cfc7da3a8",
    "targets-3" "a47982865aa68158572c5ed71cb71837155207105a6604b86feb92948d738e5c",
    "release-1" "1becc431acd488b13a305ee9c754278c71a9f5aebec395e6dd80aaa514beed39",
    "release-2" "0513f5625c8324e14f686730f29efd6ba87d1a68706587edc30dfc316829a2b8",
    "rollout" "afa358ef4fbdd542f894c805ef0dcb13320368171f37f8889b6addcee1834266",
    "snapshot" "f4c1256c8f668889da7811ae60433938c7b2c8c2cf2c29bc36fe6e3aaaab9a4a",
    "timestamp" "2ce098ac2b812e490afe3539517d44b3ad8d04886a5744fedbd0dc71d56bcd4e",
}

/// Whether `key` is one of the example keys.
pub fn is_example(key: &Key) -> bool {
    let id = key.id();
    EXAMPLE_KEYS.iter().any(|example| example.id == id.as_str())
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::super::generate::from_ed25519;
    use super::*;

    /// The keys follow from their names: the seed is SHA-256("tidegate/example-key/1" 00 name).
    #[test]
    fn files_and_ids_follow_from_the_names() {
        for example in EXAMPLE_KEYS {
            let seed = Sha256::new().chain_update(b"tidegate/example-key/1\0").chain_update(example.name).finalize();
            let key = from_ed25519(&seed.into(), None).unwrap();
            assert_eq!(*key.pem, example.pem, "{}", example.name);
            assert_eq!(key.public.id().as_str(), example.id, "{}", example.name);
            assert!(is_example(&key.public));
        }
        assert!(!is_example(&Key::ed25519(&[3; 32])));
    }
}
