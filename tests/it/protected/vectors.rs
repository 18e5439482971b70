//! Listings are written as `model/tests/vectors/listings.json` has them, by which the gate reads them (`gate/tests/it/listings.rs`).

use std::path::Path;

use serde_json::Value;
use tidegate_model::listing::Listing;

use super::{Places, forge};

#[tokio::test]
async fn listings_are_written_as_gates_read_them() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("model/tests/vectors/listings.json");
    let vectors: Vec<Value> = serde_json::from_slice(&std::fs::read(vectors).unwrap()).unwrap();
    let mut written = 0;
    for case in vectors.iter().filter(|case| case.get("canonical").is_some()) {
        let objects = case["objects"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned());
        let listing = Listing { cohort: case["cohort"].as_str().unwrap().into(), objects: objects.collect() };
        assert_eq!(listing.to_bytes().unwrap(), case["canonical"].as_str().unwrap().as_bytes(), "{}", case["name"]);
        written += 1;
    }
    assert!(written >= 3, "{written}");
    // And so is what a publication leaves, to the byte.
    let (forge, places) = (forge(), Places::new());
    places.publish(&forge).await.unwrap();
    let bytes = std::fs::read(places.private().join("gate/stable.secret.json")).unwrap();
    let listing = Listing::parse(&bytes, "stable.secret").unwrap();
    assert_eq!((listing.objects.len(), listing.to_bytes().unwrap()), (4, bytes));
}
