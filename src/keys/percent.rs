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

/// Resolves `%XX`.
///
/// # Errors
///
/// Fails if a `%` is not followed by two hex digits, or the result is not UTF-8.
pub(super) fn percent_decode(text: &str) -> Result<String, String> {
    String::from_utf8(percent_decode_bytes(text)?).map_err(|_| format!("{text:?} is not UTF-8 once decoded"))
}

/// Resolves `%XX`.
///
/// # Errors
///
/// Fails if a `%` is not followed by two hex digits.
pub(super) fn percent_decode_bytes(text: &str) -> Result<Vec<u8>, String> {
    let is_escape = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !text.split('%').skip(1).all(is_escape) {
        return Err(format!("{text:?} has a % without two hex digits after it"));
    }
    Ok(percent_encoding::percent_decode_str(text).collect())
}

/// Percent-encodes everything except unreserved characters (RFC 3986) and `/` and `:`, which stay readable.
pub(super) fn encode(text: &str) -> String {
    tidegate_tuf::path::percent_encode(text).replace("%2F", "/").replace("%3A", ":")
}
