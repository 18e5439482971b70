//! Values, conditions and facts that are refused, with the exact text that says so.

use serde_json::{Value, json};
use tidegate_model::condition::{Condition, MAX_DEPTH, MAX_SIZE};
use tidegate_model::digest::Digest;
use tidegate_model::facts::{FactValue, Facts, TypedFact};
use tidegate_model::layout::{DelegatedRole, Location};
use tidegate_model::name::{ArtifactName, DeviceId, FactName, HardwareId, Name, Text};
use tidegate_model::position::Salt;
use tidegate_model::time;
use tidegate_model::version::{self, VersionRange};

/// What `parse` says about a text it must refuse.
pub(super) fn refused<T: std::fmt::Debug, E: std::fmt::Display>(result: Result<T, E>) -> String {
    match result {
        Ok(value) => panic!("accepted: {value:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn names() {
    const RULE: &str =
        "use 1 to 64 of a-z, 0-9 and -, first a letter or digit, and not root, targets, snapshot or timestamp";
    for (text, shown) in [
        ("", r#""""#),
        ("-a", r#""-a""#),
        ("Stable", r#""Stable""#),
        ("a b", r#""a b""#),
        ("a.b", r#""a.b""#),
        ("a/b", r#""a/b""#),
        ("..", r#""..""#),
        ("a_b", r#""a_b""#),
        ("é", r#""\u{e9}""#),
        ("a\n", r#""a\n""#),
        ("\u{1b}[2J", r#""\u{1b}[2J""#),
        ("root", r#""root""#),
        ("targets", r#""targets""#),
        ("snapshot", r#""snapshot""#),
        ("timestamp", r#""timestamp""#),
    ] {
        assert_eq!(refused(text.parse::<Name>()), format!("{shown} is not a name: {RULE}"));
    }
    let long = "a".repeat(65);
    assert_eq!(refused(long.parse::<Name>()), format!("\"{long}\" is not a name: {RULE}"));
    let longer = "a".repeat(1000);
    assert_eq!(refused(longer.parse::<Name>()), format!("\"{}...\" is not a name: {RULE}", "a".repeat(80)));
    for accepted in ["a", "0", "a-", "stable", &"a".repeat(64)] {
        assert_eq!(accepted.parse::<Name>().unwrap().to_string(), *accepted);
    }
}

#[test]
fn other_words() {
    for text in ["", ".a", "a..b", "a/b", "a b", "manifest.json", "cohorts.json", "..", "a\\b", "%2e"] {
        assert_eq!(
            refused(text.parse::<ArtifactName>()),
            format!(
                "{text:?} is not an artifact name: use 1 to 128 of A-Z, a-z, 0-9, ., _, + and -, \
             first a letter or \
                 digit, without .., and not manifest.json or cohorts.json"
            )
        );
    }
    for text in ["", "-a", "a b", "a+b"] {
        assert_eq!(
            refused(text.parse::<HardwareId>()),
            format!("{text:?} is not a hardware id: use 1 to 64 of A-Z, a-z, 0-9, ., _ and -, first a letter or digit")
        );
    }
    for text in ["", "0a", "A", "a b", "a=b"] {
        assert_eq!(
            refused(text.parse::<FactName>()),
            format!("{text:?} is not the name of a fact: use 1 to 64 of a-z, 0-9, ., _ and -, first a letter")
        );
    }
    for text in ["", " a", "a b", "a\t", "\u{7f}"] {
        assert_eq!(
            refused(text.parse::<DeviceId>()),
            format!("{text:?} is not a device id: use 1 to 128 printable ASCII characters without spaces")
        );
    }
    for text in ["", "a\nb", "\0"] {
        let shown = format!("{text:?}").replace("\\0", "\\u{0}");
        assert_eq!(
            refused(text.parse::<Text>()),
            format!("{shown} is not a line of text: use 1 to 1024 printable ASCII characters")
        );
    }
}

#[test]
fn small_values() {
    for text in ["", "00", &"00".repeat(31), &"00".repeat(33), &"0G".repeat(32), &"AB".repeat(32)] {
        assert_eq!(
            refused(text.parse::<Digest>()),
            format!("\"{text}\" is not a SHA-256: write 64 lower-case hexadecimal digits")
        );
    }
    for text in ["", "zz", &"00".repeat(15), &"AA".repeat(16), "0", &"0".repeat(33)] {
        assert_eq!(
            refused(text.parse::<Salt>()),
            format!(
                "\"{text}\" is not a salt: write 16 to 64 bytes in lower-case hexadecimal, for example 32 random ones"
            )
        );
    }
    assert!(Salt::new(&[0; 65]).is_err());
    for text in [
        "",
        "2026-01-05",
        "2026-01-05T12:00:00",
        "2026-01-05T12:00:00+00:00",
        "2026-01-05T12:00:00.5Z",
        "2026-02-30T12:00:00Z",
        "2026-01-05T24:00:00Z",
        "2026-01-05T12:00:60Z",
        "1969-12-31T23:59:59Z",
        "+026-01-05T12:00:00Z",
        "2026-01-05t12:00:00z",
    ] {
        assert_eq!(
            refused(time::parse(text)),
            format!("\"{text}\" is not an instant: write YYYY-MM-DDTHH:MM:SSZ, in UTC, from the year 1970 on")
        );
    }
}

#[test]
fn versions_and_ranges() {
    for (text, why) in [
        ("", "empty string, expected a semver version"),
        ("1", "unexpected end of input while parsing major version number"),
        ("1.2", "unexpected end of input while parsing minor version number"),
        ("v1.2.3", "unexpected character 'v' while parsing major version number"),
        ("01.2.3", "invalid leading zero in major version number"),
        ("1.2.3/../x", "unexpected character '/' after patch version number"),
    ] {
        assert_eq!(
            refused(version::parse(text)),
            format!(
                "\"{text}\" is not a version ({why}): write MAJOR.MINOR.PATCH as in semver.org, at most 64 characters"
            )
        );
    }
    let long = format!("1.2.3-{}", "a".repeat(59));
    assert_eq!(
        refused(version::parse(&long)),
        format!(
            "\"{long}\" is not a version (too long): write MAJOR.MINOR.PATCH as in semver.org, at most 64 characters"
        )
    );
    for (text, why) in [
        ("", "unexpected end of input while parsing major version number"),
        (">=", "unexpected end of input while parsing major version number"),
        ("newer", "unexpected character 'n' while parsing major version number"),
        ("1.2.3 2.0.0", "expected comma after patch version number, found '2'"),
    ] {
        assert_eq!(
            refused(text.parse::<VersionRange>()),
            format!("\"{text}\" is not a range of versions ({why}): write for example \">=1.2.0, <2.0.0\" or \"*\"")
        );
    }
}

#[test]
fn paths_and_roles_outside_the_layout() {
    for path in [
        "",
        "/",
        "stable",
        "stable/",
        "stable/cohorts.json/",
        "/stable/cohorts.json",
        "stable//cohorts.json",
        "root/cohorts.json",
        "stable/cohorts/canary",
        "stable/cohorts/canary/os",
        "stable/cohorts/canary/.json",
        "stable/cohorts/canary/os.json/x",
        "stable/cohorts/../os.json",
        "stable/releases/os/1.2/manifest.json",
        "stable/releases/os/1.2.0",
        "stable/releases/os/1.2.0/",
        "stable/releases/os/1.2.0/a/b",
        "stable/releases/os/1.2.0/..",
        "stable/releases/os/1.2.0/cohorts.json",
        "stable/releases/os/01.2.0/a",
        "stable/else/os/1.2.0/a",
        "Stable/cohorts.json",
    ] {
        assert_eq!(Location::parse(path), None, "{path}");
    }
    for role in ["", "root", "targets", "stable.", ".canary", "stable.canary.x", "stable.root", "timestamp.canary", "A"]
    {
        assert_eq!(DelegatedRole::parse(role), None, "{role}");
    }
}

pub(super) const OPERATORS: &str = "eq, in, ge, gt, le, lt, exists, matches-version";

#[test]
fn conditions() {
    let expected =
        |found: &str| format!("expected one of all, any and not, or fact with one of {OPERATORS}; found {found}");
    let cases: Vec<(Value, String)> = vec![
        (json!(null), "expected an object, found null".into()),
        (json!([]), "expected an object, found a list".into()),
        (json!("group"), "expected an object, found the string \"group\"".into()),
        (json!({}), expected("an empty object")),
        (json!({"fact": "a"}), expected("\"fact\"")),
        (json!({"eq": "a"}), expected("\"eq\"")),
        (json!({"group": "lab"}), expected("\"group\"")),
        (json!({"all": [], "any": []}), expected("\"all\", \"any\"")),
        (json!({"fact": "a", "eq": 1, "ne": 2}), expected("\"eq\", \"fact\", \"ne\"")),
        (json!({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}), expected("\"a\", \"b\", \"c\", \"d\", ...")),
        (json!({"fact": "a", "ne": 1}), format!("\"ne\" is no test: use one of {OPERATORS}")),
        (json!({"fact": "a", "all": []}), format!("\"all\" is no test: use one of {OPERATORS}")),
        (json!({"fact": 1, "eq": 1}), "`fact`: expected a string, found 1".into()),
        (
            json!({"fact": "A", "eq": 1}),
            "`fact`: \"A\" is not the name of a fact: use 1 to 64 of a-z, 0-9, ., _ and -, first a letter".into(),
        ),
        (json!({"all": {}}), "`all`: expected a list, found an object".into()),
        (json!({"all": []}), "`all`: this list is empty: name at least one condition".into()),
        (json!({"any": []}), "`any`: this list is empty: name at least one condition".into()),
        (json!({"any": [{"fact": "a", "eq": 1}, 7]}), "`any[1]`: expected an object, found 7".into()),
        (json!({"not": []}), "`not`: expected an object, found a list".into()),
        (
            json!({"not": {"any": [{"fact": "a", "in": []}]}}),
            "`not.any[0].in`: this list is empty: name at least one value".into(),
        ),
        (json!({"fact": "a", "in": 1}), "`in`: expected a list, found 1".into()),
        (
            json!({"fact": "a", "in": [null]}),
            "`in[0]`: expected a string, a whole number, true or false, found null".into(),
        ),
        (json!({"fact": "a", "eq": null}), "`eq`: expected a string, a whole number, true or false, found null".into()),
        (json!({"fact": "a", "eq": 1.5}), "`eq`: 1.5 is no whole number from -2^63 to 2^63-1".into()),
        (
            json!({"fact": "a", "eq": u64::MAX}),
            "`eq`: 18446744073709551615 is no whole number from -2^63 to 2^63-1".into(),
        ),
        (
            json!({"fact": "a", "eq": "é"}),
            "`eq`: \"\\u{e9}\" is not a line of text: use 1 to 1024 printable ASCII characters".into(),
        ),
        (json!({"fact": "a", "eq": "x".repeat(1025)}), "`eq`: 1025 bytes of text are too many: at most 1024".into()),
        (json!({"fact": "a", "ge": true}), "`ge`: expected a whole number or a version, found true".into()),
        (json!({"fact": "a", "lt": []}), "`lt`: expected a string, a whole number, true or false, found a list".into()),
        (
            json!({"fact": "a", "gt": "b"}),
            "`gt`: \"b\" is not a version (unexpected character 'b' while parsing major version number): write \
             MAJOR.MINOR.PATCH as in semver.org, at most 64 characters; texts have no order but as versions"
                .into(),
        ),
        (
            json!({"fact": "a", "exists": false}),
            "`exists`: expected true, found false; for the opposite use not".into(),
        ),
        (json!({"fact": "a", "matches-version": 1}), "`matches-version`: expected a string, found 1".into()),
        (
            json!({"fact": "a", "matches-version": "x."}),
            "`matches-version`: \"x.\" is not a range of versions (unexpected character after \
             wildcard in version req): \
             write for example \">=1.2.0, <2.0.0\" or \"*\""
                .into(),
        ),
    ];
    for (value, why) in cases {
        assert_eq!(refused(Condition::from_value(&value)), format!("condition: {why}"), "{value}");
    }
}

#[test]
fn conditions_beyond_their_bounds() {
    let test = || json!({"fact": "a", "eq": 1});
    let nested = |depth: usize| (1..depth).fold(test(), |inner, _| json!({"not": inner}));
    assert!(Condition::from_value(&nested(MAX_DEPTH)).is_ok());
    let at = vec!["not"; MAX_DEPTH].join(".");
    assert_eq!(
        refused(Condition::from_value(&nested(MAX_DEPTH + 1))),
        format!("condition: `{at}`: nested too deep: at most 16 levels")
    );
    let wide = |tests: usize| json!({"all": vec![test(); tests]});
    assert!(Condition::from_value(&wide(MAX_SIZE - 1)).is_ok());
    assert_eq!(
        refused(Condition::from_value(&wide(MAX_SIZE))),
        "condition: `all[1023]`: too large: at most 1024 conditions and values in total"
    );
    assert_eq!(
        refused(Condition::from_value(&json!({"fact": "a", "in": vec![1; MAX_SIZE]}))),
        "condition: `in`: too large: at most 1024 conditions and values in total"
    );
    assert_eq!(
        refused(Condition::from_value(&json!({"fact": "a", "in": vec![1; MAX_SIZE + 1]}))),
        "condition: `in`: 1025 entries are too many: at most 1024"
    );
}

#[test]
fn facts() {
    for (value, why) in [
        (json!([]), "expected an object, found a list"),
        (json!({"a": null}), "`a`: expected a string, a whole number, true or false, found null"),
        (json!({"a": ["b"]}), "`a`: expected a string, a whole number, true or false, found a list"),
        (json!({"a": 0.5}), "`a`: 0.5 is no whole number from -2^63 to 2^63-1"),
        (json!({"A": 1}), "\"A\" is not the name of a fact: use 1 to 64 of a-z, 0-9, ., _ and -, first a letter"),
    ] {
        assert_eq!(refused(Facts::from_value(&value)), format!("facts: {why}"));
    }
    for (text, why) in [
        ("group", "\"group\" is not a fact: write name=value, for example group=lab"),
        ("=lab", "\"\" is not the name of a fact: use 1 to 64 of a-z, 0-9, ., _ and -, first a letter"),
    ] {
        assert_eq!(refused(text.parse::<TypedFact>()), why);
    }
    for (text, value) in [
        ("a=", FactValue::from("")),
        ("a=b=c", FactValue::from("b=c")),
        ("a=true", FactValue::from(true)),
        ("a=-7", FactValue::from(-7)),
        ("a=0042", FactValue::from("0042")),
        ("a=+7", FactValue::from("+7")),
        ("a=9223372036854775808", FactValue::from("9223372036854775808")),
        ("a=1.2.3", FactValue::from("1.2.3")),
    ] {
        assert_eq!(text.parse::<TypedFact>().unwrap().value, value, "{text}");
    }
}
