//! The command line by golden transcripts: `tests/cmd/*.trycmd`. `TRYCMD=overwrite` writes them anew.

#[test]
fn transcripts() {
    trycmd::TestCases::new().env("TIDEGATE_ACTOR", "tester").env("NO_COLOR", "1").case("tests/cmd/*.trycmd");
}
