//! What every store does.

use super::{Violation, expect, works};
use crate::store::{LONGEST_SEGMENT, Store, StoreError};

/// Checks a store that is empty. Leaves `a.json` in it.
///
/// # Errors
///
/// The first [`Violation`].
pub fn check_store(store: &dyn Store) -> Result<(), Violation> {
    let load = |name: &str, limit| works("an entry can be loaded", store.load(name, limit));
    let save = |name: &str, bytes: &[u8]| works("an entry can be saved", store.save(name, bytes));
    let remove = |name: &str| works("an entry can be removed, also if it is not there", store.remove(name));
    let is = |found: Option<Vec<u8>>, wanted: Option<&[u8]>| {
        expect("what is loaded is what was saved last", found.as_deref() == wanted, || {
            format!("{found:?} instead of {wanted:?}")
        })
    };

    is(load("a.json", 10)?, None)?;
    remove("a.json")?;
    save("a.json", b"one")?;
    save("a.json", b"two!")?;
    is(load("a.json", 4)?, Some(b"two!"))?;
    let long = store.load("a.json", 3);
    expect("an entry that is longer than the limit is an error", too_long(&long), || format!("{long:?}"))?;
    is(load("a.json", u64::MAX)?, Some(b"two!"))?;

    save("folder/b%2Fc.json", b"")?;
    is(load("folder/b%2Fc.json", 0)?, Some(b""))?;
    remove("folder/b%2Fc.json")?;
    remove("folder/b%2Fc.json")?;
    is(load("folder/b%2Fc.json", 0)?, None)?;
    is(load("a.json", 4)?, Some(b"two!"))?;

    let longest = "a".repeat(LONGEST_SEGMENT + 1);
    for name in ["", "..", "../a", "a/../b", "/a", "a/", "a\\b", "a b", "a\0", "\u{e9}", &longest] {
        let results = [store.load(name, 1).map(|_| ()), store.save(name, b""), store.remove(name)];
        let refused = results.iter().all(|result| matches!(result, Err(StoreError::BadName { .. })));
        expect("names that are not safe on every file system are refused", refused, || {
            format!("{name:?}: {results:?}")
        })?;
    }
    Ok(())
}

fn too_long(result: &Result<Option<Vec<u8>>, StoreError>) -> bool {
    matches!(result, Err(StoreError::TooLong { .. }))
}
