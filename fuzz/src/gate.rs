//! What the gate reads before it knows who sends: JSON counted before it is parsed, and the header of a load balancer.

use std::net::IpAddr;

use serde_json::Value;

use super::bounds::JsonBounds;
use super::proxy_protocol;

/// Bounds on JSON: what a parser finds in a document was counted before.
pub fn json_bounds(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    let (values, depth) = count(&value);
    let exact = JsonBounds { length: data.len(), depth: usize::MAX, values: usize::MAX };
    exact.check(data).expect("it has its own length");
    let fewer = [
        JsonBounds { length: data.len() - 1, ..exact },
        JsonBounds { values: values - 1, ..exact },
        JsonBounds { depth: depth.saturating_sub(1), ..exact },
    ];
    for bounds in fewer {
        assert!(bounds.check(data).is_err() || bounds.depth == 0 && depth == 0, "{bounds:?}");
    }
}

/// The values of a document, keys included as their parser makes them, and its nesting.
fn count(value: &Value) -> (usize, usize) {
    let over = |items: &mut dyn Iterator<Item = &Value>| {
        items.map(count).fold((0, 0), |(values, depth), (more, deep)| (values + more, depth.max(deep)))
    };
    let (values, depth, keys) = match value {
        Value::Array(items) => {
            let (values, depth) = over(&mut items.iter());
            (values, depth, 0)
        }
        Value::Object(items) => {
            let (values, depth) = over(&mut items.values());
            (values, depth, items.len())
        }
        _ => return (1, 0),
    };
    (values + keys + 1, depth + 1)
}

/// The header of the PROXY protocol: the bytes after it are not touched, and no prefix of it is a header.
pub fn proxy_header(data: &[u8]) {
    let read = |bytes: &[u8]| -> Option<(Option<IpAddr>, usize)> {
        let mut rest = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
        let source = runtime.block_on(proxy_protocol::read(&mut rest))?;
        Some((source, bytes.len() - rest.len()))
    };
    let Some((source, length)) = read(data) else { return };
    assert!(data.starts_with(b"PROXY ") || data.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
    assert!(length <= 1024, "{length} bytes were read");
    let header = data.get(..length).expect("no more is read than there is");
    assert_eq!(read(header), Some((source, length)));
    assert_eq!(read(&header[..length - 1]), None);
}
