//! HTML and SVG. The crate maud renders it and escapes what is special in markup; [`text`] is for strings from a repository.

pub(crate) mod chart;

use maud::Render;

/// Text that was written by others: what is hidden in it is escaped.
pub(crate) fn text(text: &str) -> impl Render {
    tidegate_model::text::one_line(text)
}

#[cfg(test)]
mod tests {
    use maud::html;

    use super::*;

    #[test]
    fn text_from_others_does_not_become_markup() {
        let others = "<script>alert('x\"')</script>&\u{202e}\u{7}\u{1b}[31m\u{ffff}";
        let escaped = "&lt;script&gt;alert('x&quot;')&lt;/script&gt;&amp;\\u202e\\u0007\\u001b[31m\\uffff";
        assert_eq!(
            html! { b title=(text(others)) { (text(others)) } }.0,
            format!("<b title=\"{escaped}\">{escaped}</b>")
        );
    }
}
