//! Text for HTML and SVG.

/// Text as text, in elements and in quoted attributes alike, of HTML and of XML.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Neither control characters, which XML does not even allow, nor those that turn the direction of text.
            c if c.is_control() && c != '\n' => escaped.push('\u{fffd}'),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => {
                escaped.push('\u{fffd}');
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_somebody_else_says_becomes_markup() {
        assert_eq!(
            escape("<script>alert('x\"')</script>&\u{202e}\u{7}\u{1b}[31m\u{ffff}"),
            "&lt;script&gt;alert(&#39;x&quot;&#39;)&lt;/script&gt;&amp;\u{fffd}\u{fffd}\u{fffd}[31m\u{fffd}"
        );
    }
}
