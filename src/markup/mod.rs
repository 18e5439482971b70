//! HTML and SVG. The crate maud renders it and escapes what is special in markup; [`text`] is for strings from a repository.

pub(crate) mod chart;

use maud::Render;

/// Text that was written by others. Control characters, which XML does not allow, and characters that change the direction of text are
/// replaced.
pub(crate) fn text(text: &str) -> impl Render {
    Text(text)
}

struct Text<'a>(&'a str);

impl Render for Text<'_> {
    fn render_to(&self, buffer: &mut String) {
        let shown = |c: char| match c {
            '\n' => c,
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => {
                char::REPLACEMENT_CHARACTER
            }
            c => c,
        };
        self.0.chars().map(shown).collect::<String>().render_to(buffer);
    }
}

#[cfg(test)]
mod tests {
    use maud::html;

    use super::*;

    #[test]
    fn text_from_others_does_not_become_markup() {
        let others = "<script>alert('x\"')</script>&\u{202e}\u{7}\u{1b}[31m\u{ffff}";
        let escaped = "&lt;script&gt;alert('x&quot;')&lt;/script&gt;&amp;\u{fffd}\u{fffd}\u{fffd}[31m\u{fffd}";
        assert_eq!(
            html! { b title=(text(others)) { (text(others)) } }.0,
            format!("<b title=\"{escaped}\">{escaped}</b>")
        );
    }
}
