//! The fetcher over TLS, as a library.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose;
use tidegate_client::clock::SystemClock;
use tidegate_client::command::Command;
use tidegate_client::fetch::http::{Authorities, Authorization, HttpFetch, HttpOptions, Identity, Proxy, Source};
use tidegate_client::fetch::{Fetch as _, FetchError, Reply, Request};

use crate::tls_server::{Authority, Server, Tunnel};

fn options(authority: &Authority) -> HttpOptions {
    HttpOptions {
        connect_timeout: Duration::from_secs(5),
        proxy: Proxy::None,
        authorities: Authorities::from_pem(authority.pem().as_bytes()).unwrap(),
        ..HttpOptions::default()
    }
}

fn get(options: &HttpOptions, url: &str) -> Result<String, FetchError> {
    let fetch = HttpFetch::with_options(options.clone(), Arc::new(SystemClock::new()));
    match fetch.fetch(&Request::metadata(url, 1000))? {
        Reply::Found(body) => Ok(String::from_utf8(body.into_bytes()?).unwrap()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_given_authorities_are_trusted() {
    let (ours, other) = (Authority::new(), Authority::new());
    let server = Server::new(&ours, None);
    assert_eq!(get(&options(&ours), &server.url("/file")).unwrap(), "/file");
    let error = get(&options(&other), &server.url("/file")).unwrap_err();
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
    // Those of the system, if it has any.
    let system = HttpOptions { authorities: Authorities::system(), ..options(&ours) };
    let error = get(&system, &server.url("/file")).unwrap_err();
    assert!(matches!(error, FetchError::Unreachable { .. } | FetchError::Authorities { .. }), "{error}");
    #[cfg(feature = "built-in-authorities")]
    {
        let built_in = HttpOptions { authorities: Authorities::built_in(), ..options(&ours) };
        let error = get(&built_in, &server.url("/file")).unwrap_err();
        assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
    }
    // Another name than the certificate's.
    assert!(get(&options(&ours), &format!("https://127.0.0.1:{}/file", server.port)).is_err());
    assert!(Authorities::from_pem(b"nothing").is_err());
    assert!(Authorities::from_pem(b"-----BEGIN CERTIFICATE-----\n").is_err());
}

/// Such servers send every request for http to https.
#[test]
fn a_redirect_from_http_to_https_is_followed() {
    let authority = Authority::new();
    let server = Server::new(&authority, None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://localhost:{}/file", listener.local_addr().unwrap().port());
    let location = server.url("/file");
    let plain = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let _ = stream.read(&mut [0; 4096]).unwrap();
        let head = "HTTP/1.1 301 Moved Permanently\r\nContent-Length: 0\r\nConnection: close\r\n";
        write!(stream, "{head}Location: {location}\r\n\r\n").unwrap();
    });
    assert_eq!(get(&options(&authority), &url).unwrap(), "/file");
    plain.join().unwrap();
    assert_eq!(server.authorizations().len(), 1);
}

#[test]
fn a_server_that_requires_certificates_gets_one() {
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let server = Server::new(&servers, Some(&clients));
    let with = |identity| HttpOptions { identity, ..options(&servers) };
    assert_eq!(get(&with(Some(clients.identity())), &server.url("/file")).unwrap(), "/file");
    for wrong in [None, Some(strangers.identity())] {
        let error = get(&with(wrong), &server.url("/file")).unwrap_err();
        assert!(error.is_temporary(), "the certificate may come later: {error}");
    }
    let (certificate, key) = clients.issue(&[], ExtendedKeyUsagePurpose::ClientAuth);
    let both = certificate.pem() + &key.serialize_pem();
    let identity = Identity::from_pem(both.as_bytes(), both.as_bytes()).unwrap();
    assert!(!format!("{identity:?}").contains("PRIVATE"), "{identity:?}");
    assert_eq!(get(&with(Some(identity)), &server.url("/file")).unwrap(), "/file");
    for (chain, key) in [("", key.serialize_pem()), (&*certificate.pem(), String::new())] {
        let error = Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
        assert!(!error.to_string().contains("BEGIN"), "{error}");
    }
}

#[test]
fn the_secret_goes_to_one_server_and_no_other() {
    let authority = Authority::new();
    let (server, other) = (Server::new(&authority, None), Server::new(&authority, None));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "Bearer one\n").unwrap();
    let authorization = Authorization::new(&server.url("/metadata/"), Source::File(path.clone())).unwrap();
    assert!(!format!("{authorization:?}").contains("one"));
    let options = HttpOptions { authorization: Some(authorization), ..options(&authority) };
    let fetch = HttpFetch::with_options(options, Arc::new(SystemClock::new()));
    let get = |url: &str| fetch.fetch(&Request::metadata(url, 1000)).map(drop);
    get(&server.url("/file")).unwrap();
    get(&other.url("/file")).unwrap();
    assert_eq!(server.authorizations(), [Some("Bearer one".into())]);
    assert_eq!(other.authorizations(), [None]);
    // A redirect does not carry it elsewhere: it is not followed.
    assert!(matches!(get(&server.url("/elsewhere")), Err(FetchError::Redirect { .. })));
    server.authorizations();
    // A secret that the server no longer takes is read anew, once.
    assert!(matches!(get(&server.url("/secret")), Err(FetchError::Status { status: 401, .. })));
    assert_eq!(server.authorizations().len(), 2);
    std::fs::write(&path, "Bearer two").unwrap();
    get(&server.url("/secret")).unwrap();
    get(&server.url("/secret")).unwrap();
    assert_eq!(server.authorizations().len(), 3, "it was read anew for the first of the two only");
    // One that cannot be read is the device's fault.
    std::fs::write(&path, "two\nlines").unwrap();
    let fetch = HttpFetch::with_options(
        HttpOptions {
            authorization: Some(Authorization::new(&server.url(""), Source::File(path)).unwrap()),
            ..self::options(&authority)
        },
        Arc::new(SystemClock::new()),
    );
    let error = fetch.fetch(&Request::metadata(&server.url("/file"), 10)).unwrap_err();
    assert_eq!(tidegate_client::Error::from(error).fault(), tidegate_client::Fault::Device);
    assert!(server.authorizations().is_empty());
}

#[test]
fn the_secret_may_come_from_a_program() {
    let authority = Authority::new();
    let server = Server::new(&authority, None);
    let program = Command::new(["echo", "Bearer two"].map(String::from), Duration::from_secs(5));
    let authorization = Authorization::new(&server.url(""), Source::Command(program)).unwrap();
    let options = HttpOptions { authorization: Some(authorization), ..options(&authority) };
    assert_eq!(get(&options, &server.url("/secret")).unwrap(), "/secret");
}

#[test]
fn secrets_do_not_go_over_plain_http() {
    let source = || Source::File("token".into());
    assert!(Authorization::new("http://updates.example.com/", source()).is_err());
    assert!(Authorization::new("file:///folder", source()).is_err());
    Authorization::new("http://localhost:8080/", source()).unwrap();
    Authorization::new("https://updates.example.com/", source()).unwrap();
}

/// A proxy that is told by the setting, and sees where the device wants to go.
#[test]
fn a_proxy_is_gone_through() {
    let authority = Authority::new();
    let (server, proxy) = (Server::new(&authority, None), Tunnel::new());
    let url = format!("http://user:word@{}", proxy.address);
    let options = HttpOptions { proxy: Proxy::Url(url.parse().unwrap()), ..options(&authority) };
    assert!(!format!("{options:?}").contains("word"));
    assert_eq!(get(&options, &server.url("/file")).unwrap(), "/file");
    let asked = proxy.asked().remove(0);
    assert!(asked.starts_with(&format!("CONNECT localhost:{} ", server.port)), "{asked}");
    assert!(asked.to_lowercase().contains("proxy-authorization: basic"), "{asked}");
}

/// A token, as a gate gives it.
#[derive(Debug)]
struct Token;

impl tidegate_client::fetch::Pass for Token {
    fn headers(&self, _: &str) -> Result<Vec<(&'static str, String)>, String> {
        Ok(vec![("Authorization", "Bearer token".into())])
    }
}

#[test]
fn redirect_targets_get_no_certificate() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "Bearer secret").unwrap();
    let ask = |store: &Server| {
        let gate = Server::with(&servers, Some(&clients), crate::tls_server::Content::Moved(store.url("")));
        let secret = Source::File(folder.path().join("secret"));
        let options = HttpOptions {
            identity: Some(clients.identity()),
            // Even what is meant for that very server is not for a gate to ask for.
            authorization: Some(Authorization::new(&store.url(""), secret).unwrap()),
            ..options(&servers)
        };
        let fetch = HttpFetch::with_options(options, Arc::new(SystemClock::new()));
        let url = gate.url("/v1/repo/x");
        let reply = fetch.fetch(&Request::metadata(&url, 1000).opened_by(&Token));
        (reply, gate.authorizations())
    };
    let open = Server::new(&servers, None);
    let (reply, asked) = ask(&open);
    assert!(matches!(reply, Ok(Reply::Found(_))), "{reply:?}");
    assert_eq!((asked, open.authorizations()), (vec![Some("Bearer token".to_owned())], vec![None]));
    // One that asks for a certificate, which this device has, and does not get it.
    let asking = Server::new(&servers, Some(&clients));
    let (reply, _) = ask(&asking);
    assert!(matches!(reply, Err(FetchError::Unreachable { .. })), "{reply:?}");
    assert!(asking.authorizations().is_empty());
}
