//! The PROXY protocol, versions 1 and 2: who sends, in the words of a load balancer that the settings trust. Nobody else's words are read.

use std::net::IpAddr;
use std::str::FromStr;

use proxy_header::{ParseConfig, ProxyHeader};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What every header of either version has at least.
const START: usize = 15;
/// The longest header of version 1.
const MAX_V1: usize = 107;
/// The longest accepted header of version 2: addresses, and further fields that the gate does not use.
const MAX_V2: usize = 1024;
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A network: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Whether the address is in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |width: u32| width.saturating_sub(self.prefix);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let parsed = address.parse::<IpAddr>().ok().and_then(|address| {
            let width = if address.is_ipv4() { 32 } else { 128 };
            let prefix = prefix.map_or(Some(width), |prefix| prefix.parse().ok().filter(|prefix| *prefix <= width))?;
            Some(Self { address, prefix })
        });
        parsed.ok_or_else(|| format!("{text:?} is not a network; write e.g. 10.0.0.0/8 or 2001:db8::7"))
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Reads the header, and nothing after it. `Some(None)` if the connection is the balancer's own; `None` if there is no valid header.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Option<IpAddr>> {
    let mut header = vec![0; START];
    stream.read_exact(&mut header).await.ok()?;
    if header.starts_with(V2) {
        header.push(stream.read_u8().await.ok()?);
        let length = usize::from(u16::from_be_bytes(*header.last_chunk()?));
        let start = header.len();
        header.resize(Some(start + length).filter(|all| *all <= MAX_V2)?, 0);
        stream.read_exact(header.get_mut(start..)?).await.ok()?;
    } else if header.starts_with(b"PROXY ") {
        while !header.ends_with(b"\r\n") {
            if header.len() >= MAX_V1 {
                return None;
            }
            header.push(stream.read_u8().await.ok()?);
        }
    } else {
        return None;
    }
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let (parsed, length) = ProxyHeader::parse(&header, config).ok()?;
    (length == header.len()).then(|| parsed.proxied_address().map(|addresses| addresses.source.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of the bytes, and what is left of them.
    async fn parse(bytes: &[u8]) -> (Option<Option<String>>, Vec<u8>) {
        let mut stream = bytes;
        let read = read(&mut stream).await;
        (read.map(|source| source.map(|source| source.to_string())), stream.to_vec())
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, addresses].concat()
    }

    #[tokio::test]
    async fn reads_the_header_and_nothing_after_it() {
        let v4 = [&[192, 0, 2, 1, 10, 0, 0, 1][..], &[0; 4]].concat();
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 20]].concat();
        let with_fields = [&v4[..], &[0xee, 0, 3, 1, 2, 3]].concat();
        for (header, source) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n".to_vec(), Some("192.0.2.1")),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n".to_vec(), Some("2001:db8::1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (v2(0x21, 0x11, &v4), Some("192.0.2.1")),
            (v2(0x21, 0x21, &v6), Some("2001:db8::1")),
            (v2(0x21, 0x11, &with_fields), Some("192.0.2.1")),
            (v2(0x20, 0x00, &[]), None),
        ] {
            let (read, rest) = parse(&[&header[..], b"\x16\x03\x01"].concat()).await;
            assert_eq!((read, &rest[..]), (Some(source.map(str::to_owned)), &b"\x16\x03\x01"[..]), "{header:?}");
        }
    }

    #[tokio::test]
    async fn refuses_malformed_and_long_headers() {
        let v1 = |text: &str| format!("PROXY {text}\r\nmore bytes than a header starts with").into_bytes();
        let mut cases = vec![
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00".to_vec(),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            v1("TCP4 192.0.2.1"),
            v1("TCP4 192.0.2.300 10.0.0.1 1 2"),
            v1("TCP4 2001:db8::1 10.0.0.1 1 2"),
            v1("TCP4 192.0.2.1 10.0.0.1 1 65536"),
            v1("TCP5 192.0.2.1 10.0.0.1 1 2"),
            v1(&format!("UNKNOWN {}", "x".repeat(200))),
            v2(0x21, 0x11, &[1, 2, 3]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x31, 0x11, &[0; 12]),
            v2(0x21, 0x41, &[0; 12]),
            v2(0x21, 0x11, &[0; 2000]),
        ];
        let whole = v2(0x21, 0x11, &[1; 12]);
        cases.extend((0..whole.len()).map(|length| whole[..length].to_vec()));
        for bytes in cases {
            assert_eq!(parse(&bytes).await.0, None, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn networks_contain_their_addresses() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.6", false),
            ("10.0.0.7", "::ffff:10.0.0.7", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
        ] {
            assert_eq!(
                network.parse::<Network>().unwrap().contains(address.parse().unwrap()),
                expected,
                "{network} {address}"
            );
        }
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "::/129", "example.com", "10.0.0.0/-1"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
