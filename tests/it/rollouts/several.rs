//! Several releases in flight: on one channel, of several products, on several channels, for several kinds of hardware.

use crate::support::Fleet;
use crate::support::fleet::{lay_out, named, rule};
use tidegate::forecast::explain;
use tidegate::policy::ReleaseState;
use tidegate::release::record::{RecordedUrgency, ReleaseSpec};
use tidegate::rollout::RampRequest;
use tidegate::workspace::CohortInForce;
use tidegate_model::decision::Outcome;

/// Two channels, two products.
fn wide() -> Fleet {
    Fleet::shaped(|name, text| match name {
        "tidegate.toml" => {
            let text = text.replace("products = [\"os\"]", "products = [\"os\", \"app\"]");
            let from = text.find("[channels.stable.release]").unwrap();
            let until = from + text[from..].find("\n# How objects").unwrap();
            let beta = text[from..until].replace("channels.stable", "channels.beta");
            format!("{}{beta}\n{}", &text[..from], &text[from..])
        }
        "cohorts.toml" => {
            let beta = "[beta]\nsalt = \"00000000000000000000000000000000\"\n\n[[beta.cohort]]\nname = \"everyone\"\nshare = \"100%\"\n";
            format!("{text}\n{beta}")
        }
        "policy.toml" => text.replace("max_unattended = \"72h\"", "max_unattended = \"24h\""),
        _ => text,
    })
}

fn in_force(fleet: &Fleet, spec: &ReleaseSpec) -> Vec<CohortInForce> {
    fleet.step(spec, |transaction, _| Ok(transaction.in_force().to_vec())).unwrap()
}

#[test]
fn channels_products_and_hardware_go_their_own_ways_at_once() {
    let mut fleet = wide();
    let os = fleet.release("stable/os/1.0.0", |_| ());
    let app = fleet.release("stable/app/7.0.0", |_| ());
    let beta = fleet.release("beta/os/2.0.0", |_| ());
    fleet.start(&os);
    fleet.pass(12);
    fleet.start(&app);
    let ramp = RampRequest { span: Some("12h".parse().unwrap()), ..RampRequest::default() };
    fleet.step(&beta, |transaction, op| transaction.start(ramp, op)).unwrap();
    fleet.pass(12);
    for spec in [&os, &app, &beta] {
        fleet.step(spec, |transaction, op| transaction.renew(op)).unwrap();
    }
    fleet.pass(12);
    fleet.step(&app, |transaction, op| transaction.pause(op, None)).unwrap();

    let site = fleet.dir.path().join("site");
    lay_out(&fleet, &site);
    let (workspace, _) = fleet.open();
    let repository = workspace.repository().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..120 {
        let channel = if number % 4 == 0 { "beta" } else { "stable" };
        let product = if number % 2 == 0 { "os" } else { "app" };
        let hardware = if number % 5 == 0 { "board-b" } else { "board-a" };
        let mut profile = Fleet::profile(&format!("device-{number}"), channel, product, hardware);
        if number % 3 == 0 {
            profile.own_facts.insert("group".parse().unwrap(), "lab".into());
        }
        let ours = explain(workspace.dir(), &repository, &profile, fleet.now).unwrap().explanation;
        let theirs = fleet.device(&site, &profile).explain(None, None).unwrap().explanation;
        assert_eq!(ours.to_string(), theirs.to_string());
        let outcome = match theirs.outcome {
            Outcome::Install { release, .. } => format!("installs {release}"),
            Outcome::Wait { .. } => "waits".into(),
            Outcome::NotEligible { .. } => "is of other hardware".into(),
            Outcome::NoOffer { .. } => "is offered nothing".into(),
            other => other.to_string(),
        };
        seen.insert(format!("{channel} {product} {outcome}"));
    }
    for expected in [
        "beta os installs 2.0.0",
        "beta os is of other hardware",
        "stable app waits",
        "stable app is offered nothing",
        "stable os installs 1.0.0",
        "stable os is offered nothing",
    ] {
        assert!(seen.contains(expected), "{expected}: {seen:?}");
    }
}

#[test]
fn a_release_follows_another_through_the_cohorts_of_one_channel() {
    let mut fleet = Fleet::new();
    let first = fleet.release("1.0.0", |_| ());
    let second = fleet.release("1.1.0", |_| ());
    fleet.start(&first);
    fleet.pass(48);
    fleet.advance(&first, 24).unwrap();
    fleet.pass(48);
    // The second begins while the first is half way.
    fleet.start(&second);
    let offered = |in_force: &[CohortInForce]| -> Vec<String> {
        let release = |own: &CohortInForce| own.offers.first().map_or("-".into(), |own| own.release.to_string());
        in_force.iter().map(release).collect()
    };
    assert_eq!(offered(&in_force(&fleet, &first)), ["1.1.0", "1.1.0", "1.0.0", "-"]);
    // The first goes on where it is the newest, and takes nobody back.
    assert_eq!(offered(&fleet.advance(&first, 24).unwrap()), ["1.1.0", "1.1.0", "1.0.0", "1.0.0"]);
    fleet.pass(48);
    assert_eq!(offered(&fleet.advance(&second, 24).unwrap()), ["1.1.0", "1.1.0", "1.1.0", "1.0.0"]);
    let outcome = fleet.step(&first, |transaction, op| transaction.complete(op)).unwrap();
    assert_eq!(outcome.record.state, ReleaseState::Stable, "every cohort has it, or something newer");
    // Withdrawing one leaves the other as it is.
    fleet.step(&first, |transaction, op| transaction.withdraw(op, None)).unwrap();
    assert_eq!(offered(&in_force(&fleet, &second)), ["1.1.0", "1.1.0", "1.1.0", "-"]);
    assert_eq!(second.find(&fleet.path()).unwrap().state, ReleaseState::Limited);
}

/// The dead man's switch is of each offer: whoever looks after one release neither keeps another alive nor ends it.
#[test]
fn each_offer_ends_by_itself() {
    let mut fleet = wide();
    let os = fleet.release("stable/os/1.0.0", |_| ());
    let app = fleet.release("stable/app/7.0.0", |_| ());
    fleet.start(&os);
    fleet.start(&app);
    let canary = |fleet: &Fleet, spec| named(&in_force(fleet, spec), "canary").clone();
    let until = |fleet: &Fleet, spec| canary(fleet, spec).offers[0].until.unwrap();
    let deadline = until(&fleet, &os);
    assert_eq!(deadline, fleet.now + chrono::TimeDelta::hours(24));
    // Only the app is looked after.
    fleet.pass(12);
    fleet.step(&app, |transaction, op| transaction.renew(op)).unwrap();
    assert_eq!((until(&fleet, &os), until(&fleet, &app)), (deadline, fleet.now + chrono::TimeDelta::hours(24)));
    fleet.pass(13);
    fleet.step(&app, |transaction, op| transaction.renew(op)).unwrap();
    assert!(canary(&fleet, &app).expires > fleet.now + chrono::TimeDelta::days(13), "the role lives its 14 days");
    assert!(canary(&fleet, &os).offers[0].has_ended(fleet.now) && !canary(&fleet, &app).offers[0].has_ended(fleet.now));
    // Refreshing the roles moves no deadline.
    let (workspace, mut ring) = fleet.open();
    let settings = workspace.settings().unwrap();
    let mut op = tidegate::workspace::Operation::new(&workspace, "tester", fleet.now, &mut ring);
    tidegate::rollout::refresh::refresh(&mut op, &settings).unwrap();
    drop(workspace);
    assert_eq!(until(&fleet, &os), deadline);
    // Whoever comes to it again goes on with it.
    fleet.validate(&os);
    fleet.step(&os, |transaction, op| transaction.renew(op)).unwrap();
    assert_eq!(until(&fleet, &os), fleet.now + chrono::TimeDelta::hours(24));
}

/// A security release is offered although an ordinary one is paused, and is validated like any other.
#[test]
fn security_release_ignores_pause_of_another() {
    let mut fleet = Fleet::new();
    let ordinary = fleet.release("1.0.0", |_| ());
    fleet.start(&ordinary);
    fleet.pass(1);
    fleet.step(&ordinary, |transaction, op| transaction.pause(op, None)).unwrap();

    let urgent = fleet.draft("1.0.1", |new| new.urgency = RecordedUrgency::Security);
    let start = |fleet: &Fleet| fleet.step(&urgent, |transaction, op| transaction.start(RampRequest::default(), op));
    // Neither the signatures nor the validation are skipped.
    assert_eq!(rule(start(&fleet)), "R-ORDER");
    fleet.sign(&urgent).unwrap();
    assert_eq!(rule(start(&fleet)), "R-ORDER");
    assert_eq!(rule(fleet.register(&urgent)), "R-VALIDATED");
    fleet.validate(&urgent);
    fleet.register(&urgent).unwrap();
    let in_force = start(&fleet).unwrap().in_force;
    assert!(in_force.iter().all(|cohort_in_force| cohort_in_force.has(2) && !cohort_in_force.offers[0].paused));

    // To every device at once, whatever its cohort.
    let site = fleet.dir.path().join("site");
    lay_out(&fleet, &site);
    for number in 0..20 {
        let profile = Fleet::profile(&format!("device-{number}"), "stable", "os", "board-a");
        let outcome = fleet.device(&site, &profile).check().unwrap().explanation.outcome;
        assert!(matches!(&outcome, Outcome::Install { release, .. } if release.to_string() == "1.0.1"), "{outcome}");
    }
    // The ordinary one may go on, and reaches nobody that has the newer one.
    fleet.step(&ordinary, |transaction, op| transaction.resume(tidegate::rollout::RampRequest::default(), op)).unwrap();
    fleet.pass(72);
    assert_eq!(rule(fleet.advance(&ordinary, 24)), "R-COHORTS");
    let outcome = fleet.step(&urgent, |transaction, op| transaction.complete(op)).unwrap();
    assert_eq!(outcome.record.state, ReleaseState::Stable);
}

#[test]
fn every_step_beyond_policy_is_refused_by_its_rule() {
    let mut fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |_| ());
    let advance = |fleet: &Fleet, request| fleet.step(&spec, |transaction, op| transaction.advance(request, None, op));
    let ramp = |hours: &str| RampRequest { span: Some(hours.parse().unwrap()), ..RampRequest::default() };
    assert_eq!(rule(advance(&fleet, ramp("24h"))), "R-ORDER");
    fleet.start(&spec);
    fleet.pass(47);
    assert_eq!(rule(advance(&fleet, ramp("24h"))), "R-SOAK");
    fleet.pass(1);
    assert_eq!(rule(advance(&fleet, RampRequest::default())), "R-STEP");
    assert_eq!(rule(advance(&fleet, ramp("11h"))), "R-RAMP");
    let leap = RampRequest { span: Some("24h".parse().unwrap()), from: Some(600_000), to: None };
    assert_eq!(rule(advance(&fleet, leap)), "R-STEP");
    advance(&fleet, ramp("24h")).unwrap();
    fleet.pass(30);
    assert_eq!(rule(advance(&fleet, ramp("24h"))), "R-SOAK");
    assert_eq!(rule(fleet.step(&spec, |transaction, op| transaction.complete(op))), "R-COHORTS");
}
