//! Signatures over the proposal's bytes that other programs made.

use std::process::Command;
use tidegate::Rule;

use crate::keys::Token;
use crate::support::tools;
use sha2::Digest as _;
use tidegate::keys::write_public;
use tidegate::workspace::Operation;
use tidegate::{ceremony, proposal};

use super::table::Table;

#[test]
fn a_signature_by_openssl_is_accepted() {
    if !tools::have("openssl", "version") {
        return;
    }
    let mut table = Table::new();
    table.key("root-4");
    table.edit("\"root-3\"]", "\"root-4\"]");
    table.pass(1);
    let mut proposal = table.start().unwrap();
    let verified = proposal::verify(&proposal, Some(&table.first_root())).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (message, signature) = (dir.path().join("message"), dir.path().join("signature"));
    std::fs::write(&message, proposal.signed_bytes("root").unwrap()).unwrap();
    let settings = table.workspace().settings().unwrap();
    for name in ["root-1", "root-2"] {
        let key = table.path().join(format!("keys/{name}.pem"));
        let args = [
            "pkeyutl",
            "-sign",
            "-rawin",
            "-inkey",
            key.to_str().unwrap(),
            "-in",
            message.to_str().unwrap(),
            "-out",
            signature.to_str().unwrap(),
        ];
        assert!(Command::new("openssl").args(args).status().unwrap().success());
        let id = settings.public(&name.parse().unwrap()).unwrap().id();
        let bytes = std::fs::read(&signature).unwrap();
        proposal::add_outside(&mut proposal, &verified, "root", &id, &bytes, table.now).unwrap();
        let mut wrong = bytes;
        wrong[0] ^= 1;
        let error = proposal::add_outside(&mut proposal, &verified, "root", &id, &wrong, table.now).unwrap_err();
        assert_eq!(error.broken_rule(), Some(Rule::CeremonySignature));
    }
    let workspace = table.workspace();
    ceremony::keep(
        &mut Operation::new(&workspace, "tester", table.now, &mut tidegate::keys::KeyRing::empty()),
        &proposal,
    )
    .unwrap();
    table.finish(&workspace).unwrap();
    assert_eq!(table.repository().roots().len(), 2);
}

#[test]
fn signatures_by_pkcs11_tool_are_accepted() {
    let Some(token) = Token::new() else { return };
    let mut table = Table::new();
    let dir = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    // Files longer than its buffer pkcs11-tool signs in parts, which EDDSA does not know: Ed25519 is for our own signer.
    for (name, id, kind) in [("token-1", "01", "EC:prime256v1"), ("token-2", "02", "EC:prime256v1")] {
        token.generate(name, id, kind);
        let public = token.public(id, dir.path());
        let path = table.path().join("tidegate.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(
            path,
            format!(
                "{text}\n[keys.{name}]\nuri = \"{}\"\npublic = \"{}\"\n",
                token.uri(name),
                write_public(&public).unwrap()
            ),
        )
        .unwrap();
        names.push((id, public));
    }
    table.edit("\"root-2\", \"root-3\"]", "\"token-1\", \"token-2\"]");
    table.pass(1);
    let mut proposal = table.start().unwrap();
    let verified = proposal::verify(&proposal, Some(&table.first_root())).unwrap();
    let (digest, signature) = (dir.path().join("digest"), dir.path().join("signature"));
    let bytes = proposal.signed_bytes("root").unwrap();
    std::fs::write(&digest, sha2::Sha256::digest(&bytes)).unwrap();
    for (id, public) in &names {
        token.tool(&[
            "--sign",
            "--mechanism",
            "ECDSA",
            "--id",
            id,
            "--input-file",
            digest.to_str().unwrap(),
            "--output-file",
            signature.to_str().unwrap(),
        ]);
        let made = std::fs::read(&signature).unwrap();
        proposal::add_outside(&mut proposal, &verified, "root", &public.id(), &made, table.now).unwrap();
    }
    let copies = table.copies(&proposal, &["root-1", "root-2"]);
    let combined = proposal::combine(&proposal, &copies, Some(&table.first_root())).unwrap();
    let workspace = table.workspace();
    ceremony::keep(
        &mut Operation::new(&workspace, "tester", table.now, &mut tidegate::keys::KeyRing::empty()),
        &combined,
    )
    .unwrap();
    table.finish(&workspace).unwrap();
    drop(workspace);
    assert_eq!(table.repository().roots().len(), 2);
}
