//! What came instead of a file, in words: what answers in the field is often not the repository.

use tidegate_model::text::public_urls;

/// How many bytes of an answer are looked at, and how many characters of its text are told.
pub(super) const START: usize = 512;
const TOLD: usize = 80;

/// Whether an answer is a page for people: HTML, or the XML of an object store.
pub(super) fn is_page(content_type: &str, start: &[u8]) -> bool {
    let content_type = content_type.to_ascii_lowercase();
    start.trim_ascii_start().starts_with(b"<") || content_type.contains("html") || content_type.contains("xml")
}

/// What came with a status, and the probable cause: what follows "the server answered 403".
pub(crate) fn came(status: u16, content_type: &str, encoding: &str, start: &[u8]) -> String {
    let kind = if is_page(content_type, start) && content_type.is_empty() { "a page" } else { content_type };
    let kind = kind.split(';').next().unwrap_or_default();
    let mut came: String = [(" with ", kind), (" in Content-Encoding ", encoding)]
        .iter()
        .filter(|(_, what)| !what.is_empty())
        .flat_map(|(before, what)| [*before, *what])
        .collect();
    let words = words(start);
    if !words.is_empty() {
        came = format!("{came} ({words})");
    }
    let cause = match status {
        200..300 if !encoding.is_empty() => "something on the way compresses files that must stay as they are",
        200..300 | 511 => "a login page of the network, a proxy, or a page for errors came in place of the file",
        401 => "it wants a login; see \"authorization\" in the settings",
        403 => "it gives no access: a private bucket, a firewall, or a store that says 403 for what it does not have",
        404 | 410 => "the URL is wrong, or the repository is incomplete",
        407 => "a proxy wants a login",
        408 | 429 | 500.. => "it is overloaded or out of order",
        _ => return came,
    };
    format!("{came}: {cause}")
}

/// The first words of a text, without its markup.
fn words(start: &[u8]) -> String {
    let text = String::from_utf8_lossy(start.get(..START).unwrap_or(start));
    let text = text.find("<title>").and_then(|at| text.get(at..)).unwrap_or(&text);
    let mut words = String::new();
    let mut is_markup = false;
    for c in text.chars() {
        match c {
            '<' | '>' => is_markup = c == '<',
            _ if is_markup => continue,
            '!'..='~' => {
                words.push(c);
                continue;
            }
            _ => {}
        }
        if !words.ends_with(' ') && !words.is_empty() {
            words.push(' ');
        }
    }
    // A URL in it, cut or not, may hold a secret.
    let told: String = public_urls(words.trim_end()).chars().take(TOLD).collect();
    told.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_in_a_few_words() {
        let html = b"<!DOCTYPE html><html><head><style>x</style><title>Welcome to\n Hotel WiFi</title></head><body>Please log in.";
        assert_eq!(
            came(200, "text/html; charset=utf-8", "", html),
            " with text/html (Welcome to Hotel WiFi Please log in.): a login page of the network, a proxy, or a page for errors came in place of the file"
        );
        let xml = b"<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
        assert!(came(403, "", "", xml).starts_with(" with a page (AccessDenied Access Denied): it gives no access"));
        assert!(came(503, "", "", b"").starts_with(": it is overloaded"), "{}", came(503, "", "", b""));
        assert_eq!(
            came(418, "text/plain", "", b"\x1b[2Jhttps://u:p@host/a?sig=1 teapot"),
            " with text/plain ([2Jhttps://host/a teapot)"
        );
        assert!(came(500, "", "", &[b'x'; 5000]).len() < 200);
        assert!(is_page("", b" \n<html>") && is_page("Text/HTML", b"") && !is_page("application/json", b"{\"<\": 1}"));
    }
}
