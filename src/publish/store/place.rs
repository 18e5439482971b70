//! Opens a place by its URL: which store it is, which credentials to use, and which timeouts.
//!
//! Credentials come from the sources of each store's own tools: environment variables, for S3 also AWS command line profiles, and
//! the roles of instances and containers. They are never taken from the command line, and never shown.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use reqwest::header::HeaderValue;
use url::Url;

use super::anyone::Anyone;
use super::fault::Secrets;
use super::headers::HeaderRules;
use super::logged::LoggedConnector;
use super::profile::Profile;
use super::remote::{Backend, Remote, Writes};
use super::upload::PART;
use super::variables::Variables;
use crate::audit::has_slashes;
use crate::error::{Error, Result, chain};

/// Timeout of one request: a part of 8 MiB at 64 kB/s.
const REQUEST: Duration = Duration::from_secs(120);
/// Timeout of a connection attempt.
const CONNECT: Duration = Duration::from_secs(10);

/// How a place is used.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a request with a transient failure is retried, with growing pauses.
    pub retry_for: Duration,
    /// Timeout of one attempt of a request.
    pub timeout: Duration,
    /// Length of the parts of large files; four parts are in memory at once. The minimum of S3 is 5 MiB.
    pub part: u64,
    /// The headers of objects.
    pub headers: HeaderRules,
    /// The source of endpoints, regions and credentials.
    pub variables: Variables,
    /// The folder that remembers unfinished uploads and probed stores; without one nothing is remembered.
    pub memory: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retry_for: Duration::from_secs(180),
            timeout: REQUEST,
            part: PART,
            headers: HeaderRules::default(),
            variables: Variables::of_process(),
            memory: None,
        }
    }
}

impl Options {
    /// The folder where a workspace remembers unfinished uploads and probed stores; not for version control.
    #[must_use]
    pub fn in_workspace(mut self, dir: &Path) -> Self {
        self.memory = Some(dir.join(".tidegate/remote"));
        self
    }

    fn retry(&self) -> RetryConfig {
        let ceiling = (self.retry_for / 4).clamp(Duration::from_millis(20), Duration::from_secs(15));
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: ceiling.min(Duration::from_millis(100)),
                max_backoff: ceiling,
                base: 2.0,
            },
            max_retries: if self.retry_for.is_zero() { 0 } else { 12 },
            retry_timeout: self.retry_for,
        }
    }

    /// The options that every store's client takes, as keys and values.
    fn client(&self) -> [(ClientConfigKey, String); 2] {
        [
            (ClientConfigKey::Timeout, format!("{}ms", self.timeout.as_millis())),
            (ClientConfigKey::ConnectTimeout, format!("{}ms", CONNECT.min(self.timeout).as_millis())),
        ]
    }
}

/// Opens a place to publish to.
pub(super) fn open_to_write(place: &str, options: &Options) -> Result<Remote> {
    // Never write over plain HTTP.
    if let Some(("http" | "https", _)) = place.split_once("://") {
        let url = Url::parse(place).map_err(|error| invalid(host_and_path(place), &error.to_string()))?;
        return Err(Error::usage(format!(
            "{} is a web server, and Tidegate only reads from web servers",
            shown(&url)
        ))
        .remedy(
            "give s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, or a folder that the web server serves",
        ));
    }
    open_to_read(place, options)
}

/// Opens a place to read, which may also be a web server.
pub(super) fn open_to_read(place: &str, options: &Options) -> Result<Remote> {
    has_slashes(place)?;
    // A scheme of one letter is a Windows drive.
    match place.split_once("://") {
        Some(("file", _)) => folder(&local_path(place)?, place, options),
        Some((scheme, _)) if scheme.len() > 1 => {
            let url = Url::parse(place).map_err(|error| invalid(host_and_path(place), &error.to_string()))?;
            if url.password().is_some() {
                return Err(Error::usage(format!(
                    "the URL of {} holds a password, which others can read",
                    shown(&url)
                ))
                .remedy("remove it from the URL; docs/publish.md lists where credentials come from"));
            }
            install_cryptography();
            match url.scheme() {
                "s3" | "s3a" => s3(&url, options),
                "gs" => gcs(&url, options),
                "az" | "azure" | "abfs" | "abfss" => azure(&url, options),
                "http" | "https" => http(&url, options),
                scheme => Err(Error::usage(format!("there is no store behind {scheme}://"))
                    .remedy("give s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, or a folder")),
            }
        }
        _ => folder(Path::new(place), place, options),
    }
}

/// Uses `ring` for TLS, as on devices. A provider that the embedding program has already installed stays.
fn install_cryptography() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn folder(path: &Path, place: &str, options: &Options) -> Result<Remote> {
    // Keys are relative to the root of the file system, so the folder need not exist yet.
    let root = resolved(path).map_err(|error| Error::io("find", path, error))?;
    let prefix = Key::from_absolute_path(&root)
        .map_err(|error| Error::usage(format!("{place} cannot be published to")).with_source(error))?;
    // This makes only written files durable, not their removal.
    let store = LocalFileSystem::new().with_fsync(true);
    let mut remote = Remote::new(Arc::new(store), prefix, Backend::Folder(root), place, options);
    // A folder stores no headers; the program that serves it sets them.
    remote.headers.compress = false;
    Ok(remote)
}

/// The absolute folder of a path, existing or not, with links and `..` of existing parts resolved.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            Ok(resolved(parent)?.join(name))
        }
        (found, _, _) => found,
    }
}

fn s3(url: &Url, options: &Options) -> Result<Remote> {
    let variables = &options.variables;
    // Asked for by buckets with object lock, besides the checksum itself.
    let header = ("x-amz-sdk-checksum-algorithm", "SHA256");
    let headers = [(reqwest::header::HeaderName::from_static(header.0), HeaderValue::from_static(header.1))];
    let client = ClientOptions::new().with_default_headers(headers.into_iter().collect());
    // One request per object: not every S3 implementation supports bulk deletion, and speed does not matter here.
    let mut builder = AmazonS3Builder::new()
        .with_http_connector(LoggedConnector)
        .with_client_options(client)
        .with_disable_bulk_delete(true);
    for (key, value) in variables.beginning("AWS_") {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_url(url.as_str()).with_retry(options.retry());
    let has = |key: &AmazonS3ConfigKey, builder: &AmazonS3Builder| {
        builder.get_config_value(key).is_some_and(|value| !value.is_empty())
    };
    let mut secrets = Secrets::among(variables);
    let from_elsewhere =
        ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    let profile = Profile::load(variables)?;
    if let Some(profile) = profile {
        // Environment keys come first, as in AWS's own tools, unless a profile is named.
        let keys_needed = !has(&AmazonS3ConfigKey::AccessKeyId, &builder)
            && !from_elsewhere.iter().any(|name| variables.value(name).is_some());
        if keys_needed && let Some(keys) = profile.keys()? {
            secrets.add(&keys.secret);
            builder = builder.with_access_key_id(keys.id).with_secret_access_key(keys.secret);
            if let Some(token) = keys.token {
                secrets.add(&token);
                builder = builder.with_token(token);
            }
        }
        if !has(&AmazonS3ConfigKey::Region, &builder)
            && variables.value("AWS_DEFAULT_REGION").is_none()
            && let Some(region) = profile.region
        {
            builder = builder.with_region(region);
        }
        if endpoint_of(&builder).is_none()
            && let Some(endpoint) = profile.endpoint
        {
            builder = builder.with_endpoint(endpoint);
        }
    }
    let endpoint = endpoint_of(&builder);
    if let Some(endpoint) = &endpoint {
        let endpoint = Url::parse(endpoint).map_err(|error| invalid(endpoint, &error.to_string()))?;
        if is_loopback(&endpoint) {
            builder = builder.with_allow_http(true);
        }
    }
    for (key, value) in options.client() {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    if builder.get_config_value(&AmazonS3ConfigKey::Checksum).is_none() {
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region).unwrap_or_else(|| "us-east-1".to_owned());
    let base = endpoint.clone().unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    let in_name = builder.get_config_value(&AmazonS3ConfigKey::VirtualHostedStyleRequest);
    // An endpoint that contains the bucket in its name is followed by keys only.
    let in_name = endpoint.is_some() && in_name.is_some_and(|value| matches!(value.as_str(), "true" | "1"));
    let anyone = asked_at(&base, url.host_str().filter(|_| !in_name), options)?;
    let store = builder.build().map_err(|error| unusable(url, &secrets, &error))?;
    // AWS documents that conditional writes are atomic; other implementations must be probed.
    let writes = if endpoint.is_none() { Writes::Conditional } else { Writes::Unknown };
    let mut remote = in_parts(store, writes, url, secrets, options)?;
    remote.anyone = Some(anyone);
    if let Some(endpoint) = endpoint {
        remote.endpoint = endpoint;
    }
    Ok(remote)
}

/// How to request objects of a bucket below `base` without credentials.
fn asked_at(base: &str, bucket: Option<&str>, options: &Options) -> Result<Anyone> {
    let mut url = Url::parse(base).map_err(|error| invalid(base, &error.to_string()))?;
    if let (Some(bucket), Ok(mut path)) = (bucket, url.path_segments_mut()) {
        path.pop_if_empty().push(bucket);
    }
    Anyone::at(url, options.timeout)
}

/// A place in a store that accepts large objects in parts.
fn in_parts(
    store: impl ObjectStore + MultipartStore,
    writes: Writes,
    url: &Url,
    secrets: Secrets,
    options: &Options,
) -> Result<Remote> {
    let store = Arc::new(store);
    let mut remote = Remote::new(store.clone(), key_of(url)?, Backend::Store(writes), &shown(url), options);
    remote.multipart = Some(store);
    remote.secrets = secrets;
    Ok(remote)
}

/// An endpoint other than AWS's own.
fn endpoint_of(builder: &AmazonS3Builder) -> Option<String> {
    [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key))
        .filter(|endpoint| !endpoint.is_empty())
}

fn gcs(url: &Url, options: &Options) -> Result<Remote> {
    let variables = &options.variables;
    let secrets = Secrets::among(variables);
    let mut builder = GoogleCloudStorageBuilder::new().with_http_connector(LoggedConnector);
    for (key, value) in variables.beginning("GOOGLE_") {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(path) = variables.value("SERVICE_ACCOUNT") {
        builder = builder.with_service_account_path(path);
    }
    builder = builder.with_url(url.as_str()).with_retry(options.retry());
    if let Some(base) = builder.get_config_value(&GoogleConfigKey::BaseUrl)
        && Url::parse(&base).is_ok_and(|base| is_loopback(&base))
    {
        builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), "true");
    }
    for (key, value) in options.client() {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    let base = builder.get_config_value(&GoogleConfigKey::BaseUrl).filter(|base| !base.is_empty());
    let base = base.unwrap_or_else(|| "https://storage.googleapis.com".to_owned());
    let anyone = asked_at(&base, url.host_str(), options)?;
    let store = builder.build().map_err(|error| unusable(url, &secrets, &error))?;
    let mut remote = in_parts(store, Writes::Conditional, url, secrets, options)?;
    remote.anyone = Some(anyone);
    Ok(remote)
}

fn azure(url: &Url, options: &Options) -> Result<Remote> {
    let variables = &options.variables;
    let secrets = Secrets::among(variables);
    let mut builder = MicrosoftAzureBuilder::new().with_http_connector(LoggedConnector);
    for (key, value) in variables.beginning("AZURE_") {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = variables.value("IDENTITY_ENDPOINT") {
        builder = builder.with_msi_endpoint(endpoint);
    }
    builder = builder.with_url(url.as_str()).with_retry(options.retry());
    if let Some(endpoint) = builder.get_config_value(&AzureConfigKey::Endpoint)
        && Url::parse(&endpoint).is_ok_and(|endpoint| is_loopback(&endpoint))
    {
        builder = builder.with_allow_http(true);
    }
    for (key, value) in options.client() {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    let account = builder.get_config_value(&AzureConfigKey::AccountName).filter(|account| !account.is_empty());
    let base = builder.get_config_value(&AzureConfigKey::Endpoint).filter(|endpoint| !endpoint.is_empty());
    let base = base.or_else(|| Some(format!("https://{}.blob.core.windows.net", account?)));
    let anyone = base.filter(|_| url.username().is_empty());
    let anyone = anyone.map(|base| asked_at(&base, url.host_str(), options)).transpose()?;
    let store = builder.build().map_err(|error| unusable(url, &secrets, &error))?;
    let mut remote = in_parts(store, Writes::Conditional, url, secrets, options)?;
    remote.anyone = anyone;
    // `object_store` loses the headers of resumable multipart uploads there.
    remote.multipart = None;
    Ok(remote)
}

/// A web server, read without credentials.
fn http(url: &Url, options: &Options) -> Result<Remote> {
    if !url.username().is_empty() {
        return Err(Error::usage(format!("the URL of {} contains a user name, which is never sent", shown(url)))
            .remedy("remove it from the URL"));
    }
    let mut base = url.clone();
    base.set_path("/");
    base.set_query(None);
    base.set_fragment(None);
    let mut client = ClientOptions::new().with_allow_http(url.scheme() == "http");
    for (key, value) in options.client() {
        client = client.with_config(key, value);
    }
    let secrets = Secrets::default();
    let builder = HttpBuilder::new()
        .with_http_connector(LoggedConnector)
        .with_url(base.as_str())
        .with_client_options(client)
        .with_retry(options.retry());
    let store = builder.build().map_err(|error| unusable(url, &secrets, &error))?;
    Ok(Remote::new(Arc::new(store), key_of(url)?, Backend::Store(Writes::None), &shown(url), options))
}

fn key_of(url: &Url) -> Result<Key> {
    Key::from_url_path(url.path().trim_matches('/')).map_err(|error| invalid(&shown(url), &error.to_string()))
}

/// The part after the `@` of a place that is not a URL: the part before may be a secret, and is not shown.
fn host_and_path(place: &str) -> &str {
    place.rsplit('@').next().unwrap_or_default()
}

/// A URL for display: without user name, password and query, which may be secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.as_str().trim_end_matches('/').to_owned()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn local_path(place: &str) -> Result<PathBuf> {
    let invalid = || Error::usage(format!("{place} is not the URL of a folder on this machine"));
    Url::parse(place).map_err(|error| invalid().with_source(error))?.to_file_path().map_err(|()| invalid())
}

fn invalid(place: &str, why: &str) -> Error {
    Error::usage(format!("{place} is not the URL of a place: {why}"))
        .remedy("write it as s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX")
}

fn unusable(url: &Url, secrets: &Secrets, error: &object_store::Error) -> Error {
    let why = secrets.redact(&chain(error));
    Error::usage(format!("{} cannot be opened: {why}", shown(url)))
        .remedy("see docs/publish.md for the variables of the environment that name region, endpoint and credentials")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_shown_without_what_may_be_secret() {
        let url = Url::parse("https://user:word@example.com/a/b?sig=secret#x").unwrap();
        assert_eq!(shown(&url), "https://example.com/a/b");
        assert_eq!(shown(&Url::parse("s3://bucket/a/").unwrap()), "s3://bucket/a");
    }

    #[test]
    fn what_is_no_place_is_refused_with_what_would_be_one() {
        for place in
            ["ftp://host/dir", "s4://x", "s3://", "https://", "s3:bucket/prefix", "https:example.com", "file:repo"]
        {
            let error = Remote::open(place).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Usage, "{place}: {error}");
            assert!(error.remedy_text().is_some(), "{place}");
        }
    }

    #[test]
    fn a_web_server_is_read_and_never_published_to() {
        for place in ["https://example.com/repo", "http://127.0.0.1:8000/"] {
            let error = Remote::open(place).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Usage, "{place}: {error}");
            assert!(error.remedy_text().unwrap().contains("s3://BUCKET/PREFIX"), "{error}");
            assert_eq!(Remote::open_to_read(place, &Options::default()).unwrap().name(), place.trim_end_matches('/'));
        }
        assert!(Remote::open_to_read("https://user@example.com/repo", &Options::default()).is_err());
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        for place in ["https://user:sesame-open@example.com/repo", "https://user:sesame-open@exa mple.com/repo"] {
            let error = Remote::open(place).unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Usage);
            assert!(!format!("{error:?}").contains("sesame-open"), "{error:?}");
        }
    }
}
