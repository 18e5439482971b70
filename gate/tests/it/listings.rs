//! The gate parses the listings in `model/tests/vectors/listings.json`, which the publisher writes (`tests/it/protected/vectors.rs`).

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tidegate_gate::repo::listing::ListingCache;
use tidegate_gate::storage::Storage;

#[test]
fn reads_listings_of_the_publisher() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/vectors/listings.json");
    let vectors: Vec<Value> = serde_json::from_slice(&std::fs::read(vectors).unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut read, mut refused) = (0, 0);
    for case in &vectors {
        let site = tempfile::tempdir().unwrap();
        let cohort = case["cohort"].as_str().unwrap().to_owned();
        let text = case.get("canonical").unwrap_or(&case["bytes"]).as_str().unwrap();
        std::fs::create_dir_all(site.path().join("private/gate")).unwrap();
        std::fs::write(site.path().join(format!("private/gate/{cohort}.json")), text).unwrap();
        let storage = Storage::open("file:private", site.path(), false).unwrap();
        let listings = ListingCache::new(storage, Duration::ZERO, [cohort.clone()].iter());
        let names = |key: &str| runtime.block_on(listings.contains(&cohort, key));
        if case.get("refused").is_some() {
            assert!(names("metadata/9.stable.canary.json").is_err(), "{}", case["name"]);
            refused += 1;
            continue;
        }
        for object in case["objects"].as_array().unwrap() {
            assert!(names(object.as_str().unwrap()).unwrap(), "{}: {object}", case["name"]);
        }
        assert!(!names("metadata/8.stable.canary.json").unwrap(), "{}", case["name"]);
        assert!(!runtime.block_on(listings.contains("stable.other", "metadata/9.stable.canary.json")).unwrap());
        read += 1;
    }
    assert!(read >= 4 && refused >= 8, "{read} {refused}");
}
