//! Two people at once, each with a process of their own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidegate::workspace::Workspace;

use crate::support::fleet::Fleet;
use crate::support::skip;

fn tidegate(fleet: &Fleet, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("-C").arg(fleet.path()).args(args).args(["--now", &fleet.now.to_rfc3339()]);
    command.env("TIDEGATE_ACTOR", "somebody").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Whether a process has the lock's file open: it has begun to wait.
fn waits(child: &Child) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{}/fd", child.id())) else { return false };
    open.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|path| path.ends_with(".tidegate/lock")))
}

#[test]
fn of_two_who_advance_at_once_one_is_told_and_nothing_is_half_done() {
    if !Path::new("/proc/self/fd").exists() {
        return skip("this system does not tell which files a process has open");
    }
    let mut fleet = Fleet::new();
    // Nothing but the race would stop the second one from going on to the cohort after.
    let path = fleet.path().join("policy.toml");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace("soak = \"24h\"", "soak = \"0\"").replace("canary = \"48h\"", "canary = \"0\"");
    fs::write(&path, text.replace("largest_step = \"10%\"", "largest_step = \"100%\"")).unwrap();
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    fleet.pass(1);

    let lock = Workspace::open(&fleet.path()).unwrap();
    let both = [0, 1].map(|_| tidegate(&fleet, &["rollout", "advance", "1.0.0"]).spawn().unwrap());
    let begun = Instant::now();
    while !both.iter().all(waits) {
        assert!(begun.elapsed() < Duration::from_secs(8), "the two processes do not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(lock);
    let [one, two] = both.map(|child| child.wait_with_output().unwrap());
    let (won, lost) = if one.status.success() { (one, two) } else { (two, one) };
    assert!(won.status.success(), "{}", String::from_utf8_lossy(&won.stderr));
    let said = String::from_utf8_lossy(&lost.stderr).into_owned();
    assert_eq!(lost.status.code(), Some(1), "{said}");
    assert!(
        said.contains("conflict: somebody changed it in the meantime: advance at") && said.contains("[R-RACE]"),
        "{said}"
    );
    assert!(said.contains("nothing was changed"), "{said}");

    let (workspace, _) = fleet.open();
    let repository = workspace.repository().unwrap();
    let has = |role: &str| !repository.targets(role).unwrap().targets.is_empty();
    assert!(has("stable.early") && !has("stable.general"), "one step was taken, not two");
    drop(workspace);
    let out = tidegate(&fleet, &["log", "--verify"]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));

    // Whoever says which cohort they mean is safe also when they come a moment later.
    let late = tidegate(&fleet, &["rollout", "advance", "1.0.0", "--cohort", "early"]).output().unwrap();
    let said = String::from_utf8_lossy(&late.stderr).into_owned();
    assert!(said.contains("the next cohort is general, not early [R-COHORTS]"), "{said}");
    let next = tidegate(&fleet, &["rollout", "advance", "1.0.0", "--cohort", "general"]).output().unwrap();
    assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stderr));
}
