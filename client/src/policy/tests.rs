use serde_json::json;

use super::*;

fn policy(json: serde_json::Value) -> Policy {
    serde_json::from_value(json).unwrap()
}

fn at(text: &str) -> UtcTime {
    time::parse(text).unwrap()
}

#[allow(clippy::needless_pass_by_value, reason = "it is written where it is called")]
fn facts(json: serde_json::Value) -> Facts {
    Facts::from_value(&json).unwrap()
}

/// An installation of release 7 of normal urgency, on a Monday at noon.
fn situation(facts: &Facts) -> Situation<'_> {
    Situation {
        step: Step::Install,
        now: at("2026-01-05T12:00:00Z"),
        sequence: 7,
        urgency: Urgency::Normal,
        missing: 0,
        facts,
        deferral: None,
        newer: None,
    }
}

#[test]
fn without_a_policy_everything_is_allowed() {
    let facts = facts(json!({"metered": true}));
    for step in [Step::Download, Step::Install] {
        let judgement = judge(&Policy::default(), &Situation { step, missing: 1_000_000, ..situation(&facts) });
        assert!(judgement.allows(), "{judgement}");
        assert_eq!(judgement.rules.len(), Rule::ALL.len());
        assert_eq!(judgement.until(), None);
    }
}

/// 2027-03-28 and 2027-10-31 are the Sundays on which the clocks of Berlin change.
#[test]
fn windows_are_right_on_the_days_when_clocks_change() {
    let facts = Facts::new();
    for (window, now, until) in [
        ("sun 01:00 - 05:30", "2027-03-28T00:00:00Z", None),
        ("sun 01:00 - 05:30", "2027-03-28T03:29:59Z", None),
        ("sun 01:00 - 05:30", "2027-03-28T03:30:00Z", Some("2027-04-03T23:00:00Z")),
        ("sun 01:00 - 05:30", "2027-10-31T04:29:59Z", None),
        ("sun 01:00 - 05:30", "2027-10-31T04:30:00Z", Some("2027-11-07T00:00:00Z")),
        // From before a change to behind it.
        ("sun 04:00 - 05:00", "2027-03-27T12:00:00Z", Some("2027-03-28T02:00:00Z")),
        ("sun 04:00 - 05:00", "2027-10-30T12:00:00Z", Some("2027-10-31T03:00:00Z")),
        // Its start is skipped: it opens when the clock has passed it. All of it is skipped: it opens a week later.
        ("sun 02:30 - 03:30", "2027-03-28T00:59:59Z", Some("2027-03-28T01:00:00Z")),
        ("sun 02:30 - 03:30", "2027-03-28T01:29:59Z", None),
        ("sun 02:00 - 03:00", "2027-03-28T00:59:59Z", Some("2027-04-04T00:00:00Z")),
        // It comes twice.
        ("sun 02:00 - 03:00", "2027-10-30T12:00:00Z", Some("2027-10-31T00:00:00Z")),
        ("sun 02:00 - 03:00", "2027-10-31T01:59:59Z", None),
    ] {
        let policy = policy(json!({"windows": [window], "time_zone": "CET-1CEST,M3.5.0,M10.5.0/3"}));
        let judgement = judge(&policy, &Situation { now: at(now), ..situation(&facts) });
        assert_eq!(
            (judgement.allows(), judgement.until()),
            (until.is_none(), until.map(at)),
            "{window} {now}: {judgement}"
        );
    }
}

#[test]
fn without_a_valid_zone_or_offset_windows_stay_closed() {
    for (zone, fact) in [
        (Some("Europe/Nowhere"), None),
        (None, Some(json!("CET"))),
        (None, Some(json!("+25:00"))),
        (None, Some(json!(2))),
    ] {
        let mut settings = json!({"windows": ["00:00 - 00:00"], "utc_offset": "+01:00"});
        if let Some(zone) = zone {
            settings["time_zone"] = json!(zone);
        }
        let facts = facts(fact.map_or(json!({}), |fact| json!({"utc-offset": fact})));
        let judgement = judge(&policy(settings.clone()), &situation(&facts));
        assert!(!judgement.allows() && judgement.until().is_none(), "{judgement}");
        assert!(judgement.why().contains("cannot be placed: the "), "{}", judgement.why());
        // The fact is of no interest beside a zone.
        settings["time_zone"] = json!("UTC0");
        assert!(judge(&policy(settings), &situation(&facts)).allows());
    }
}

#[test]
fn windows_open_and_close_to_the_second() {
    // 2026-01-05 is a Monday.
    let cases: &[(&str, serde_json::Value, &str, Option<&str>)] = &[
        ("inside", json!("11:00 - 13:00"), "2026-01-05T12:00:00Z", None),
        ("at its start", json!("12:00 - 13:00"), "2026-01-05T12:00:00Z", None),
        ("before its start", json!("12:00 - 13:00"), "2026-01-05T11:59:59Z", Some("2026-01-05T12:00:00Z")),
        ("at its end", json!("11:00 - 12:00"), "2026-01-05T12:00:00Z", Some("2026-01-06T11:00:00Z")),
        ("over midnight, before", json!("23:00 - 02:00"), "2026-01-05T23:30:00Z", None),
        ("over midnight, after", json!("23:00 - 02:00"), "2026-01-06T01:59:59Z", None),
        ("over midnight, over", json!("23:00 - 02:00"), "2026-01-06T02:00:00Z", Some("2026-01-06T23:00:00Z")),
        ("all day", json!("00:00 - 00:00"), "2026-01-05T12:00:00Z", None),
        ("the day it starts on counts", json!("mon 23:00 - 02:00"), "2026-01-06T01:00:00Z", None),
        ("not on that day", json!("tue 23:00 - 02:00"), "2026-01-06T01:00:00Z", Some("2026-01-06T23:00:00Z")),
        ("in a week", json!("mon 10:00 - 11:00"), "2026-01-05T12:00:00Z", Some("2026-01-12T10:00:00Z")),
        ("on the weekend", json!("sat sun 01:00 - 05:30"), "2026-01-05T12:00:00Z", Some("2026-01-10T01:00:00Z")),
    ];
    let facts = Facts::new();
    for (name, window, now, expected) in cases {
        let judgement = judge(&policy(json!({"windows": [window]})), &Situation { now: at(now), ..situation(&facts) });
        assert_eq!(judgement.allows(), expected.is_none(), "{name}: {judgement}");
        assert_eq!(judgement.until(), expected.map(at), "{name}: {judgement}");
    }
}

#[test]
fn windows_are_in_local_time() {
    let windows = json!(["mon 00:30 - 01:30"]);
    // Sunday 23:00 in UTC is Monday 01:00 there.
    let now = at("2026-01-04T23:00:00Z");
    for (name, offset, fact, allowed) in [
        ("UTC", "+00:00", None, false),
        ("by setting", "+02:00", None, true),
        ("by fact", "+00:00", Some("+0200"), true),
        ("the other way", "-02:00", None, false),
    ] {
        let policy = policy(json!({"windows": windows, "utc_offset": offset}));
        let facts = facts(fact.map_or(json!({}), |fact| json!({"utc-offset": fact})));
        let judgement = judge(&policy, &Situation { now, ..situation(&facts) });
        assert_eq!(judgement.allows(), allowed, "{name}: {judgement}");
    }
}

#[test]
fn downloads_need_no_window_unless_told_so() {
    let facts = Facts::new();
    let download = Situation { step: Step::Download, missing: 5, ..situation(&facts) };
    let windows = json!(["01:00 - 02:00"]);
    assert!(judge(&policy(json!({"windows": windows})), &download).allows());
    assert!(!judge(&policy(json!({"windows": windows, "download_any_time": false})), &download).allows());
}

#[test]
fn users_defer_a_release_within_a_limit() {
    let facts = Facts::new();
    let deferral = |sequence, since, until| Some(Deferral { sequence, since: at(since), until: at(until) });
    let cases = [
        ("not deferred", None, None),
        (
            "until this evening",
            deferral(7, "2026-01-05T10:00:00Z", "2026-01-05T18:00:00Z"),
            Some("2026-01-05T18:00:00Z"),
        ),
        ("over", deferral(7, "2026-01-04T10:00:00Z", "2026-01-05T12:00:00Z"), None),
        ("another release", deferral(6, "2026-01-05T10:00:00Z", "2026-01-05T18:00:00Z"), None),
        (
            "longer than allowed",
            deferral(7, "2026-01-05T10:00:00Z", "2099-01-01T00:00:00Z"),
            Some("2026-01-07T10:00:00Z"),
        ),
        ("again and again", deferral(7, "2026-01-03T11:00:00Z", "2026-01-06T00:00:00Z"), None),
        ("asked for in the future", deferral(7, "2030-01-01T00:00:00Z", "2030-01-02T00:00:00Z"), None),
    ];
    let policy = policy(json!({"deferral": {"limit": "2d"}}));
    for (name, deferral, expected) in cases {
        let judgement = judge(&policy, &Situation { deferral, ..situation(&facts) });
        assert_eq!(judgement.until(), expected.map(at), "{name}: {judgement}");
        assert_eq!(judgement.allows(), expected.is_none(), "{name}: {judgement}");
        let download = Situation { deferral, step: Step::Download, missing: 1, ..situation(&facts) };
        assert!(judge(&policy, &download).allows(), "{name}: deferring does not stop the download");
    }
    let forbidden = Situation { deferral: cases[1].1, ..situation(&facts) };
    assert!(judge(&Policy::default(), &forbidden).allows());
}

#[test]
fn facts_are_required_as_conditions() {
    let policy = policy(
        json!({"require": {"all": [{"fact": "battery-percent", "ge": 30}, {"not": {"fact": "in-use", "eq": true}}]}}),
    );
    for (name, found, allowed) in [
        ("charged", json!({"battery-percent": 30}), true),
        ("not charged", json!({"battery-percent": 29}), false),
        ("not known", json!({}), false),
        ("a text", json!({"battery-percent": "full"}), false),
        ("in use", json!({"battery-percent": 90, "in-use": true}), false),
    ] {
        let facts = facts(found);
        let judgement = judge(&policy, &situation(&facts));
        assert_eq!(judgement.allows(), allowed, "{name}: {judgement}");
        assert_eq!(judgement.until(), None, "{name}: nobody knows when");
    }
}

#[test]
fn metered_networks_hold_back_downloads() {
    for (name, rule, metered, missing, allowed) in [
        ("not metered", json!("refuse"), json!(false), 10, true),
        ("not known", json!("refuse"), json!("maybe"), 10, true),
        ("refused", json!("refuse"), json!(true), 10, false),
        ("nothing is missing", json!("refuse"), json!(true), 0, true),
        ("small", json!({"at_most": 10}), json!(true), 10, true),
        ("large", json!({"at_most": 10}), json!(true), 11, false),
        ("allowed", json!("allow"), json!(true), 11, true),
    ] {
        let facts = facts(json!({"metered": metered}));
        let situation = Situation { step: Step::Download, missing, ..situation(&facts) };
        let judgement = judge(&policy(json!({"metered": rule})), &situation);
        assert_eq!(judgement.allows(), allowed, "{name}: {judgement}");
    }
}

/// What a security release passes is the owner's choice, rule by rule.
#[test]
fn security_overrides_what_the_policy_lets_it() {
    let facts = facts(json!({"metered": true, "battery-percent": 5}));
    let rules = json!({
        "windows": ["01:00 - 02:00"], "download_any_time": false, "deferral": {"limit": "7d"},
        "require": {"fact": "battery-percent", "ge": 30}, "metered": "refuse",
    });
    let deferral = Deferral { sequence: 7, since: at("2026-01-05T10:00:00Z"), until: at("2026-01-05T18:00:00Z") };
    for (overrides, passed) in [
        (None, vec![Rule::Windows, Rule::Deferral]),
        (Some(json!([])), vec![]),
        (Some(json!(["require"])), vec![Rule::Require]),
        (Some(json!(["windows", "deferral", "require", "metered"])), Rule::ALL.to_vec()),
    ] {
        let mut rules = rules.clone();
        if let Some(overrides) = &overrides {
            rules["security_overrides"] = overrides.clone();
        }
        let policy = policy(rules);
        for (step, concerned) in [
            (Step::Install, vec![Rule::Windows, Rule::Deferral, Rule::Require]),
            (Step::Download, vec![Rule::Windows, Rule::Metered]),
        ] {
            let normal = Situation { step, missing: 10, deferral: Some(deferral), ..situation(&facts) };
            let failed = |situation: &Situation<'_>| {
                judge(&policy, situation).failed().map(|outcome| outcome.rule).collect::<Vec<_>>()
            };
            assert_eq!(failed(&normal), concerned);
            let security = Situation { urgency: Urgency::Security, ..normal };
            let left: Vec<Rule> = concerned.into_iter().filter(|rule| !passed.contains(rule)).collect();
            assert_eq!(failed(&security), left, "{overrides:?}");
        }
    }
}

#[test]
fn a_judgement_waits_for_the_last_reason() {
    let facts = facts(json!({}));
    let policy = policy(json!({"windows": ["01:00 - 02:00"], "deferral": {"limit": "7d"}}));
    let deferral = Some(Deferral { sequence: 7, since: at("2026-01-05T10:00:00Z"), until: at("2026-01-05T18:00:00Z") });
    let judgement = judge(&policy, &Situation { deferral, ..situation(&facts) });
    assert_eq!(judgement.until(), Some(at("2026-01-06T01:00:00Z")));
    assert_eq!(
        judgement.why(),
        "outside the maintenance windows, the next starts at 2026-01-06T01:00:00Z (L-WINDOW); \
         the user deferred this release until 2026-01-05T18:00:00Z (L-DEFERRAL)"
    );
    let text = judgement.to_string();
    assert_eq!(text.lines().count(), Rule::ALL.len());
    assert!(text.starts_with("  FAIL  L-WINDOW"), "{text}");
    assert!(serde_json::to_string(&judgement).unwrap().contains(r#""rule":"L-DEFERRAL","verdict":"fail""#));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for wrong in [
        json!({"window": []}),
        json!({"windows": ["1:00 - 02:00"]}),
        json!({"windows": ["24:00 - 02:00"]}),
        json!({"windows": ["01:60 - 02:00"]}),
        json!({"windows": ["01:00"]}),
        json!({"windows": [{"from": "01:00", "to": "02:00"}]}),
        json!({"windows": ["monday 01:00 - 02:00"]}),
        json!({"utc_offset": "02:00"}),
        json!({"utc_offset": "+19:00"}),
        json!({"deferral": {"limit": "a week"}}),
        json!({"deferral": {}}),
        json!({"require": {"fact": "battery", "is": 3}}),
        json!({"metered": "sometimes"}),
        json!({"security_overrides": ["signatures"]}),
    ] {
        assert!(serde_json::from_value::<Policy>(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn a_policy_is_made_in_code_or_read() {
    let read = Policy::parse(
        r#"{"windows": ["sat sun 01:00 - 05:30"], "utc_offset": "+01:00", "time_zone": "CET-1CEST,M3.5.0,M10.5.0/3",
        "download_any_time": false, "deferral": {"limit": "7d"}, "require": {"fact": "battery-percent", "ge": 30},
        "metered": {"at_most": 1000000}, "wait_for_newer": "2d", "security_overrides": ["newer", "windows"]}"#,
    )
    .unwrap();
    let made = Policy::new()
        .with_windows(["sat sun 01:00 - 05:30".parse().unwrap()])
        .with_utc_offset("+01:00".parse().unwrap())
        .with_time_zone(Zone::find("CET-1CEST,M3.5.0,M10.5.0/3").unwrap())
        .with_downloads_at_any_time(false)
        .with_deferral_limit("7d".parse().unwrap())
        .with_required(Condition::parse(r#"{"fact": "battery-percent", "ge": 30}"#).unwrap())
        .with_metered(Metered::AtMost(1_000_000))
        .with_wait_for_newer("2d".parse().unwrap())
        .with_security_overrides("windows newer".parse().unwrap());
    assert_eq!(made, read);
    assert_eq!((made.windows().len(), made.deferral_limit().to_string().as_str()), (1, "7d"));
    assert_eq!("{}".parse::<Policy>().unwrap(), Policy::default());
    assert_eq!("".parse::<Overrides>().unwrap(), Overrides::from_iter([]));
    for (wrong, why) in [
        (r#"{"windows": 1}"#, "`windows`: expected a list, found 1"),
        (r#"{"deferal": {}}"#, "the field \"deferal\" is unknown, and unknown fields are not allowed here"),
        (
            r#"{"security_overrides": ["all"]}"#,
            "`security_overrides[0]`: expected one of windows, deferral, require, metered, newer, found the string \"all\"",
        ),
        ("{", ""),
    ] {
        let error = Policy::parse(wrong).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let error = "window".parse::<Overrides>().unwrap_err().to_string();
    assert_eq!(error, "\"window\" is no rule of a policy: expected one of windows, deferral, require, metered, newer");
}
