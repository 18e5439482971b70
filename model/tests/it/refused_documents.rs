//! Manifests, cohort maps, offers and ramps that are refused, with the exact text that says so.

use serde_json::{Value, json};
use tidegate_model::Extra;
use tidegate_model::cohort::{Cohort, CohortMap, Selector};
use tidegate_model::facts::Facts;
use tidegate_model::manifest::Manifest;
use tidegate_model::position::Salt;
use tidegate_model::rollout::{Offers, Ramp};

use super::refusals::{OPERATORS, refused};
use super::{decisions, instant, name};

/// A valid document with one thing changed at a pointer: `None` takes it away.
fn with(mut value: Value, pointer: &str, change: Option<Value>) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = value.pointer_mut(parent).unwrap();
    match (parent, change) {
        (Value::Object(map), Some(change)) => drop(map.insert(key.into(), change)),
        (Value::Object(map), None) => drop(map.remove(key).unwrap()),
        (Value::Array(list), Some(change)) => list[key.parse::<usize>().unwrap()] = change,
        (other, _) => panic!("{other}"),
    }
    value
}

fn manifest() -> Value {
    let mut manifest = serde_json::to_value(decisions::manifest("1.2.0", 12)).unwrap();
    manifest["supersedes"] = json!([11]);
    manifest["notes"] = json!(["a note"]);
    manifest["build"]["provenance"] = json!({"type": "t", "sha256": "00".repeat(32)});
    manifest
}

#[test]
fn manifests() {
    let name_rule =
        "use 1 to 64 of a-z, 0-9 and -, first a letter or digit, and not root, targets, snapshot or timestamp";
    let path = |shown: &str| {
        format!(
            "`artifacts[0].path`: {shown} is not the path of this artifact: expected \
             stable/releases/os/VERSION/rootfs.img"
        )
    };
    let digest =
        |at: &str, shown: &str| format!("`{at}`: {shown} is not a SHA-256: write 64 lower-case hexadecimal digits");
    let whole = |at: &str, shown: &str| format!("`{at}`: expected a whole number from 0 to 2^64-1, found {shown}");
    let cases: Vec<(&str, Option<Value>, String)> = vec![
        ("/schema", None, "`schema`: this field is missing".into()),
        ("/schema", Some(json!("1")), whole("schema", "the string \"1\"")),
        ("/schema", Some(json!(2)), "unsupported schema 2: this version supports schema 1; update the program".into()),
        ("/product", None, "`product`: this field is missing".into()),
        ("/product", Some(json!(null)), "`product`: expected a string, found null".into()),
        ("/product", Some(json!("../x")), format!("`product`: \"../x\" is not a name: {name_rule}")),
        ("/channel", Some(json!("root")), format!("`channel`: \"root\" is not a name: {name_rule}")),
        (
            "/version",
            Some(json!("1.2")),
            "`version`: \"1.2\" is not a version (unexpected end of input while parsing minor \
             version number): write \
             MAJOR.MINOR.PATCH as in semver.org, at most 64 characters"
                .into(),
        ),
        ("/sequence", Some(json!(-1)), whole("sequence", "-1")),
        ("/sequence", Some(json!(1.0)), whole("sequence", "1.0")),
        ("/sequence", Some(json!("12")), whole("sequence", "the string \"12\"")),
        (
            "/sequence",
            Some(json!(0)),
            "`sequence`: 0 is reserved for the factory image; releases start at 1; \
             `supersedes`: 11 is not lower than the release's own sequence 0"
                .into(),
        ),
        (
            "/created",
            Some(json!("yesterday")),
            "`created`: \"yesterday\" is not an instant: write YYYY-MM-DDTHH:MM:SSZ, in UTC, from \
             the year 1970 on"
                .into(),
        ),
        ("/build", Some(json!("b")), "`build`: expected an object, found the string \"b\"".into()),
        ("/build/id", None, "`build.id`: this field is missing".into()),
        (
            "/build/id",
            Some(json!("é")),
            "`build.id`: \"\\u{e9}\" is not a line of text: use 1 to 1024 printable ASCII characters".into(),
        ),
        ("/build/source", Some(json!(1)), "`build.source`: expected a string, found 1".into()),
        ("/build/provenance/type", None, "`build.provenance.type`: this field is missing".into()),
        ("/build/provenance/sha256", Some(json!("00")), digest("build.provenance.sha256", "\"00\"")),
        ("/urgency", None, "`urgency`: this field is missing".into()),
        ("/urgency", Some(json!("high")), "`urgency`: \"high\" is unknown: use one of normal, security".into()),
        ("/artifacts", Some(json!({})), "`artifacts`: expected a list, found an object".into()),
        ("/artifacts", Some(json!([])), "`artifacts`: this list is empty: a release has at least one artifact".into()),
        ("/artifacts", Some(json!(vec![1; 257])), "`artifacts`: 257 entries are too many: at most 256".into()),
        ("/artifacts/0", Some(json!(1)), "`artifacts[0]`: expected an object, found 1".into()),
        (
            "/artifacts/0/name",
            Some(json!("manifest.json")),
            "`artifacts[0].name`: \"manifest.json\" is not an artifact name: use 1 to 128 of A-Z, \
             a-z, 0-9, ., _, + and -, \
             first a letter or digit, without .., and not manifest.json or cohorts.json"
                .into(),
        ),
        ("/artifacts/0/path", Some(json!("rootfs.img")), path("\"rootfs.img\"")),
        (
            "/artifacts/0/path",
            Some(json!("../stable/releases/os/1.2.0/rootfs.img")),
            path("\"../stable/releases/os/1.2.0/rootfs.img\""),
        ),
        (
            "/artifacts/0/path",
            Some(json!("beta/releases/os/1.2.0/rootfs.img")),
            path("\"beta/releases/os/1.2.0/rootfs.img\""),
        ),
        (
            "/artifacts/0/path",
            Some(json!("stable/releases/app/1.2.0/rootfs.img")),
            path("\"stable/releases/app/1.2.0/rootfs.img\""),
        ),
        (
            "/artifacts/0/path",
            Some(json!("stable/releases/os/1.2.0/boot.bin")),
            path("\"stable/releases/os/1.2.0/boot.bin\""),
        ),
        ("/artifacts/0/length", Some(json!(0)), "`artifacts[0].length`: an artifact has at least one byte".into()),
        ("/artifacts/0/length", Some(json!(null)), whole("artifacts[0].length", "null")),
        (
            "/artifacts/0/sha256",
            Some(json!("AA".repeat(32))),
            digest("artifacts[0].sha256", &format!("\"{}\"", "AA".repeat(32))),
        ),
        (
            "/artifacts/0/hardware",
            Some(json!([])),
            "`artifacts[0].hardware`: this list is empty: name the hardware it fits".into(),
        ),
        ("/artifacts/0/hardware", Some(json!(["a", "b", "a"])), "`artifacts[0].hardware[2]`: duplicate entry".into()),
        (
            "/artifacts/0/hardware",
            Some(json!(["a b"])),
            "`artifacts[0].hardware[0]`: \"a b\" is not a hardware id: use 1 to 64 of A-Z, a-z, \
             0-9, ., _ and -, first a letter \
             or digit"
                .into(),
        ),
        (
            "/artifacts/0/media_type",
            Some(json!("image")),
            "`artifacts[0].media_type`: expected a media type such as application/octet-stream".into(),
        ),
        (
            "/artifacts/0/media_type",
            Some(json!("a/b; c=d")),
            "`artifacts[0].media_type`: expected a media type such as application/octet-stream".into(),
        ),
        (
            "/eligibility",
            Some(json!({"all": [{"fact": "a"}]})),
            format!(
                "`eligibility.all[0]`: \
             expected one of all, any and not, or fact with one of \
             {OPERATORS}; found \"fact\""
            ),
        ),
        ("/upgrade_from", Some(json!(["*"])), "`upgrade_from`: expected a string, found a list".into()),
        ("/supersedes", Some(json!([11, 11])), "`supersedes[1]`: duplicate entry".into()),
        ("/supersedes", Some(json!(["11"])), whole("supersedes[0]", "the string \"11\"")),
        (
            "/supersedes",
            Some(json!([3, 12])),
            "`supersedes`: 12 is not lower than the release's own sequence 12".into(),
        ),
        ("/notes", Some(json!("text")), "`notes`: expected a list, found the string \"text\"".into()),
        (
            "/notes/0",
            Some(json!("two\nlines")),
            "`notes[0]`: \"two\\nlines\" is not a line of text: \
             use 1 to 1024 printable ASCII \
             characters"
                .into(),
        ),
    ];
    assert!(Manifest::from_value(&manifest()).is_ok());
    for (key, value, why) in [
        ("x", json!([{"y": "a\nb"}]), "`x`: \"a\\nb\" contains characters other than printable ASCII"),
        ("x", json!({"\u{e9}": 1}), "`x`: \"\\u{e9}\" contains characters other than printable ASCII"),
        ("\u{1b}x", json!(1), "`x`: \"\\u{1b}x\" contains characters other than printable ASCII"),
    ] {
        let value = with(manifest(), &format!("/{key}"), Some(value));
        assert_eq!(refused(Manifest::from_value(&value)), format!("manifest: {why}"));
    }
    for (pointer, change, why) in cases {
        let value = with(manifest(), pointer, change);
        assert_eq!(refused(Manifest::from_value(&value)), format!("manifest: {why}"), "{pointer}");
    }
    assert_eq!(refused(Manifest::from_value(&json!([]))), "manifest: expected an object, found a list");
}

#[test]
fn every_fault_of_a_manifest_is_listed() {
    let mut value = manifest();
    let artifact = value["artifacts"][0].clone();
    value["artifacts"] = json!([artifact, artifact]);
    value["artifacts"][1]["length"] = json!(0);
    value["artifacts"][1]["hardware"] = json!([]);
    assert_eq!(
        refused(Manifest::from_value(&value)),
        "manifest: `artifacts[1].name`: rootfs.img is the name of artifacts[0] already; \
         `artifacts[1].length`: an artifact has at least one byte; \
         `artifacts[1].hardware`: this list is empty: name the hardware it fits"
    );
}

#[test]
fn bytes_that_are_no_document() {
    for (bytes, why) in [
        (&b""[..], "unexpected end at line 1 column 1"),
        (b"{", "unexpected end at line 1 column 2"),
        (b"{} {}", "trailing characters at line 1 column 4"),
    ] {
        assert_eq!(refused(Manifest::parse(bytes)), format!("manifest: {why}"));
        assert_eq!(refused(CohortMap::parse(bytes)), format!("cohort map: {why}"));
        assert_eq!(refused(Facts::parse(bytes)), format!("facts: {why}"));
    }
    let twice = br#"{"schema": 1, "schema": 1}"#;
    assert!(
        refused(Manifest::parse(twice)).starts_with("manifest: the key \"schema\" appears twice in the object before")
    );
    let fraction = br#"{"schema": 1.0}"#;
    assert!(refused(Manifest::parse(fraction)).starts_with("manifest: the number is not a whole number"));
}

/// What public fields leave possible and reading refuses is not written either.
#[test]
fn what_would_not_read_back_is_not_written() {
    let mut manifest = decisions::manifest("1.2.0", 12);
    manifest.extra.insert("eligibility".into(), json!({"fact": "a", "exists": true}));
    let why = "an extra field has the name of a field of this schema: set that field instead";
    assert_eq!(refused(manifest.to_bytes()), format!("manifest: {why}"));

    let mut manifest = decisions::manifest("1.2.0", 12);
    manifest.sequence = 0;
    assert_eq!(
        refused(manifest.to_bytes()),
        "manifest: `sequence`: 0 is reserved for the factory image; releases start at 1"
    );

    let mut manifest = decisions::manifest("1.2.0", 12);
    manifest.extra.insert("x".into(), json!(1.5));
    assert_eq!(refused(manifest.to_bytes()), "manifest: `x`: it is not a whole number");

    let empty = Offers::new(instant("2026-01-05T12:00:00Z"), Vec::new());
    let why = "`offers`: at least one is required: without any, the target is not listed";
    assert_eq!(refused(empty.to_value()), format!("list of offers: {why}"));

    // Parts of a second are no fault: they are cut off.
    let mut manifest = decisions::manifest("1.2.0", 12);
    let whole = manifest.to_bytes().unwrap();
    manifest.created += chrono::Duration::milliseconds(999);
    assert_eq!(manifest.to_bytes().unwrap(), whole);
}

fn cohorts() -> Value {
    json!({"schema": 1, "salt": "00".repeat(16), "cohorts": [
        {"name": "listed", "devices": ["00".repeat(32)]},
        {"name": "lab", "condition": {"fact": "group", "eq": "lab"}},
        {"name": "canary", "share": 10_000},
        {"name": "fleet", "share": 990_000},
    ]})
}

#[test]
fn cohort_maps() {
    let one_of = "a cohort has exactly one of devices, condition and share";
    let many = (0..10_001).map(|number| json!({"name": format!("c{number}"), "share": 1})).collect();
    let cases: Vec<(&str, Option<Value>, String)> = vec![
        ("/schema", Some(json!(9)), "unsupported schema 9: this version supports schema 1; update the program".into()),
        ("/salt", None, "`salt`: this field is missing".into()),
        (
            "/salt",
            Some(json!("00")),
            "`salt`: \"00\" is not a salt: write 16 to 64 bytes in lower-case hexadecimal, for example 32 random ones"
                .into(),
        ),
        ("/cohorts", None, "`cohorts`: this field is missing".into()),
        ("/cohorts", Some(json!([])), "`cohorts`: the shares add up to 0 parts per million, not to 1000000".into()),
        ("/cohorts", Some(many), "`cohorts`: too many entries: at most 10000".into()),
        ("/cohorts/0/name", None, "`cohorts[0].name`: this field is missing".into()),
        ("/cohorts/0/devices", None, format!("`cohorts[0]`: {one_of}")),
        ("/cohorts/0/share", Some(json!(1)), format!("`cohorts[0]`: {one_of}")),
        ("/cohorts/1/devices", Some(json!([])), format!("`cohorts[1]`: {one_of}")),
        (
            "/cohorts/0/devices",
            Some(json!(["d-0001"])),
            "`cohorts[0].devices[0]`: \"d-0001\" is not a SHA-256: write 64 lower-case hexadecimal digits".into(),
        ),
        (
            "/cohorts/0/devices",
            Some(json!(["00".repeat(32), "00".repeat(32)])),
            "`cohorts[0].devices[1]`: duplicate entry".into(),
        ),
        (
            "/cohorts/1/condition",
            Some(json!({"all": []})),
            "`cohorts[1].condition.all`: this list is empty: name at least one condition".into(),
        ),
        (
            "/cohorts/2/share",
            Some(json!("1%")),
            "`cohorts[2].share`: expected a whole number from 0 to 2^64-1, found the string \"1%\"".into(),
        ),
        ("/cohorts/2/share", Some(json!(1_u64 << 32)), "`cohorts[2].share`: 4294967296 is too large".into()),
        (
            "/cohorts/2/share",
            Some(json!(9_999)),
            "`cohorts`: the shares add up to 999999 parts per million, not to 1000000".into(),
        ),
        (
            "/cohorts/2/share",
            Some(json!(u32::MAX)),
            "`cohorts`: the shares add up to 4295957295 parts per million, not to 1000000".into(),
        ),
        (
            "/cohorts/2/share",
            Some(json!(0)),
            "`cohorts[2].share`: a share is at least 1 part per million; \
             `cohorts`: the shares add up to 990000 parts per million, not to 1000000"
                .into(),
        ),
        ("/cohorts/3/name", Some(json!("lab")), "`cohorts[3].name`: lab is the name of cohorts[1] already".into()),
    ];
    assert!(CohortMap::from_value(&cohorts()).is_ok());
    for (pointer, change, why) in cases {
        let value = with(cohorts(), pointer, change);
        assert_eq!(refused(CohortMap::from_value(&value)), format!("cohort map: {why}"), "{pointer}");
    }
}

#[test]
fn every_fault_of_a_cohort_map_is_listed() {
    let mut value = cohorts();
    value["cohorts"] = json!([
        {"name": "a", "share": 500_000},
        {"name": "lab", "condition": {"fact": "group", "eq": "lab"}},
        {"name": "a", "share": 400_000},
        {"name": "none", "share": 0},
        {"name": "listed", "devices": []},
    ]);
    let late = "an explicit cohort after one with a share never matches: move it before the shares";
    assert_eq!(
        refused(CohortMap::from_value(&value)),
        format!(
            "cohort map: `cohorts[1]`: {late}; `cohorts[2].name`: a is the name of cohorts[0] already; \
             `cohorts[3].share`: a share is at least 1 part per million; `cohorts[4]`: {late}; \
             `cohorts`: the shares add up to 900000 parts per million, not to 1000000"
        )
    );
    // The same from code.
    let cohort = |text: &str, share| Cohort {
        name: name(text),
        selector: Selector::Share(share),
        protected: None,
        extra: Extra::new(),
    };
    let salt = Salt::new(&[0; 16]).unwrap();
    assert_eq!(
        refused(CohortMap::new(salt, vec![cohort("a", 1), cohort("b", 1_000_000)])),
        "cohort map: `cohorts`: the shares add up to 1000001 parts per million, not to 1000000"
    );
}

fn offers() -> Value {
    json!({
        "schema": 1, "assigned": "2026-01-05T11:58:00Z",
        "offers": [
            {
                "release": "1.2.0", "sequence": 12, "sha256": "00".repeat(32), "length": 1, "stage": "limited",
                "since": "2026-01-05T11:58:00Z", "paused": false, "until": "2026-01-08T12:00:00Z",
                "ramp": {"start": "2026-01-05T12:00:00Z", "end": "2026-01-06T12:00:00Z", "from": 0, "to": 500_000},
                "bridges": [
                    {"release": "1.1.9", "sequence": 10, "sha256": "00".repeat(32), "length": 1234, "upgrade_from": "<1.0.0"},
                    {"release": "1.1.8", "sequence": 9, "sha256": "00".repeat(32), "length": 1234, "upgrade_from": "<1.0.0"},
                ],
            },
            {
                "release": "1.1.0", "sequence": 11, "sha256": "00".repeat(32), "length": 1, "stage": "stable",
                "since": "2026-01-01T12:00:00Z",
            },
        ],
    })
}

#[test]
fn lists_of_offers() {
    let cases: Vec<(&str, Option<Value>, &str)> = vec![
        ("/schema", Some(json!(0)), "unsupported schema 0: this version supports schema 1; update the program"),
        ("/assigned", None, "`assigned`: this field is missing"),
        ("/offers", None, "`offers`: at least one is required: without any, the target is not listed"),
        ("/offers", Some(json!([])), "`offers`: at least one is required: without any, the target is not listed"),
        ("/offers", Some(json!(vec![1; 33])), "`offers`: 33 entries are too many: at most 32"),
        ("/offers/1/sequence", Some(json!(12)), "`offers[1].sequence`: 12 is the sequence of offers[0] already"),
        ("/offers/1/release", Some(json!("1.2.0")), "`offers[1].release`: 1.2.0 is the release of offers[0] already"),
        (
            "/offers/1/sequence",
            Some(json!(0)),
            "`offers[1].sequence`: 0 is reserved for the factory image; releases start at 1",
        ),
        ("/offers/0/sha256", None, "`offers[0].sha256`: this field is missing"),
        ("/offers/0/length", Some(json!(-1)), "`offers[0].length`: expected a whole number from 0 to 2^64-1, found -1"),
        ("/offers/0/since", None, "`offers[0].since`: this field is missing"),
        ("/offers/0/release", None, "`offers[0].release`: this field is missing"),
        (
            "/offers/0/sequence",
            Some(json!(true)),
            "`offers[0].sequence`: expected a whole number from 0 to 2^64-1, found true",
        ),
        (
            "/offers/0/stage",
            Some(json!("draft")),
            "`offers[0].stage`: \"draft\" is unknown: use one of validation, limited, stable, security",
        ),
        ("/offers/0/paused", Some(json!("no")), "`offers[0].paused`: expected true or false, found the string \"no\""),
        ("/offers/0/until", Some(json!(null)), "`offers[0].until`: expected a string, found null"),
        ("/offers/0/ramp", Some(json!(null)), "`offers[0].ramp`: expected an object, found null"),
        ("/offers/0/ramp/start", None, "`offers[0].ramp.start`: this field is missing"),
        (
            "/offers/0/ramp/start",
            Some(json!("2026-01-06T12:00:00Z")),
            "`offers[0].ramp.end`: a ramp ends after it starts",
        ),
        (
            "/offers/0/ramp/from",
            Some(json!(500_001)),
            "`offers[0].ramp.from`: a ramp does not fall: 500001 is more than 500000",
        ),
        (
            "/offers/0/ramp/to",
            Some(json!(1_000_001)),
            "`offers[0].ramp.to`: 1000001 parts per million are more than the whole, 1000000",
        ),
        (
            "/offers/0/ramp/to",
            Some(json!(50.5)),
            "`offers[0].ramp.to`: expected a whole number from 0 to 2^64-1, found 50.5",
        ),
        (
            "/offers/0/ramp/curve",
            Some(json!("steep")),
            "`offers[0].ramp`: the field \"curve\" is unknown, and unknown fields are not allowed here",
        ),
        ("/offers/0/bridges/1/sequence", Some(json!(0)), "`offers[0].bridges[1].sequence`: 0 is not between 1 and 11"),
        (
            "/offers/0/bridges/1/sequence",
            Some(json!(10)),
            "`offers[0].bridges[1].sequence`: 10 is the sequence of bridges[0] already",
        ),
        ("/offers/0/bridges/0/length", None, "`offers[0].bridges[0].length`: this field is missing"),
        ("/offers/0/bridges/0/upgrade_from", None, "`offers[0].bridges[0].upgrade_from`: this field is missing"),
        ("/offers/0/bridges", Some(json!(vec![1; 65])), "`offers[0].bridges`: 65 entries are too many: at most 64"),
    ];
    assert!(Offers::from_value(&offers()).is_ok());
    for (pointer, change, why) in cases {
        let value = with(offers(), pointer, change);
        assert_eq!(refused(Offers::from_value(&value)), format!("list of offers: {why}"), "{pointer}");
    }
    let custom = json!({"other": {}});
    assert_eq!(
        refused(Offers::from_custom(custom.as_object().unwrap())),
        "list of offers: `custom.tidegate`: this field is missing"
    );
}

#[test]
fn ramps_from_code() {
    let (start, end) = (instant("2026-01-05T12:00:00Z"), instant("2026-01-06T12:00:00Z"));
    assert_eq!(
        refused(Ramp::new(end, start, 7, 3)),
        "ramp: `end`: a ramp ends after it starts; `from`: a ramp does not fall: 7 is more than 3"
    );
    let ancient = start - chrono::Duration::days(40_000);
    assert_eq!(refused(Ramp::new(ancient, end, 0, 1)), "ramp: `start`: the year must be 1970 to 9999");
    let half = start + chrono::Duration::milliseconds(500);
    assert_eq!(Ramp::new(half, end, 0, 1).unwrap(), Ramp::new(start, end, 0, 1).unwrap());
    assert_eq!(refused(Ramp::new(start, half, 0, 1)), "ramp: `end`: a ramp ends after it starts");
}
