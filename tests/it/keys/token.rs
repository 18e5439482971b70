//! A software token for a test: `SoftHSM`, in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate_tuf::key::Key;

use crate::support::tools;

/// A token that disappears with the test.
pub struct Token {
    _dir: tempfile::TempDir,
    configuration: String,
    pub module: PathBuf,
}

impl Token {
    pub const PIN: &'static str = "918273";
    pub const LABEL: &'static str = "Ceremony";

    /// An empty token, or `None` where there is no `SoftHSM`.
    pub fn new() -> Option<Self> {
        if !cfg!(feature = "pkcs11") {
            eprintln!("SKIPPED: this build is without the feature pkcs11");
            return None;
        }
        let places = ["/usr/lib/softhsm", "/usr/lib64/softhsm", "/usr/lib64/pkcs11", "/usr/local/lib/softhsm"];
        let module = places.iter().map(|dir| Path::new(dir).join("libsofthsm2.so")).find(|path| path.exists());
        let there =
            module.is_some() && tools::have("softhsm2-util", "--version") && tools::have("pkcs11-tool", "--version");
        if !tools::missing_unless(there, "softhsm2-util, libsofthsm2.so and pkcs11-tool") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let tokens = dir.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let path = dir.path().join("softhsm2.conf");
        std::fs::write(&path, format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display())).unwrap();
        let configuration = path.to_str().unwrap().to_owned();
        let token = Self { _dir: dir, configuration, module: module? };
        token.run(
            "softhsm2-util",
            &["--init-token", "--free", "--label", Self::LABEL, "--so-pin", "11111111", "--pin", Self::PIN],
        );
        Some(token)
    }

    /// The value of `SOFTHSM2_CONF`.
    pub fn configuration(&self) -> &str {
        &self.configuration
    }

    /// The URI of a key on it.
    pub fn uri(&self, object: &str) -> String {
        let object = object.replace(' ', "%20");
        format!("pkcs11:token={};object={object};type=private?module-path={}", Self::LABEL, self.module.display())
    }

    /// Makes a key pair as `pkcs11-tool` does it.
    pub fn generate(&self, label: &str, id: &str, kind: &str) {
        self.tool(&["--keypairgen", "--key-type", kind, "--label", label, "--id", id, "--usage-sign"]);
    }

    /// The public part of a key on it, as `pkcs11-tool` and openssl give it.
    pub fn public(&self, id: &str, dir: &Path) -> Key {
        let (raw, der) = (dir.join("public"), dir.join("public.der"));
        let (raw, der) = (raw.to_str().unwrap(), der.to_str().unwrap());
        self.tool(&["--read-object", "--type", "pubkey", "--id", id, "--output-file", raw]);
        // PEM or DER, as the kind of key and the version of the tool have it.
        self.run("openssl", &["pkey", "-pubin", "-in", raw, "-pubout", "-outform", "DER", "-out", der]);
        let bytes = std::fs::read(der).unwrap();
        let pem = || String::from_utf8(self.run("openssl", &["pkey", "-pubin", "-in", raw, "-pubout"])).unwrap();
        match bytes.split_last_chunk::<32>().filter(|_| bytes.len() == 44) {
            Some((_, point)) => Key::ed25519(point),
            None if bytes.len() > 200 => Key::rsa_pss(pem()),
            None => Key::ecdsa_p256(pem()),
        }
    }

    /// Runs `pkcs11-tool`, logged in; what it printed.
    pub fn tool(&self, args: &[&str]) -> Vec<u8> {
        let module = self.module.to_str().unwrap();
        self.run(
            "pkcs11-tool",
            &[&["--module", module, "--token-label", Self::LABEL, "--login", "--pin", Self::PIN], args].concat(),
        )
    }

    fn run(&self, program: &str, args: &[&str]) -> Vec<u8> {
        let output = Command::new(program).args(args).env("SOFTHSM2_CONF", &self.configuration).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}
