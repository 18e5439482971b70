//! Bounds on JSON from others, checked on its bytes before anything is parsed: a short document can take a hundred times its length as values.

/// The most that a document of one kind can need.
#[derive(Debug, Clone, Copy)]
pub struct JsonBounds {
    /// Its length in bytes.
    pub length: usize,
    /// The nesting of its lists and objects.
    pub depth: usize,
    /// Its values, keys included.
    pub values: usize,
}

impl JsonBounds {
    /// Counts without parsing. What is not JSON may pass; its parser refuses it, and cannot find more in it than was counted here.
    ///
    /// # Errors
    ///
    /// Names the bound that is exceeded.
    pub fn check(self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() > self.length {
            return Err(format!("longer than {} bytes", self.length));
        }
        // A value ends at a comma or a colon, or begins a list or an object; and one is left.
        let (mut values, mut depth) = (1, 0_usize);
        let (mut in_text, mut escaped) = (false, false);
        for byte in bytes {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = in_text,
                b'"' => in_text = !in_text,
                b',' | b':' if !in_text => values += 1,
                b'[' | b'{' if !in_text => {
                    values += 1;
                    depth += 1;
                }
                b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > self.depth {
                return Err(format!("nested deeper than {}", self.depth));
            }
            if values > self.values {
                return Err(format!("more than {} values", self.values));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn count(value: &Value) -> (usize, usize) {
        let inner = |items: Vec<(usize, usize)>| {
            let values = items.iter().map(|(values, _)| values).sum::<usize>();
            (values, items.iter().map(|(_, depth)| depth).max().unwrap_or(&0) + 1)
        };
        match value {
            Value::Array(items) => {
                let (values, depth) = inner(items.iter().map(count).collect());
                (values + 1, depth)
            }
            Value::Object(items) => {
                let (values, depth) = inner(items.values().map(count).collect());
                (values + 1 + items.len(), depth)
            }
            _ => (1, 0),
        }
    }

    #[test]
    fn counts_at_least_what_a_parser_finds() {
        for value in [
            json!(null),
            json!([]),
            json!({"a": [1, 2, {"b": "[[[[,,,,{{{{"}], "c\\\"[": {}}),
            json!([[], [[]], {"": {"": "\\"}}]),
            json!({"\"": "\\\\\"[[["}),
        ] {
            let (values, depth) = count(&value);
            let bytes = value.to_string().into_bytes();
            let bounds = JsonBounds { length: bytes.len(), depth, values: 2 * values };
            bounds.check(&bytes).unwrap();
            for bounds in [
                JsonBounds { length: bytes.len() - 1, ..bounds },
                JsonBounds { values: values - 1, ..bounds },
                JsonBounds { depth: depth.wrapping_sub(1), ..bounds },
            ] {
                assert!(bounds.check(&bytes).is_err() || depth == 0, "{value} {bounds:?}");
            }
        }
    }

    #[test]
    fn small_documents_with_many_values_are_refused() {
        let bounds = JsonBounds { length: 1 << 20, depth: 8, values: 1000 };
        for text in [
            format!("[{}0]", "0,".repeat(1000)),
            format!("[{}{{}}]", "{\"\":0},".repeat(400)),
            "[]".repeat(1001),
            "[".repeat(9),
            format!("{}1", "{\"a\":".repeat(9)),
        ] {
            assert!(bounds.check(text.as_bytes()).is_err(), "{text:.40}");
        }
    }

    /// Documents with a few changed bytes: whatever a parser still reads, the count was not lower.
    #[test]
    fn changed_documents_are_not_counted_too_low() {
        let document = json!({"a": [1, "b,[", {"c\\\"": []}], "d": {"e": {"f": "\\"}}, "g": "{:"}).to_string();
        let changes = b"[]{}\",:\\ 0";
        let mut read = 0;
        for at in 0..document.len() {
            for other in 0..document.len() {
                let mut bytes = document.clone().into_bytes();
                bytes[at] = changes[(at + other) % changes.len()];
                bytes[other] = changes[at % changes.len()];
                let Ok(value) = serde_json::from_slice::<Value>(&bytes) else { continue };
                let (values, depth) = count(&value);
                read += 1;
                for bounds in [
                    JsonBounds { length: 1000, depth: 1000, values: values - 1 },
                    JsonBounds { length: 1000, depth: depth.wrapping_sub(1), values: 1000 },
                ] {
                    assert!(bounds.check(&bytes).is_err() || depth == 0, "{value}");
                }
            }
        }
        assert!(read > 100, "{read}");
    }
}
