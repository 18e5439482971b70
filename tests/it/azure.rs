//! Azure Blob Storage, as Azurite plays it.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use object_store::azure::MicrosoftAzureBuilder;
use tidegate::publish::{Concurrency, Options, Remote};

use crate::support::s3::free_ports;
use crate::support::{script, tools};

/// A server, until it is dropped.
struct Azurite {
    child: Child,
    endpoint: String,
}

impl Azurite {
    fn start() -> Option<Self> {
        let modules = PathBuf::from(std::env::var_os("TIDEGATE_NODE_MODULES").unwrap_or_else(|| "node_modules".into()));
        let program = modules.join(".bin/azurite-blob");
        if !tools::missing_unless(program.exists(), "azurite-blob") {
            return None;
        }
        let port = free_ports(1)[0];
        let child = Command::new(program)
            .args(["--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--blobPort", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self { child, endpoint: format!("http://127.0.0.1:{port}/devstoreaccount1") };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "Azurite does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(this)
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_is_a_store_like_the_others() {
    let Some(python) = tools::python(&["json"]) else { return };
    let Some(azurite) = Azurite::start() else { return };
    let made = script(&python, "azurite_container.py", &[&azurite.endpoint, "fleet"]);
    let (account, key) = (made["account"].as_str().unwrap(), made["key"].as_str().unwrap());
    let variables = [
        ("AZURE_STORAGE_ACCOUNT_NAME", account),
        ("AZURE_STORAGE_ACCOUNT_KEY", key),
        ("AZURE_STORAGE_ENDPOINT", &azurite.endpoint),
    ];
    let named: std::collections::BTreeMap<_, _> =
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let variables = named.clone().into_iter().collect();
    let remote = Remote::open_with("az://fleet/a/b", &Options { variables, ..Options::default() }).unwrap();
    assert_eq!(remote.concurrency(), Concurrency::Conditional);
    let store = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_access_key(key)
        .with_endpoint(azurite.endpoint.clone())
        .with_container_name("fleet")
        .with_allow_http(true)
        .build()
        .unwrap();
    crate::s3::suite(&store, &remote, "a/b").await;
    crate::places::read_by_commands("az://fleet/commands", &named).await;
}
