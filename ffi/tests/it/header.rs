//! The header.

use std::path::Path;

#[test]
fn the_header_is_what_cbindgen_makes() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(package.join("cbindgen.toml")).unwrap();
    let sources = ["failure", "cancel", "progress", "installer", "device"];
    let builder = sources.iter().fold(cbindgen::Builder::new().with_config(config), |builder, source| {
        builder.with_src(package.join(format!("src/{source}.rs")))
    });
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let (made, path) = (String::from_utf8(made).unwrap(), package.join("include/tidegate.h"));
    if std::env::var_os("TIDEGATE_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert_eq!(committed, made, "TIDEGATE_WRITE_HEADER=1 cargo test -p tidegate-ffi header writes it");
}

#[test]
fn a_compiler_for_cpp_reads_the_header() {
    if !crate::support::have("c++") {
        return;
    }
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/tidegate.h");
    let compiler = ["-std=c++11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c++"];
    let output = std::process::Command::new("c++").args(compiler).arg(header).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
