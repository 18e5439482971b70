//! Evidence by a TPM 2.0: a quote, made by tpm2-tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::{AttestError, Attestor, Challenge, Evidence};
use crate::command::{Command, Ran};
use crate::disk::read_regular;
use tidegate_model::gate::Attestation;

/// The number of registers in a bank.
const REGISTERS: u8 = 24;
/// The maximum length of a file that the tool writes, in bytes.
const LENGTH: u64 = 4096;
/// The default time limit of a quote: TPMs are slow.
const LIMIT: Duration = Duration::from_secs(30);
/// What a quote consists of.
const FILES: [&str; 3] = ["quote", "signature", "pcrs"];

/// A bank of registers: the hash by which they are extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Bank {
    /// The bank that `tidegate-gate` checks.
    #[default]
    Sha256,
    /// For gates that check this bank.
    Sha384,
    /// For gates that check this bank.
    Sha512,
}

impl Bank {
    /// Every bank that is known, by name.
    pub const ALL: [(&str, Self); 3] = [("sha256", Self::Sha256), ("sha384", Self::Sha384), ("sha512", Self::Sha512)];

    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// The length of a register in bytes.
    fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl FromStr for Bank {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        let found = Self::ALL.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, bank)| bank).ok_or("it is no bank of registers: use one of sha256, sha384, sha512")
    }
}

/// The options of a quote.
#[derive(Debug, Clone)]
pub struct TpmOptions {
    /// The attestation key: a persistent handle such as `0x81010002`, or the file of a saved context. With a saved context, access the TPM through a
    /// resource manager (`/dev/tpmrm0`), which unloads it again.
    pub key: String,
    /// The key's authorization, as tpm2-tools read it: `file:PATH` rather than the secret itself, which others could see among the running processes.
    pub auth: Option<String>,
    /// How to reach the TPM, such as `device:/dev/tpmrm0`. `None` for the environment's setting or the default of tpm2-tools.
    pub tcti: Option<String>,
    /// The bank.
    pub bank: Bank,
    /// The registers, 0 to 23, at least one.
    pub pcrs: BTreeSet<u8>,
    /// The program, `tpm2_quote` of tpm2-tools 5 unless it is set, with its time limit.
    pub program: Option<Command>,
}

/// Makes a TPM quote its registers.
#[derive(Debug, Clone)]
pub struct TpmAttestor {
    command: Command,
    bank: Bank,
    pcrs: BTreeSet<u8>,
    folder: PathBuf,
}

impl TpmAttestor {
    /// An attestor that makes, for each quote, a folder for its temporary files in this one, which should be in memory or the device's state folder.
    ///
    /// # Errors
    ///
    /// The problem with the options.
    pub fn new(options: TpmOptions, folder: impl Into<PathBuf>) -> Result<Self, &'static str> {
        let TpmOptions { key, auth, tcti, bank, pcrs, program } = options;
        if pcrs.is_empty() || pcrs.iter().any(|pcr| *pcr >= REGISTERS) {
            return Err("name at least one register, of 0 to 23");
        }
        if key.is_empty() || key.starts_with('-') {
            return Err(
                "name the attestation key: a persistent handle such as 0x81010002, or the file of a saved context",
            );
        }
        // Argument lists are readable by every process on the device.
        let names_a_place = |auth: &String| ["file:", "session:"].iter().any(|kind| auth.starts_with(kind));
        if !auth.as_ref().is_none_or(names_a_place) {
            return Err("name the file that holds the key's authorization, as file:PATH, not the authorization itself");
        }
        let numbers: Vec<String> = pcrs.iter().map(u8::to_string).collect();
        let list = format!("{}:{}", bank.name(), numbers.join(","));
        let program = program.unwrap_or_else(|| Command::new(["tpm2_quote".to_owned()], LIMIT));
        let mut command =
            program.inherit(&["TPM2TOOLS_TCTI".to_owned()]).arguments(&["-Q", "-c", &key, "-l", &list, "-g", "sha256"]);
        if let Some(auth) = auth {
            command = command.arguments(&["-p", &auth]);
        }
        if let Some(tcti) = tcti {
            command = command.variable("TPM2TOOLS_TCTI", &tcti);
        }
        Ok(Self { command, bank, pcrs, folder: folder.into() })
    }

    /// With the files in this folder.
    fn quote(&self, challenge: &Challenge<'_>, folder: &Path) -> Result<Evidence, AttestError> {
        let [message, signature, values] = FILES.map(|name| folder.join(name));
        let data = challenge.quote_data().to_string();
        let shown = |path: &Path| path.display().to_string();
        let arguments =
            ["-q", &data, "-m", &shown(&message), "-s", &shown(&signature), "-o", &shown(&values), "-F", "values"];
        self.command.clone().arguments(&arguments).run().and_then(Ran::success)?;
        let values = read(&values)?;
        let length = self.bank.length();
        if values.len() != self.pcrs.len() * length {
            let why = format!("it gave {} bytes of {} registers, not {length} for each", values.len(), self.pcrs.len());
            return Err(AttestError::Answer { program: self.command.program().to_owned(), why });
        }
        let named = |(pcr, value): (&u8, &[u8])| (format!("{}:{pcr}", self.bank.name()), value.to_vec());
        let pcrs: BTreeMap<_, _> = self.pcrs.iter().zip(values.chunks_exact(length)).map(named).collect();
        Ok(Evidence::Tpm2 { quote: read(&message)?, signature: read(&signature)?, pcrs })
    }
}

impl Attestor for TpmAttestor {
    fn kind(&self) -> Option<Attestation> {
        Some(Attestation::Tpm2)
    }

    fn evidence(&self, challenge: &Challenge<'_>) -> Result<Evidence, AttestError> {
        let folder = self.folder.join(format!("quote-{}", std::process::id()));
        // Files of an earlier process with the same id must not count as this quote.
        let made = clear(&folder).and_then(|()| make_folder(&folder));
        made.map_err(|source| AttestError::File { action: "make", path: folder.clone(), source })?;
        let evidence = self.quote(challenge, &folder);
        // If that fails, the next quote reports it.
        let _ = clear(&folder);
        evidence
    }
}

/// Removes only the files of a quote and their folder.
fn clear(folder: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    FILES.iter().try_for_each(|name| gone(fs::remove_file(folder.join(name))))?;
    gone(fs::remove_dir(folder))
}

/// Readable only by its owner.
fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

fn read(path: &Path) -> Result<Vec<u8>, AttestError> {
    let failed = |source| AttestError::File { action: "read", path: path.to_owned(), source };
    read_regular(path, LENGTH).map_err(failed)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Stands in for `tpm2_quote`: what it is called with goes into the quote. The real one is in the gate's tests, with a TPM.
    const TOOL: &str = r#"
        all="$*"; while [ $# -gt 0 ]; do case $1 in -m) m=$2;; -s) s=$2;; -o) o=$2;; esac; shift; done
        printf '%s' "$TPM2TOOLS_TCTI $all" > "$m"; printf sig > "$s"; printf "$VALUES" > "$o""#;

    fn options(values: &str) -> TpmOptions {
        let words = ["sh", "-c", TOOL, "tpm2_quote"].map(String::from);
        TpmOptions {
            key: "0x81010002".into(),
            auth: Some("file:/etc/ak".into()),
            tcti: Some("device:/dev/tpmrm0".into()),
            bank: Bank::Sha256,
            pcrs: BTreeSet::from([7, 0]),
            program: Some(Command::new(words, LIMIT).variable("VALUES", values)),
        }
    }

    fn evidence(options: TpmOptions, folder: &Path) -> Result<Evidence, AttestError> {
        let (gate, device) = ("https://gate.example.com".parse().unwrap(), "device-1".parse().unwrap());
        let challenge = Challenge { gate: &gate, device: &device, nonce: b"nonce" };
        TpmAttestor::new(options, folder).unwrap().evidence(&challenge)
    }

    #[test]
    fn the_quote_names_its_registers() {
        let folder = tempfile::tempdir().unwrap();
        let values = "a".repeat(32) + &"b".repeat(32);
        let Evidence::Tpm2 { quote, signature, pcrs } = evidence(options(&values), folder.path()).unwrap() else {
            panic!()
        };
        let data = tidegate_model::gate::quote_data("gate.example.com", b"nonce", &"device-1".parse().unwrap());
        let called = String::from_utf8(quote).unwrap();
        let expected =
            format!("device:/dev/tpmrm0 -Q -c 0x81010002 -l sha256:0,7 -g sha256 -p file:/etc/ak -q {data} -m ");
        assert!(called.starts_with(&expected), "{called}");
        assert_eq!(signature, b"sig");
        let expected = [("sha256:0".to_owned(), vec![b'a'; 32]), ("sha256:7".to_owned(), vec![b'b'; 32])];
        assert_eq!(pcrs, BTreeMap::from(expected));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves nothing");
    }

    #[test]
    fn invalid_quotes_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let failing = |script: &str| {
            let program = Some(Command::new(["sh", "-c", script].map(String::from), Duration::from_secs(20)));
            evidence(TpmOptions { program, ..options("") }, folder.path()).unwrap_err().to_string()
        };
        for (error, expected) in [
            (evidence(options("short"), folder.path()).unwrap_err().to_string(), "5 bytes of 2 registers"),
            (failing("echo ERROR: no TPM >&2; exit 1"), "no TPM"),
            (failing("true"), "cannot read"),
        ] {
            assert!(error.contains(expected), "{error}");
        }
        // Files of an earlier quote are not used, and foreign files are not removed.
        let left = folder.path().join(format!("quote-{}", std::process::id()));
        fs::create_dir_all(&left).unwrap();
        for name in FILES {
            fs::write(left.join(name), [0; 64]).unwrap();
        }
        fs::write(folder.path().join("quote"), "another's").unwrap();
        assert!(failing("true").contains("cannot read"));
        assert_eq!(fs::read(folder.path().join("quote")).unwrap(), b"another's");
    }

    #[test]
    fn what_cannot_be_quoted_is_refused_at_once() {
        let with = |change: fn(&mut TpmOptions)| {
            let mut options = options("");
            change(&mut options);
            TpmAttestor::new(options, "/nowhere").is_err()
        };
        assert!(with(|options| options.pcrs.clear()));
        assert!(with(|options| options.pcrs = BTreeSet::from([24])));
        assert!(with(|options| options.key.clear()));
        assert!(with(|options| options.key = "--help".into()));
        assert!(!with(|_| ()));
        assert!("md5".parse::<Bank>().is_err());
    }
}
