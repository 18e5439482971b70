//! The command line by golden transcripts: `tests/cmd/*.trycmd`. `TRYCMD=overwrite` writes them anew.

#[test]
fn transcripts() {
    trycmd::TestCases::new()
        .env("TIDEGATE_ACTOR", "tester")
        .env("NO_COLOR", "1")
        .register_bin("cp", std::path::Path::new("/bin/cp"))
        .register_bin("chmod", std::path::Path::new("/bin/chmod"))
        .case("tests/cmd/*.trycmd");
}
