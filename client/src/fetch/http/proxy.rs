//! Which proxy a request goes through, and plain HTTP through one.
//!
//! A proxy that is configured is never passed over: one that cannot be used is an error. `https` goes through a tunnel (CONNECT), `http` as requests
//! with the whole URL, since stock proxies allow tunnels to port 443 alone.

use std::fmt;
use std::net::IpAddr;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ureq::config::Config;
use ureq::http::{Uri, uri::Scheme};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Error, ProxyProtocol};

use super::{Origin, origin};
use crate::fetch::error::FetchError;
use tidegate_model::text::public_url;

/// A proxy.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Proxy {
    /// The proxy from the environment: `http_proxy` for `http`, `https_proxy` for `https`, else `all_proxy`, also in upper case. `no_proxy` lists
    /// what is reached without: `*`, hosts with all below them, addresses and networks such as `10.0.0.0/8`, each also with a port.
    #[default]
    Environment,
    /// No proxy, regardless of the environment.
    None,
    /// This one, for everything.
    Url(ProxyUrl),
}

/// The URL of a proxy, such as `http://user:password@proxy.example.com:3128`.
#[derive(Clone)]
pub struct ProxyUrl(ureq::Proxy);

impl std::str::FromStr for ProxyUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        // A parser ends the host at the first of these, and would connect to a part of the password.
        if is_ambiguous(url) {
            return Err(
                "its user or password has a character that ends it: write %23 for #, %2F for /, %3F for ?, %40 for @"
                    .into(),
            );
        }
        let bad = || "it is not the URL of a proxy: write for example http://proxy.example.com:3128".to_owned();
        let proxy = ureq::Proxy::new(url).map_err(|_| bad())?;
        // The parser takes 80 for a port that is no number.
        let place = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
        let place = place.rsplit(['@', ']']).next().unwrap_or_default();
        if place.split_once(':').is_some_and(|(_, port)| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(bad());
        }
        match proxy.protocol() {
            ProxyProtocol::Http | ProxyProtocol::Https => Ok(Self(proxy)),
            _ => {
                Err("SOCKS proxies are not supported: name one for HTTP, such as http://proxy.example.com:3128".into())
            }
        }
    }
}

/// Whether what is before the host has a character that cannot be there.
fn is_ambiguous(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.rsplit_once('@').is_some_and(|(user, _)| user.contains(['#', '/', '?', '@']))
}

/// Without its password.
impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.host(), self.0.port())
    }
}

impl ProxyUrl {
    pub(super) fn for_ureq(&self) -> ureq::Proxy {
        self.0.clone()
    }

    pub(super) fn is_secure(&self) -> bool {
        self.0.protocol() == ProxyProtocol::Https
    }
}

/// The proxies for both schemes, and what is reached without.
pub(super) struct Proxies {
    http: Choice,
    https: Choice,
    exceptions: String,
}

/// A proxy as it is written, and what it is.
type Choice = Option<(String, Result<ProxyUrl, String>)>;

impl Proxies {
    pub(super) fn new(setting: &Proxy) -> Self {
        let same = |choice: Choice| Self { http: choice.clone(), https: choice, exceptions: String::new() };
        match setting {
            Proxy::Environment => Self::read(|name| std::env::var(name).ok()),
            Proxy::None => same(None),
            Proxy::Url(url) => same(Some((String::new(), Ok(url.clone())))),
        }
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let find = |names: &[&str]| {
            let all = names.iter().flat_map(|name| [(*name).to_owned(), name.to_ascii_uppercase()]);
            all.filter_map(|name| variable(&name)).find(|value| !value.is_empty())
        };
        let shown = |url: &str| if is_ambiguous(url) { "of the environment".to_owned() } else { public_url(url) };
        let choice = |names: &[&str]| find(names).map(|url| (shown(&url), url.parse()));
        Self {
            http: choice(&["http_proxy", "all_proxy"]),
            https: choice(&["https_proxy", "all_proxy"]),
            exceptions: find(&["no_proxy"]).unwrap_or_default(),
        }
    }

    /// The proxy for this URL.
    pub(super) fn of(&self, url: &str) -> Result<Option<&ProxyUrl>, FetchError> {
        // A URL without a server fails later.
        let Some(server) = url.parse::<Uri>().ok().and_then(|uri| origin(&uri)) else { return Ok(None) };
        let choice = if server.0 == "https" { &self.https } else { &self.http };
        match choice {
            Some(_) if self.exceptions.split([',', ' ']).any(|exception| is_meant(exception.trim(), &server)) => {
                Ok(None)
            }
            Some((_, Ok(proxy))) => Ok(Some(proxy)),
            Some((proxy, Err(reason))) => {
                Err(FetchError::Proxy { url: url.to_owned(), proxy: proxy.clone(), reason: reason.clone() })
            }
            None => Ok(None),
        }
    }
}

/// Whether an entry of `no_proxy` means this server.
fn is_meant(exception: &str, (_, host, port): &Origin) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches([']', '.']);
    // An address of IPv6 with a port has brackets.
    let (name, only) = match exception.rsplit_once(':') {
        Some((name, only)) if !name.contains(':') || name.ends_with(']') => (name, Some(only)),
        _ => (exception, None),
    };
    if only.is_some_and(|only| only.parse() != Ok(*port)) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    if let Ok(address) = host.parse::<IpAddr>() {
        let (network, length) = name
            .split_once('/')
            .map_or((name.as_str(), 128), |(network, length)| (network, length.parse().unwrap_or(u32::MAX)));
        return name == "*" || network.parse().is_ok_and(|network| is_in(address, network, length));
    }
    let name = name.trim_start_matches('*').trim_start_matches('.');
    let is_below = |host: &str| host.strip_suffix(name).is_some_and(|above| above.is_empty() || above.ends_with('.'));
    exception == "*" || !name.is_empty() && is_below(host)
}

fn is_in(address: IpAddr, network: IpAddr, length: u32) -> bool {
    let (address, network, bits) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => (address.to_bits().into(), network.to_bits().into(), 32),
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    let differ: u128 = address ^ network;
    length <= 128 && differ.checked_shr(bits - length.min(bits)).unwrap_or(0) == 0
}

/// Connects requests for `http` with a proxy.
#[derive(Debug)]
pub(super) struct WholeUrlConnector(pub(super) Config);

impl<In: Transport> Connector<In> for WholeUrlConnector {
    type Out = WholeUrlTransport;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<In>) -> Result<Option<Self::Out>, Error> {
        let Some(proxy) = details.config.proxy().filter(|_| details.uri.scheme() == Some(&Scheme::HTTP)) else {
            return Ok(None);
        };
        // The proxy itself is reached without one.
        let proxy_details = ConnectionDetails {
            uri: proxy.uri(),
            addrs: details.resolver.resolve(proxy.uri(), &self.0, details.timeout)?,
            config: &self.0,
            request_level: details.request_level,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        let authorization = proxy.username().map_or_else(String::new, |user| {
            let secret = format!("{user}:{}", proxy.password().unwrap_or_default());
            format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(secret))
        });
        let authority = details.uri.authority().map(ToString::to_string).unwrap_or_default();
        Ok(Some(WholeUrlTransport {
            proxy: (details.run_connector)(&proxy_details)?,
            server: format!("http://{authority}"),
            authorization,
            is_head: true,
        }))
    }
}

/// Sends requests with the whole URL in their first line.
#[derive(Debug)]
pub(super) struct WholeUrlTransport {
    proxy: Box<dyn Transport>,
    server: String,
    authorization: String,
    /// Whether what is sent next starts a request.
    is_head: bool,
}

impl WholeUrlTransport {
    /// Rewrites the head of a request in the output buffer. Returns the new number of bytes.
    fn rewrite(&mut self, amount: usize) -> Option<usize> {
        let output = self.proxy.buffers().output();
        let head = std::str::from_utf8(output.get(..amount)?).ok()?;
        let (method, rest) = head.split_once(' ')?;
        let (target, rest) = rest.split_once("\r\n")?;
        let new = format!("{method} {}{target}\r\n{}{rest}", self.server, self.authorization);
        output.get_mut(..new.len())?.copy_from_slice(new.as_bytes());
        Some(new.len())
    }
}

impl Transport for WholeUrlTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.proxy.buffers()
    }

    fn transmit_output(&mut self, mut amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if amount > 0 && std::mem::take(&mut self.is_head) {
            amount = self.rewrite(amount).ok_or(Error::BadUri("no request for a proxy".into()))?;
        }
        self.proxy.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.is_head = true;
        self.proxy.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.proxy.is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_means_hosts_suffixes_ports_and_networks() {
        for (exceptions, url, is_direct) in [
            ("*", "http://host/", true),
            ("*", "http://10.0.0.1/", true),
            ("", "http://host/", false),
            ("other, host", "http://host/", true),
            ("HOST", "http://host/", true),
            ("example.com", "http://www.example.com/", true),
            (".example.com", "http://www.example.com/", true),
            ("*.example.com", "http://www.example.com/", true),
            ("example.com", "http://badexample.com/", false),
            ("www.example.com", "http://example.com/", false),
            ("host:8080", "http://host:8080/", true),
            ("host:8080", "http://host/", false),
            ("host:443", "https://host/", true),
            ("host:x", "http://host/", false),
            ("10.1.2.3", "http://10.1.2.3/", true),
            ("10.1.2.3:81", "http://10.1.2.3/", false),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            ("0.0.0.0/0", "http://11.1.2.3/", true),
            ("10.0.0.0/99", "http://10.0.0.0/", true),
            ("10.0.0.0/x", "http://10.0.0.0/", false),
            ("10.0.0.0/8", "http://10.example.com/", false),
            ("::1", "http://[::1]/", true),
            ("[::1]:80", "http://[::1]/", true),
            ("[::1]:81", "http://[::1]/", false),
            ("fd00::/8", "http://[fd12::1]/", true),
            ("fd00::/8", "http://[fe12::1]/", false),
            ("0.0.0.0/0", "http://[::1]/", false),
        ] {
            let variables = [("HTTP_PROXY", "http://proxy:1"), ("https_proxy", "proxy:2"), ("no_proxy", exceptions)];
            let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            let proxies = Proxies::read(find);
            assert_eq!(proxies.of(url).unwrap().is_none(), is_direct, "{exceptions} {url}");
        }
    }

    #[test]
    fn a_proxy_is_chosen_by_scheme_and_never_passed_over() {
        let of = |variables: &[(&str, &str)], url: &str| {
            let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            Proxies::read(find).of(url).map(|proxy| proxy.map(|proxy| format!("{proxy:?}"))).map_err(|e| e.to_string())
        };
        let both = [("http_proxy", "http://a:1"), ("HTTPS_PROXY", "http://b"), ("all_proxy", "c:3")];
        assert_eq!(of(&both, "http://host/"), Ok(Some("a:1".into())));
        assert_eq!(of(&both, "https://host/"), Ok(Some("b:80".into())));
        assert_eq!(of(&both[..1], "https://host/"), Ok(None));
        assert_eq!(of(&[("http_proxy", ""), ("ALL_PROXY", "c:3")], "http://host/"), Ok(Some("c:3".into())));
        // One that cannot be used stops what goes through it, and nothing else.
        let one = [("http_proxy", "http://a:1"), ("https_proxy", "http://b:notaport")];
        assert_eq!(of(&one, "http://host/"), Ok(Some("a:1".into())));
        assert!(of(&one, "https://host/").unwrap_err().contains(": the proxy http://"));
        for good in ["http://a", "a:3128", "http://user:pass@a:8/", "http://[::1]:8", "http://[::1]"] {
            assert!(good.parse::<ProxyUrl>().is_ok(), "{good}");
        }
        for bad in ["http://a:notaport", "a:0", "http://a:65536", "http://a:", "http://u:p@a:x/", "http://[::1]:x"] {
            assert!(bad.parse::<ProxyUrl>().unwrap_err().starts_with("it is not the URL of a proxy"), "{bad}");
        }
        for bad in [
            "http://user:12#secret@proxy:3128",
            "http://user:12/secret@proxy:3128",
            "http://user:12?secret@proxy:3128",
            "http://user:12@secret@proxy:3128",
            "user:12#secret@proxy:3128",
        ] {
            let error = bad.parse::<ProxyUrl>().unwrap_err();
            assert!(error.contains("write %23 for #, %2F for /, %3F for ?, %40 for @"), "{bad}: {error}");
            let error = of(&[("http_proxy", bad)], "http://host/").unwrap_err();
            assert!(!error.contains("secret") && !error.contains("12") && error.contains("%23"), "{error}");
        }
        assert!("http://user:%23%2F%3F%40@proxy:3128".parse::<ProxyUrl>().is_ok());
        for bad in ["socks5://user:secret@host:9", "socks4://host", "ftp://user:secret@host", "http://"] {
            let error = of(&[("all_proxy", bad)], "https://host/x?secret").unwrap_err();
            assert!(error.starts_with("https://host/x: the proxy ") && !error.contains("secret"), "{error}");
        }
        assert!("socks5h://host:9".parse::<ProxyUrl>().unwrap_err().contains("SOCKS proxies are not supported"));
    }
}
