//! Strict JSON in, canonical JSON out.
//!
//! A signature is over the canonical form of what was *received*, so metadata is parsed to a raw [`Value`] and
//! canonicalised from that, never from a typed struct that would drop what it does not know (TUF 4.2.1).
//!
//! Input that parsers could interpret differently is refused before any signature is checked: an object with the same key twice, and
//! numbers with a fraction or exponent, which canonical JSON does not have.
//!
//! The canonical form is OLPC's as the TUF reference implementation writes it: keys are ordered by their code points, and text is
//! written as it is. The crate `olpc-cjson` differs in two ways that matter. It orders keys by their *quoted* form, so that `a` comes
//! after `a!`, and signatures by other implementations over such keys fail. And it normalises text to NFC, so that two keys which differ
//! only in their normalisation fold into one in the signed bytes while both stay in the parsed object: a mirror could add an
//! unsigned entry beside a signed one. A test compares this module with that crate where the two must agree.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why a JSON document was refused. The text contains the line and column if the parser knows them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

/// Parses one JSON document, strictly.
///
/// Refused: anything after the document, an object with the same key twice, numbers that are not whole or do not fit
/// 64 bits, and nesting deeper than 128.
///
/// # Errors
///
/// If the document is malformed or contains anything of the above.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let mut de = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut de).map_err(|e| JsonError(e.to_string()))?;
    de.end().map_err(|e| JsonError(e.to_string()))?;
    Ok(value)
}

/// Writes a value as canonical JSON (OLPC form): keys in order, no white space, only `"` and `\\` escaped.
///
/// The result is what gets signed and hashed.
///
/// # Errors
///
/// If the value contains a number that is not whole.
pub fn canonical(value: &Value) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    write(value, &mut out)?;
    Ok(out)
}

fn write(value: &Value, out: &mut Vec<u8>) -> Result<(), JsonError> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) if number.is_f64() => {
            return Err(JsonError("canonical JSON has whole numbers only".into()));
        }
        Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(object) => {
            out.push(b'{');
            // The map's own order depends on a feature of `serde_json` that any crate of a build may turn on.
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            for (at, (key, item)) in entries.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_text(key, out);
                out.push(b':');
                write(item, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Builds a [`Value`] while refusing what `serde_json`'s own would let pass.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(Number::from(v)))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(Number::from(v)))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Value, E> {
        Err(E::custom("the number is not a whole number of at most 64 bits"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Strict)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(de::Error::custom(format_args!("the key {key:?} appears twice in one object")));
            }
            let value = map.next_value_seed(Strict)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
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
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{name}: {text}");
        }
        assert!(parse(b"\"\xff\"").is_err(), "not UTF-8");
        assert!(parse("[".repeat(200).as_bytes()).is_err(), "too deep");
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
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes).map(|value| canonical(&value));
        }
    }
}
