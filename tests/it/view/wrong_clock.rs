//! A publisher whose clock is wrong: behind, it signs and publishes nothing; ahead, others notice and replace what it signed.

use std::process::Output;

use super::story::{NOW, Story, text, tidegate};

const BEFORE: &str = "2026-03-05T12:00:00Z";
const LATER: &str = "2026-03-05T19:00:00Z";
const AHEAD: &str = "2026-03-09T12:00:00Z";

struct Rig(Story);

impl Rig {
    fn run(&self, now: &str, args: &[&str]) -> Output {
        tidegate(&[&["-C", text(&self.0.workspace()), "--now", now], args].concat())
    }

    fn done(&self, now: &str, args: &[&str]) {
        let out = self.run(now, args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// The command is refused by `M-TIME`, with a remedy.
    fn refused(&self, now: &str, args: &[&str], remedy: &str) {
        let out = self.run(now, args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(1) && said.contains("M-TIME") && said.contains(remedy), "{args:?}: {said}");
    }

    /// What `verify` and `doctor` say of dates.
    fn reports(&self, now: &str) -> Vec<&'static str> {
        let (public, root) = (self.0.public(), self.0.root());
        let verify = self.run(now, &["verify", text(&public), "--root", text(&root)]);
        let doctor = self.run(now, &["doctor", text(&public)]);
        let said = [verify.stdout, doctor.stdout].map(|out| String::from_utf8_lossy(&out).into_owned()).concat();
        ["M-TIME", "DOC-CLOCK", "DOC-PUB-CLOCK"].into_iter().filter(|id| said.contains(id)).collect()
    }

    /// Renews targets in a proposal that is dated ahead, and signs it.
    fn propose_targets(&self) {
        self.done(AHEAD, &["ceremony", "start", "--renew", "targets"]);
        let shown = self.run(AHEAD, &["ceremony", "status", "--json"]).stdout;
        let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
        let digits = &shown["digest"].as_str().unwrap()[..16];
        for key in ["targets-1", "targets-2"] {
            self.done(AHEAD, &["ceremony", "sign", "--key", key, "--confirm", digits]);
        }
    }

    fn timestamp(&self) -> Vec<u8> {
        std::fs::read(self.0.public().join("metadata/timestamp.json")).unwrap()
    }
}

#[test]
fn a_clock_behind_signs_and_publishes_nothing() {
    let rig = Rig(Story::new());
    let public = rig.0.public();
    let before = rig.timestamp();
    rig.refused(BEFORE, &["refresh"], "timedatectl");
    rig.refused(BEFORE, &["rollout", "pause", "1.1.0", "--reason", "to try"], "timedatectl");
    rig.refused(BEFORE, &["publish", text(&public)], "tidegate refresh --redate");
    assert_eq!(rig.timestamp(), before);
    assert_eq!(rig.reports(BEFORE), ["M-TIME", "DOC-CLOCK", "DOC-PUB-CLOCK"]);
    assert!(rig.reports(NOW).is_empty());
    // Clocks that are seconds apart are no fault.
    rig.done(AHEAD, &["refresh"]);
    rig.done("2026-03-09T11:59:30Z", &["publish", text(&public)]);
}

#[test]
fn a_clock_ahead_is_noticed_and_undone() {
    let rig = Rig(Story::new());
    let public = rig.0.public();
    let publish = ["publish", text(&public)];
    rig.done(AHEAD, &["refresh"]);
    // It was signed elsewhere, and is not published here.
    rig.refused(LATER, &publish, "tidegate refresh --redate");
    rig.done(AHEAD, &publish);
    assert_eq!(rig.reports(LATER), ["M-TIME", "DOC-CLOCK", "DOC-PUB-CLOCK"]);
    rig.refused(LATER, &["refresh"], "tidegate refresh --redate");
    rig.done(LATER, &["refresh", "--redate"]);
    let ahead = rig.timestamp();
    rig.refused(LATER, &publish, "tidegate publish --redate");
    assert_eq!(rig.timestamp(), ahead);
    rig.done(LATER, &["publish", "--redate", text(&public)]);
    assert!(rig.reports(LATER).is_empty());
    rig.done(LATER, &["refresh"]);
    rig.done(LATER, &publish);
}

#[test]
fn targets_from_the_future_stop_refresh_and_publish() {
    let rig = Rig(Story::new());
    let public = rig.0.public();
    rig.propose_targets();
    rig.done(AHEAD, &["ceremony", "finish"]);
    // Keys that are elsewhere cannot sign it again.
    let (keys, away) = (rig.0.workspace().join("keys"), rig.0.workspace().join("away"));
    std::fs::create_dir(&away).unwrap();
    let names = ["targets-1.pem", "targets-2.pem", "targets-3.pem"];
    for name in names {
        std::fs::rename(keys.join(name), away.join(name)).unwrap();
    }
    rig.done(LATER, &["refresh", "--redate"]);
    rig.refused(LATER, &["refresh"], "tidegate ceremony start --renew targets");
    rig.refused(LATER, &["publish", text(&public)], "tidegate ceremony start --renew targets");
    for name in names {
        std::fs::rename(away.join(name), keys.join(name)).unwrap();
    }
    rig.done(LATER, &["refresh", "--redate"]);
    rig.done(LATER, &["publish", text(&public)]);
    assert!(rig.reports(LATER).is_empty());
}

#[test]
fn a_proposal_from_the_future_is_not_finished() {
    let rig = Rig(Story::new());
    rig.propose_targets();
    rig.refused(LATER, &["ceremony", "finish"], "timedatectl");
    rig.done(AHEAD, &["ceremony", "finish"]);
}
