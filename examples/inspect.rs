//! Prints which releases a repository offers to which cohort: of a workspace, or of a published repository with the root that devices trust.
//!
//! ```text
//! cargo run --example inspect -- WORKSPACE
//! cargo run --example inspect -- FOLDER-OR-URL 1.root.json
//! ```

use std::error::Error;
use std::path::Path;

use tidegate::report::view::{Place, signed};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (place, root) = match arguments.as_slice() {
        [place] => (place, None),
        [place, root] => (place, Some(Path::new(root))),
        _ => return Err("usage: inspect PLACE [ROOT]".into()),
    };
    // Verifies every signature, version, length and hash on the way from the root.
    let reading = Place::parse(place)?.read(root)?;
    let state = signed(&reading, chrono::Utc::now());
    for fault in &state.faults {
        eprintln!("{}: {}", fault.subject, fault.problem);
    }
    for channel in &state.channels {
        for product in &channel.products {
            for cohort in &product.cohorts {
                for offer in cohort.offers.iter().filter(|offer| offer.in_force) {
                    let (release, share) = (&offer.release, offer.exposed_ppm / 10_000);
                    println!("{}/{}: {}: {release} ({share}% eligible)", channel.name, product.name, cohort.cohort);
                }
            }
        }
    }
    Ok(())
}
