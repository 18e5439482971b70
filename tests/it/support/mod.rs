//! What the integration tests share.

pub mod chance;
pub mod faulty;
pub mod fleet;
pub mod forge;
pub mod proxy;
pub mod s3;
pub mod tools;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate::publish::{self, PublishReport, Remote, Source};
use tidegate::serve::{Exchange, Meter, Server};

pub use fleet::Fleet;
pub use forge::Forge;

/// Says that a test does not run here, and why. In CI every test runs, so there it is a failure.
pub fn skip(reason: &str) {
    let required = std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_some_and(|value| value == "1");
    assert!(!required, "this test must run here: {reason} (TIDEGATE_REQUIRE_TOOLS is set)");
    eprintln!("SKIPPED: {reason}");
}

/// A Python that has python-tuf; without one the test is skipped. `pip install -r tests/interop/requirements.txt` brings it.
pub fn python_tuf() -> Option<PathBuf> {
    tools::python(&["tuf"])
}

/// Runs a script of `tests/interop` and gives back what it prints, which must be JSON.
pub fn script(python: &Path, name: &str, args: &[&str]) -> serde_json::Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name);
    let out = Command::new(python).arg(script).args(args).output().unwrap();
    assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Publishes a workspace to a folder.
pub async fn publish(forge: &Forge, place: &Path) -> PublishReport {
    let (source, remote) = (Source::new(forge.dir()), Remote::open(place.to_str().unwrap()).unwrap());
    let plan = publish::plan(&source, &remote, forge.now()).await.unwrap();
    publish::execute(&plan, &source, &remote, &|_| {}).await.unwrap()
}

/// A server of our own over a folder, until it is dropped.
pub struct Serving {
    address: SocketAddr,
    meter: Meter,
    log: Arc<Mutex<Vec<Exchange>>>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Serving {
    pub async fn start(folder: &Path) -> Self {
        let log = Arc::<Mutex<Vec<Exchange>>>::default();
        let seen = Arc::clone(&log);
        let server = Server::bind(folder, ([127, 0, 0, 1], 0).into()).await.unwrap();
        let server = server.observe(move |exchange| seen.lock().unwrap().push(exchange.clone()));
        let (address, meter) = (server.address(), server.meter());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self { address, meter, log, _stop: stop }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// What was asked for since the last call: path and status.
    pub fn take_log(&self) -> Vec<(String, u16)> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.drain(..).map(|exchange| (exchange.path, exchange.status.as_u16())).collect()
    }
}

/// The words of a line as a shell takes them, up to what is the shell's own.
pub fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, false);
    for c in line.chars() {
        match c {
            '\'' => {
                quote = !quote;
                word.get_or_insert_default();
            }
            ' ' if !quote => words.extend(word.take()),
            '>' | '&' if !quote => break,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
