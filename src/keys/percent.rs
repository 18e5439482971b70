//! Percent-encoding and the attributes of key URIs.

/// Splits `a=1SEPARATORb=2` and decodes the values.
pub(super) fn attributes(text: &str, separator: char) -> Result<Vec<(String, String)>, String> {
    text.split(separator)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("{part:?} has no value"))?;
            Ok((name.to_owned(), percent_decode(value)?))
        })
        .collect()
}

/// Resolves `%XX`. Errs on what is not UTF-8 afterwards and on halves of escapes.
pub(super) fn percent_decode(text: &str) -> Result<String, String> {
    String::from_utf8(percent_decode_bytes(text)?).map_err(|_| format!("{text:?} is not UTF-8 once decoded"))
}

/// Resolves `%XX`. Errs on halves of escapes.
pub(super) fn percent_decode_bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|c| char::from(c).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (digit(), digit()) {
            (Some(high), Some(low)) => decoded.push(high << 4 | low),
            _ => return Err(format!("{text:?} has a % without two hex digits after it")),
        }
    }
    Ok(decoded)
}

/// Percent-encodes all but what RFC 3986 leaves alone and `/` and `:`, which only make it harder to read.
pub(super) fn encode(text: &str) -> String {
    tidegate_tuf::path::percent_encode(text).replace("%2F", "/").replace("%3A", ":")
}
