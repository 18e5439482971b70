//! Strict JSON in, canonical JSON out.
//!
//! A signature is over the canonical form of what was *received*, so metadata is parsed to a raw [`Value`] and
//! canonicalised from that, never from a typed struct that would drop what it does not know (TUF 4.2.1).
//!
//! What the two forms could disagree about is refused before any signature is looked at: duplicate keys (parsers differ on
//! which one wins), numbers with a fraction or exponent (canonical JSON has none), and text that is not in Unicode
//! normalisation form C. The last matters because canonicalisation normalises: two keys that differ only in their
//! normalisation would fold into one in the signed bytes while both remain in the parsed object, and a mirror
//! could add an unsigned entry beside a signed one.

use std::fmt;

use olpc_cjson::CanonicalFormatter;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::Serialize;
use serde_json::{Map, Number, Value};
use unicode_normalization::is_nfc;

/// Why a JSON document was refused. The text says where (line and column) when the parser knows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

/// Parses one JSON document, strictly.
///
/// Refused: anything after the document, an object with the same key twice, numbers that are not whole or do not fit
/// 64 bits, text not in Unicode normalisation form C, and nesting deeper than 128.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let mut de = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut de).map_err(|e| JsonError(e.to_string()))?;
    de.end().map_err(|e| JsonError(e.to_string()))?;
    Ok(value)
}

/// Writes a value as canonical JSON (OLPC form): keys sorted by their bytes, no white space, only `"` and `\` escaped.
///
/// The result is what gets signed and hashed. It errs on what canonical JSON cannot express: numbers that are not whole.
pub fn canonical(value: &Value) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    let mut ser = serde_json::Serializer::with_formatter(&mut out, CanonicalFormatter::new());
    value.serialize(&mut ser).map_err(|e| JsonError(format!("not expressible as canonical JSON: {e}")))?;
    Ok(out)
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

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Value, E> {
        Err(E::custom(format_args!("the number {v} is not a whole number of at most 64 bits")))
    }

    fn visit_str<E: de::Error>(self, v: &str) -> Result<Value, E> {
        normal(v)?;
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E: de::Error>(self, v: String) -> Result<Value, E> {
        normal(&v)?;
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
            normal(&key)?;
            if object.contains_key(&key) {
                return Err(de::Error::custom(format_args!("the key {key:?} appears twice in one object")));
            }
            let value = map.next_value_seed(Strict)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

fn normal<E: de::Error>(text: &str) -> Result<(), E> {
    if text.is_ascii() || is_nfc(text) {
        Ok(())
    } else {
        Err(E::custom(format_args!("the text {text:?} is not in Unicode normalisation form C")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            ("not NFC", "\"e\u{301}\""),
            ("not NFC key", "{\"e\u{301}\":1}"),
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
}
