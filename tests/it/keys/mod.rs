//! One behavioural suite, run against every source of keys.
//!
//! PKCS#11 modules and the AWS SDK take their settings from the environment of the process. So the suite runs in a process of its
//! own: this very binary, told by its environment which key to try.

mod token;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidegate::keys::generate::{Kind, generate};
use tidegate::keys::{Ask, KeyEntry, KeyRing, KeyUri, NoPassphrases, open, signature_bytes, write_public};
use tidegate_tuf::key::Key;

use crate::docs;
use crate::support::tools;
pub use token::Token;

/// Names the key to try, in the child process.
const URI: &str = "TIDEGATE_SUITE_URI";
/// A URI of the same kind with nothing behind it, if the source can tell that from a fault.
const ABSENT: &str = "TIDEGATE_SUITE_ABSENT";
/// What the suite must never print.
const SECRET: &str = "TIDEGATE_PASSPHRASE_K";

/// Runs the suite in a child of this process.
fn suite(uri: &str, environment: &[(&str, &str)]) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "keys::the_suite_on_the_key_of_the_environment", "--ignored", "--nocapture"])
        .env(URI, uri)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{uri}:\n{text}");
    for (name, value) in environment {
        assert!(*name != SECRET || !text.contains(value), "the secret was printed:\n{text}");
    }
}

#[test]
#[ignore = "the suite itself, run by the tests below in a process of its own"]
fn the_suite_on_the_key_of_the_environment() {
    let uri = KeyUri::parse(&std::env::var(URI).unwrap()).unwrap();
    let ask = || Ask::new().without_prompt();
    let key = open("k", &uri, Path::new("/"), None, &mut ask()).unwrap();
    let public = key.public().clone();
    let decoded = public.decode().expect("a key that devices know");

    // It signs whatever it is given, and devices accept exactly that.
    let long = vec![b'x'; 200_000];
    for message in [&b"{}"[..], b"message", &[0, 255, 10, 13], &long] {
        let signature = key.sign(message).unwrap();
        assert!(decoded.verify(message, &signature));
        assert!(!decoded.verify(b"another", &signature));
        let mut altered = signature.clone();
        *altered.last_mut().unwrap() ^= 1;
        assert!(!decoded.verify(message, &altered));
    }

    // It says the same key every time, and can be open twice.
    let again = open("k", &uri, Path::new("/"), Some(&public), &mut ask()).unwrap();
    assert_eq!(*again.public(), public);
    assert!(decoded.verify(b"twice", &again.sign(b"twice").unwrap()));
    assert!(decoded.verify(b"twice", &key.sign(b"twice").unwrap()));

    // Keys of this kind sign what roots of other tools require; no role of a workspace has one.
    if public.keytype() == "rsa" {
        let error = write_public(&public).unwrap_err();
        assert!(error.to_string().contains("no role of a workspace"), "{error}");
        return;
    }

    // What identifies it in tidegate.toml leads back to it.
    assert_eq!(tidegate::keys::parse_public(&write_public(&public).unwrap()).unwrap(), public);

    // A ring gives it out under the declared public part, and under no other.
    let ring = |public: Key, uri: &KeyUri| {
        let entry = KeyEntry { name: "k".into(), uri: uri.clone(), public, holder: None };
        KeyRing::new(Path::new("/"), vec![entry], Box::new(ask()))
    };
    ring(public.clone(), &uri).signer("k").unwrap();
    let other = generate(Kind::Ed25519, None).unwrap().public;
    let error = ring(other, &uri).signer("k").unwrap_err();
    assert!(error.to_string().contains("but tidegate.toml says"), "{error}");

    // A secret that is wanted and not given, or wrong, is an error that says what to do, and nothing hangs or leaks.
    if std::env::var_os(SECRET).is_some() {
        let error = open("k", &uri, Path::new("/"), None, &mut NoPassphrases).unwrap_err();
        assert!(error.to_string().contains("no passphrase was given"), "{error}");
    }
    eprintln!("{key:?} {uri}");

    // A key that is not at hand is passed over when another will do, and named when none will.
    if let Ok(absent) = std::env::var(ABSENT) {
        let absent = KeyUri::parse(&absent).unwrap();
        assert!(open("k", &absent, Path::new("/"), None, &mut ask()).unwrap_err().is_not_found(), "{absent}");
        let error = ring(public.clone(), &absent).signers_for("stable", &[public.id()], 1).unwrap_err();
        assert!(error.to_string().contains("missing: k"), "{error}");
    }
}

/// Writes a fresh key; its path.
fn key_file(dir: &Path, kind: Kind, passphrase: Option<&str>) -> PathBuf {
    let path = dir.join("k.pem");
    std::fs::write(&path, generate(kind, passphrase).unwrap().pem.as_bytes()).unwrap();
    owner_only(&path);
    path
}

fn owner_only(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn files() {
    for kind in [Kind::Ed25519, Kind::P256] {
        for passphrase in [None, Some("correct horse")] {
            let dir = tempfile::tempdir().unwrap();
            let path = key_file(dir.path(), kind, passphrase);
            let mut environment = vec![(ABSENT, "file:/no/such.pem")];
            environment.extend(passphrase.map(|passphrase| (SECRET, passphrase)));
            suite(&format!("file:{}", path.display()), &environment);
        }
    }
}

/// An RSA key by openssl, as tuftool makes them; then in the form of older tools, then encrypted.
#[test]
fn rsa_files() {
    if !tools::have("openssl", "version") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let openssl = |args: &str| {
        let status = Command::new("openssl").args(args.split(' ')).current_dir(folder.path()).status().unwrap();
        assert!(status.success(), "{args}");
    };
    openssl("genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out pkcs8.pem");
    openssl("rsa -in pkcs8.pem -traditional -out pkcs1.pem");
    openssl("pkcs8 -topk8 -in pkcs8.pem -passout pass:horse -out locked.pem");
    openssl("genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out short.pem");
    for name in ["pkcs8.pem", "pkcs1.pem", "locked.pem", "short.pem"] {
        owner_only(&folder.path().join(name));
    }
    for name in ["pkcs8.pem", "pkcs1.pem"] {
        suite(&format!("file:{}", path(name)), &[]);
    }
    suite(&format!("file:{}", path("locked.pem")), &[(SECRET, "horse")]);

    // openssl verifies what we sign with the public key that we make of it.
    let key = open("k", &KeyUri::File(path("pkcs1.pem").into()), Path::new("/"), None, &mut NoPassphrases).unwrap();
    std::fs::write(path("public.pem"), key.public().to_value()["keyval"]["public"].as_str().unwrap()).unwrap();
    std::fs::write(path("message"), "message").unwrap();
    std::fs::write(path("signature"), key.sign(b"message").unwrap()).unwrap();
    openssl(
        "dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -verify public.pem -signature signature message",
    );

    let short = KeyUri::File(path("short.pem").into());
    let error = open("k", &short, Path::new("/"), None, &mut NoPassphrases).unwrap_err();
    assert!(
        error.to_string().contains("2048 to 4096 bits") || error.remedy_text().unwrap().contains("2048"),
        "{error}"
    );
}

#[test]
fn tokens() {
    let Some(token) = Token::new() else { return };
    for (id, kind) in [("01", "EC:edwards25519"), ("02", "EC:prime256v1")] {
        let label = format!("key {id}");
        token.generate(&label, id, kind);
        let absent = format!("pkcs11:token=nowhere;object=x?module-path={}", token.module.display());
        let environment = [("SOFTHSM2_CONF", token.configuration()), (SECRET, Token::PIN), (ABSENT, &absent)];
        suite(&token.uri(&label), &environment);
    }
}

#[test]
fn programs() {
    if !tools::have("openssl", "version") {
        return;
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/sign-with-openssl");
    for kind in [Kind::Ed25519, Kind::P256] {
        let dir = tempfile::tempdir().unwrap();
        let path = key_file(dir.path(), kind, None);
        suite(
            &format!("command:{}?arg={}", program.display(), path.display()),
            &[(ABSENT, "command:/no/such/program")],
        );
    }
}

/// Every command that docs/keys.md gives for other programs makes a signature that is taken in.
#[test]
fn documented_commands_of_other_programs_sign() {
    let Some(token) = Token::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("root.bytes"), vec![b'x'; 100_000]).unwrap();
    token.generate("p256", "02", "EC:prime256v1");
    token.generate("rsa", "03", "rsa:2048");
    let openssl = "openssl genpkey -quiet -algorithm ed25519 -out ed25519.pem
        openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out p256.pem
        openssl genpkey -quiet -algorithm RSA -out rsa.pem; chmod 600 *.pem";
    let shell = |commands: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-euc", commands]).current_dir(folder.path()).env("SOFTHSM2_CONF", token.configuration());
        let output = bash.env("MODULE", &token.module).env("TOKEN", Token::LABEL).output().unwrap();
        assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
    };
    shell(openssl);
    let file = |name: &str| {
        let uri = KeyUri::File(path(name));
        open("k", &uri, Path::new("/"), None, &mut NoPassphrases).unwrap().public().clone()
    };
    let mut keys = vec![file("ed25519.pem"), file("p256.pem"), file("rsa.pem")];
    keys.extend(["02", "03"].map(|id| token.public(id, folder.path())));

    let blocks: Vec<_> = docs::blocks("docs/keys.md").into_iter().filter(|block| block.info == "sh outside").collect();
    assert_eq!(blocks.len(), keys.len());
    for (block, key) in blocks.iter().zip(&keys) {
        shell(&block.text.replace("--login", &format!("--login --pin {}", Token::PIN)));
        let made = std::fs::read(path("root.sig")).unwrap();
        let signature = signature_bytes(key, &made).unwrap();
        let message = std::fs::read(path("root.bytes")).unwrap();
        assert!(key.decode().unwrap().verify(&message, &signature), "{}", block.text);
        std::fs::remove_file(path("root.sig")).unwrap();
    }
}

#[cfg(feature = "kms")]
#[test]
fn kms() {
    use std::io::{BufRead as _, BufReader};
    let Some(python) = tools::python(&["moto.server", "boto3"]) else { return };
    let mut server = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/kms.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut parts = line.split_whitespace();
    let endpoint = parts.next().unwrap();
    let environment =
        [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_EC2_METADATA_DISABLED", "true")];
    for key in parts {
        suite(&format!("kms:{key}?region=eu-central-1&endpoint={endpoint}"), &environment);
    }
    let folder = tempfile::tempdir().unwrap();
    let tidegate = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("-C").arg(folder.path());
        command
    };
    assert!(tidegate().args(["-q", "init", "--example-keys"]).status().unwrap().success());
    let check = |uri: &str, environment: &[(&str, &str)]| {
        let mut command = tidegate();
        command.args(["key", "import", "k", uri]).env_clear().env("AWS_EC2_METADATA_DISABLED", "true");
        let output = command.envs(environment.iter().copied()).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let absent = format!("kms:nokey?region=eu-central-1&endpoint={endpoint}");
    for (said, why, remedy) in [
        (
            check(&absent, &environment),
            "cannot read the public key: NotFoundException: Invalid keyId nokey\n",
            "id or alias",
        ),
        (check(&absent, &[]), "no providers in chain provided credentials\n", "AWS_PROFILE"),
        (
            check("kms:k?region=eu-central-1&endpoint=http://127.0.0.1:9", &environment),
            "Connection refused",
            "?endpoint=",
        ),
    ] {
        assert!(said.contains(why) && said.contains(remedy) && said.lines().count() == 2, "{said}");
    }
    drop(server.stdin.take());
    server.wait().unwrap();
}

#[test]
fn openssl_reads_our_files_and_we_read_its() {
    if !tools::have("openssl", "version") {
        return;
    }
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    for kind in [Kind::Ed25519, Kind::P256] {
        let dir = tempfile::tempdir().unwrap();
        let path = key_file(dir.path(), kind, Some("correct horse"));
        let plain = dir.path().join("plain.pem");
        let (path, plain) = (path.to_str().unwrap(), plain.to_str().unwrap());
        assert!(std::fs::read_to_string(path).unwrap().starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        openssl(&["pkey", "-in", path, "-passin", "pass:correct horse", "-out", plain]);
        owner_only(Path::new(plain));
        let theirs = open("k", &KeyUri::File(plain.into()), Path::new("/"), None, &mut NoPassphrases).unwrap();
        // And back again, encrypted by openssl with its own choice of PBES2.
        let again = dir.path().join("again.pem");
        let again = again.to_str().unwrap();
        openssl(&["pkcs8", "-topk8", "-in", plain, "-passout", "pass:correct horse", "-out", again]);
        owner_only(Path::new(again));
        let scheme = theirs.public().clone();
        let environment = [(SECRET, "correct horse")];
        suite(&format!("file:{again}"), &environment);
        assert!(theirs.public().decode().unwrap().verify(b"m", &theirs.sign(b"m").unwrap()));
        assert_eq!(*theirs.public(), scheme);
    }
}
