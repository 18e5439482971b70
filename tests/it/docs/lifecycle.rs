//! docs/lifecycle.md names every rule, in the words of the code.

use std::path::Path;

#[test]
fn the_lifecycle_page_has_every_rule() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/lifecycle.md");
    let text = std::fs::read_to_string(page).unwrap();
    let rules =
        tidegate::Rule::ALL.iter().filter(|rule| rule.id().starts_with("R-")).map(|rule| (rule.id(), rule.requires()));
    let checks = tidegate::validate::rules().map(|rule| (rule.id, rule.title));
    let missing: Vec<String> = rules
        .chain(checks)
        .map(|(id, asks)| format!("| {id} | {asks} |"))
        .filter(|line| !text.lines().any(|have| have == line))
        .collect();
    assert!(missing.is_empty(), "write into docs/lifecycle.md:\n{}", missing.join("\n"));
}
