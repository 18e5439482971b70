//! Strict JSON in, canonical JSON out.
//!
//! A signature is over the canonical form of what was *received*, so metadata is canonicalised from its own text, as [`Raw`], never
//! from a typed struct that would drop what it does not know (TUF 4.2.1). That takes no tree, whose memory is many times the text's.
//!
//! Input that parsers could interpret differently is refused before any signature is checked: an object with the same key twice, and
//! numbers with a fraction or exponent, which canonical JSON does not have.
//!
//! The canonical form is OLPC's as the TUF reference implementation writes it: keys are ordered by their code points, and text is
//! written as it is. The crate `olpc-cjson` differs in two ways that matter. It orders keys by their *quoted* form, so that `a` comes
//! after `a!`, and signatures by other implementations over such keys fail. And it normalises text to NFC, so that two keys which differ
//! only in their normalisation fold into one in the signed bytes while both stay in the parsed object: a mirror could add an
//! unsigned entry beside a signed one. A test compares this module with that crate where the two must agree.

mod entries;
mod raw;

use serde_json::Value;

pub use entries::{each, tree, tree_without};
pub use raw::Raw;

use crate::limits::{Bounds, ROOM};
use crate::prelude::*;

/// Why a JSON document was refused. The text contains the line and column if the parser knows them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

/// Parses one JSON document by someone else, strictly, and only if it is small: strings of at most 64 KiB, and a result that takes
/// at most 3 MB. Larger ones are read in place, as [`Raw`].
///
/// Refused: anything after the document, an object with the same key twice, numbers that are not whole or do not fit
/// 64 bits, and nesting deeper than 64.
///
/// # Errors
///
/// If the document is malformed or contains anything of the above.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    Raw::scan(bytes, &Bounds::DOCUMENT)?.tree(&mut ROOM.clone())
}

/// Parses a document that may be large; the result takes at most about `room` bytes. Without a bound on that (`usize::MAX`) only for a
/// document that this program wrote, or whose signatures it has verified.
///
/// # Errors
///
/// As [`parse`].
pub fn parse_large(bytes: &[u8], mut room: usize) -> Result<Value, JsonError> {
    Raw::scan(bytes, &Bounds::OWN)?.tree(&mut room)
}

/// Writes a value as canonical JSON (OLPC form): keys in order, no white space, only `"` and `\\` escaped.
///
/// The result is what gets signed and hashed.
///
/// # Errors
///
/// If the value contains a number that is not whole.
pub fn canonical(value: &Value) -> Result<Vec<u8>, JsonError> {
    let text = value.to_string();
    Ok(Raw::scan(text.as_bytes(), &Bounds::OWN)?.canonical(usize::MAX)?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use serde::Serialize as _;
    use serde_json::json;

    #[test]
    fn canonical_form_sorts_and_escapes_as_olpc_says() {
        let value = parse(br#" { "b" : [ 1 , -2, true, null ], "a": "q\"\\\n\u00e9" } "#).unwrap();
        assert_eq!(
            String::from_utf8(canonical(&value).unwrap()).unwrap(),
            "{\"a\":\"q\\\"\\\\\n\u{e9}\",\"b\":[1,-2,true,null]}"
        );
    }

    #[test]
    fn refusals() {
        for (name, text) in [
            ("duplicate key", r#"{"a":1,"a":1}"#),
            ("duplicate key, escaped", r#"{"a":1,"\u0061":1}"#),
            ("duplicate key, deep", r#"[{"x":{"a":1,"b":2,"a":3}}]"#),
            ("fraction", "1.5"),
            ("exponent", "1e3"),
            ("too large", "18446744073709551616"),
            ("negative zero", "-0"),
            ("trailing text", "{} {}"),
            ("truncated", r#"{"a":"#),
            ("empty", ""),
            ("lone surrogate", r#""\ud800""#),
            ("surrogates in the wrong order", r#""\udc00\ud800""#),
            ("half of an escape", r#""\u00""#),
            ("unknown escape", r#""\x""#),
            ("sign before an escape", r#""\u+041""#),
            ("control character", "\"\n\""),
            ("leading zero", "01"),
            ("no digits", "-"),
            ("plus", "+1"),
            ("no comma", "[1 2]"),
            ("comma at the end", "[1,]"),
            ("comma at the end of an object", r#"{"a":1,}"#),
            ("no colon", r#"{"a" 1}"#),
            ("no text as key", "{1:1}"),
            ("word", "nul"),
            ("word in capitals", "True"),
            ("unmatched", "[}"),
            ("byte order mark", "\u{feff}1"),
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{name}: {text}");
        }
        assert!(parse(b"\"\xff\"").is_err(), "not UTF-8");
        assert!(parse("[".repeat(200).as_bytes()).is_err(), "too deep");
    }

    #[test]
    fn documents_have_bounds() {
        let bounds = Bounds { values: 3, depth: 2, text: 4 };
        for (text, expected) in [
            (r#"{"abcd":[1]}"#, ""),
            ("[1,2,3]", "too many values at line 1 column 6"),
            ("[\n[[]]]", "nested too deep at line 2 column 2"),
            (r#""\u0061bcde""#, "too long a string"),
            (r#"{"abcde":1}"#, "too long a string"),
            (r#"{"":1,"":1}"#, "the key \"\" appears twice"),
        ] {
            let error = Raw::scan(text.as_bytes(), &bounds).map_or_else(|e| e.0, |_| String::new());
            assert!(error.starts_with(expected) && error.is_empty() == expected.is_empty(), "{text}: {error}");
        }
        // Objects are what a tree pays most for.
        let many = |count| format!("[{}1]", "{\"\":0},".repeat(count));
        parse(many(3_000).as_bytes()).unwrap();
        assert_eq!(parse(many(5_000).as_bytes()).unwrap_err().0, "it would take too much memory");
        parse_large(many(5_000).as_bytes(), usize::MAX).unwrap();
        let spaced = Raw::scan(b"[1, 2]", &bounds).unwrap();
        assert_eq!(spaced.canonical(5).unwrap().as_ref(), b"[1,2]");
        assert!(spaced.canonical(4).unwrap_err().0.starts_with("it is not in canonical form"));
    }

    #[test]
    fn whole_numbers_of_64_bits_survive() {
        let value = parse(b"[18446744073709551615,-9223372036854775808,0]").unwrap();
        assert_eq!(value, json!([u64::MAX, i64::MIN, 0]));
        assert_eq!(canonical(&value).unwrap(), b"[18446744073709551615,-9223372036854775808,0]");
    }

    #[test]
    fn keys_are_ordered_by_code_point_and_text_is_left_alone() {
        let value = parse(
            "{\"a\":1,\"a!\":2,\"a\\\"\":3,\"a#\":4,\"\u{e9}\":5,\"e\u{301}\":6,\"\u{ffff}\":7,\"\u{10000}\":8}"
                .as_bytes(),
        );
        assert_eq!(
            String::from_utf8(canonical(&value.unwrap()).unwrap()).unwrap(),
            "{\"a\":1,\"a!\":2,\"a\\\"\":3,\"a#\":4,\"e\u{301}\":6,\"\u{e9}\":5,\"\u{ffff}\":7,\"\u{10000}\":8}"
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        // Text in which `olpc-cjson` orders and writes as we do: nothing below '#', no backslash, nothing to normalise.
        let text = "[#-\\[\\]-~\u{e9}\u{4e2d}]{0,6}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(text, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_second_implementation(value in any_json()) {
            let mut theirs = Vec::new();
            let formatter = olpc_cjson::CanonicalFormatter::new();
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut theirs, formatter)).unwrap();
            prop_assert_eq!(canonical(&value).unwrap(), theirs);
        }

        #[test]
        fn canonical_json_without_control_characters_parses_to_itself(value in any_json()) {
            prop_assert_eq!(parse(&canonical(&value).unwrap()).unwrap(), value);
        }

        #[test]
        fn a_second_parser_reads_the_same(value in any_json(), at in any::<prop::sample::Index>(), byte in 0..18_usize) {
            let mut text = serde_json::to_vec_pretty(&value).unwrap();
            prop_assert_eq!(&parse(&text).unwrap(), &value);
            let at = at.index(text.len());
            text[at] = b"\"\\{}[],:0-1.eu \n\xc3t"[byte];
            match (parse(&text), serde_json::from_slice::<Value>(&text)) {
                (Ok(ours), theirs) => prop_assert_eq!(ours, theirs.unwrap()),
                // What the second one takes beyond: fractions, exponents, and a key twice, of which it keeps one.
                (Err(e), Ok(_)) => prop_assert!(e.0.contains("whole number") || e.0.contains("twice"), "{}", e),
                (Err(_), Err(_)) => {}
            }
        }

        #[test]
        fn text_in_canonical_form_is_not_copied(value in any_json()) {
            let text = canonical(&value).unwrap();
            let raw = Raw::scan(&text, &Bounds::OWN).unwrap();
            prop_assert!(matches!(raw.canonical(0).unwrap(), std::borrow::Cow::Borrowed(same) if same == text));
            let spaced = serde_json::to_vec_pretty(&value).unwrap();
            prop_assert_eq!(Raw::scan(&spaced, &Bounds::OWN).unwrap().canonical(usize::MAX).unwrap(), text);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes).map(|value| canonical(&value));
        }
    }
}
