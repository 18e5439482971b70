//! Real servers that speak S3: one in this process, moto, and SeaweedFS.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tidegate::publish::{Options, Remote, Variables};
use tokio::net::TcpListener;

use super::tools;

/// The bucket that every server has.
pub const BUCKET: &str = "fleet";
/// A bucket for what is private, on moto and SeaweedFS.
pub const VAULT: &str = "vault";
/// Who else SeaweedFS knows: name, key, secret, and what each may do. Without credentials anyone reads the first bucket.
const OTHERS: [(&str, &str, &str, &[&str]); 4] = [
    ("public", "public-key", "public-secret-0123456789", &["Read:fleet", "Write:fleet", "List:fleet", "Tagging:fleet"]),
    ("private", "vault-key", "vault-secret-0123456789", &["Read:vault", "Write:vault", "List:vault", "Tagging:vault"]),
    ("gate", "gate-key", "gate-secret-0123456789", &["Read:vault", "List:vault"]),
    ("anonymous", "", "", &["Read:fleet"]),
];
const KEY: &str = "tidegate-key";
const SECRET: &str = "tidegate-secret-0123456789";

/// A server, until it is dropped.
pub struct S3 {
    pub endpoint: String,
    /// Where the server keeps its objects as files, one a key, if it does.
    pub folder: Option<PathBuf>,
    /// The URL of the server that it is led by, if it has one.
    master: Option<String>,
    key: String,
    secret: String,
    _keep: Keep,
}

enum Keep {
    Task(tokio::task::JoinHandle<()>, #[allow(dead_code, reason = "removed with the server")] tempfile::TempDir),
    Process(Child, #[allow(dead_code, reason = "removed with the server")] Option<tempfile::TempDir>),
}

impl Drop for Keep {
    fn drop(&mut self) {
        match self {
            Self::Task(task, _) => task.abort(),
            Self::Process(child, _) => {
                // Some end with their standard input, some do not.
                drop(child.stdin.take());
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

impl S3 {
    /// In this process: at once there, authenticates, and its conditional writes are not atomic.
    pub async fn here() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let _ = socket.set_nodelay(true);
                let service = service.clone();
                tokio::spawn(async move {
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        let path = folder.path().join(BUCKET);
        Self {
            endpoint,
            folder: Some(path),
            master: None,
            key: KEY.into(),
            secret: SECRET.into(),
            _keep: Keep::Task(task, folder),
        }
    }

    /// moto: conditional writes are atomic, keys are not checked.
    pub fn moto() -> Option<Self> {
        let python = tools::python(&["moto.server", "boto3"])?;
        let mut child = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/s3.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "moto did not start");
        let keep = Keep::Process(child, None);
        Some(Self {
            endpoint: line.trim().into(),
            folder: None,
            master: None,
            key: "test".into(),
            secret: "test".into(),
            _keep: keep,
        })
    }

    /// SeaweedFS: authenticates, and is the one that is fast.
    pub async fn seaweed() -> Option<Self> {
        let weed = tools::beside_python("weed", "version")?;
        for _ in 0..3 {
            // Ports that were free a moment ago may be another's by the time that the server has come so far.
            let this = Self::start_seaweed(&weed);
            if this.is_ready_with(BUCKET).await {
                return Some(this);
            }
        }
        panic!("SeaweedFS did not come up");
    }

    fn start_seaweed(weed: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut identities = vec![serde_json::json!({
            "name": "publisher", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"],
        })];
        identities.extend(OTHERS.map(|(name, key, secret, actions)| match key {
            "" => serde_json::json!({"name": name, "actions": actions}),
            _ => serde_json::json!({
                "name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions,
            }),
        }));
        let identities = serde_json::json!({ "identities": identities });
        let config = folder.path().join("s3.json");
        std::fs::write(&config, identities.to_string()).unwrap();
        let ports: Vec<u16> = free_ports(6);
        let (child, endpoint) = start_weed(weed, folder.path(), &config, &ports);
        Self {
            endpoint,
            master: Some(format!("http://127.0.0.1:{}", ports[0])),
            folder: None,
            key: KEY.into(),
            secret: SECRET.into(),
            _keep: Keep::Process(child, Some(folder)),
        }
    }

    /// The variables by which one of the others is known to SeaweedFS.
    pub fn variables_of(&self, name: &str) -> Vec<(String, String)> {
        let (_, key, secret, _) = OTHERS.into_iter().find(|other| other.0 == name).unwrap();
        self.variables_with(key, secret)
    }

    /// The variables by which the server knows whoever has this key.
    pub fn variables_with(&self, key: &str, secret: &str) -> Vec<(String, String)> {
        let mut variables = self.variables();
        for (variable, value) in &mut variables {
            match variable.as_str() {
                "AWS_ACCESS_KEY_ID" => key.clone_into(value),
                "AWS_SECRET_ACCESS_KEY" => secret.clone_into(value),
                _ => {}
            }
        }
        variables
    }

    /// Makes a bucket of a server that is up.
    pub async fn make_bucket(&self, bucket: &str) {
        assert!(self.is_ready_with(bucket).await, "SeaweedFS made no bucket {bucket}");
    }

    /// Asks until the server is up and the bucket is there; not for ever.
    async fn is_ready_with(&self, bucket: &str) -> bool {
        use object_store::signer::Signer as _;
        let url = self.builder().with_bucket_name(bucket).build().unwrap();
        let client = reqwest::Client::new();
        for _ in 0..300 {
            // The URL of the bucket itself: that of an object without its name.
            let signed = url.signed_url(reqwest::Method::PUT, &"".into(), Duration::from_secs(60)).await.unwrap();
            match client.put(signed).send().await {
                Ok(answer) if answer.status().is_success() || answer.status() == 409 => break,
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        // Volumes made beforehand: the first writers of a collection wait for them otherwise, and many at once wait long.
        for collection in [bucket, ""] {
            let master = self.master.as_ref().unwrap();
            let url = format!("{master}/vol/grow?collection={collection}&count=4&replication=000");
            // Until the server of volumes has made itself known there is none to grow on.
            let mut grown = false;
            for _ in 0..300 {
                grown = client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success());
                if grown {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            if !grown {
                return false;
            }
        }
        true
    }

    fn builder(&self) -> AmazonS3Builder {
        let _ = rustls::crypto::ring::default_provider().install_default();
        AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_bucket_name(BUCKET)
            .with_region("us-east-1")
            .with_access_key_id(&self.key)
            .with_secret_access_key(&self.secret)
            .with_allow_http(true)
    }

    /// The bucket as a store, without anything of ours between.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        self.store_of(BUCKET)
    }

    /// The same of another bucket.
    pub fn store_of(&self, bucket: &str) -> Arc<dyn ObjectStore> {
        Arc::new(self.builder().with_bucket_name(bucket).build().unwrap())
    }

    /// The variables that lead to it.
    pub fn variables(&self) -> Vec<(String, String)> {
        self.variables_at(&self.endpoint)
    }

    /// The same through something in between.
    pub fn variables_at(&self, endpoint: &str) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_ACCESS_KEY_ID", &self.key),
            ("AWS_SECRET_ACCESS_KEY", &self.secret),
            ("AWS_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/nonexistent"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Options that lead to it, impatient ones.
    pub fn options(&self) -> Options {
        self.options_at(&self.endpoint)
    }

    /// The same through something in between.
    pub fn options_at(&self, endpoint: &str) -> Options {
        Options {
            retry_for: Duration::from_secs(5),
            variables: self.variables_at(endpoint).into_iter().collect::<Variables>(),
            ..Options::default()
        }
    }

    /// A place in its bucket, as the publisher opens it.
    pub fn remote(&self, prefix: &str) -> Remote {
        Remote::open_with(&format!("s3://{BUCKET}/{prefix}"), &self.options()).unwrap()
    }

    /// Where devices find that place, if the server lets everyone read.
    pub fn url(&self, prefix: &str) -> String {
        format!("{}/{BUCKET}/{prefix}", self.endpoint)
    }
}

fn start_weed(weed: &Path, folder: &Path, config: &Path, ports: &[u16]) -> (Child, String) {
    let [master, volume, filer, s3, iceberg, lance] = ports else { panic!("six ports") };
    let log = std::fs::File::create(folder.join("weed.log")).unwrap();
    let grpc = |port: &u16| (port + 1).to_string();
    let data = folder.join("data");
    std::fs::create_dir(&data).unwrap();
    let child = Command::new(weed)
        .arg("server")
        .arg(format!("-dir={}", data.display()))
        .args(["-ip=127.0.0.1", "-filer", "-s3", "-volume.max=100", "-master.volumeSizeLimitMB=64"])
        .args(["-master.telemetry=false", "-s3.iam=false"])
        .arg(format!("-master.port={master}"))
        .arg(format!("-master.port.grpc={}", grpc(master)))
        .arg(format!("-volume.port={volume}"))
        .arg(format!("-volume.port.grpc={}", grpc(volume)))
        .arg(format!("-filer.port={filer}"))
        .arg(format!("-filer.port.grpc={}", grpc(filer)))
        .arg(format!("-s3.port={s3}"))
        .arg(format!("-s3.port.grpc={}", grpc(s3)))
        .arg(format!("-s3.port.iceberg={iceberg}"))
        .arg(format!("-s3.port.lance={lance}"))
        .arg(format!("-s3.config={}", config.display()))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    (child, format!("http://127.0.0.1:{s3}"))
}

/// Ports that are free, and the next one to each as well.
pub fn free_ports(count: usize) -> Vec<u16> {
    let mut found = Vec::new();
    let mut held = Vec::new();
    while found.len() < count {
        let first = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port.saturating_add(1)))) {
            found.push(port);
            held.push(second);
        }
        held.push(first);
    }
    found
}
