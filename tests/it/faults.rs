//! Whatever goes wrong while publishing: readers never see a broken repository, and the next run completes.
//!
//! Each test enumerates: the fault comes at the first request, then at the second, until a publication has no request left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::proxy::{Fault, Proxy};
use crate::support::s3::{BUCKET, S3};
use crate::support::{Forge, forge};
use futures::StreamExt as _;
use tidegate::audit::{self, PublishedRepository};
use tidegate::publish::{self, Options, Remote, Source};

/// How long the publisher waits for an answer, and how long it tries again.
const TIMEOUT: Duration = Duration::from_millis(400);
const RETRY: Duration = Duration::from_millis(500);
/// Cases at once.
const AT_ONCE: usize = 8;

/// What is published before the fault, and what while it happens.
struct Scenario {
    name: &'static str,
    before: Option<Forge>,
    after: Forge,
    /// Whether a cohort is protected, so that there is a private place beside the public one.
    apart: bool,
}

fn workspace() -> Forge {
    let mut forge = Forge::new(&["early", "late"]);
    forge.release("1.0.0", 1, &[("rootfs.img", &vec![1; 150_000]), ("boot.img", b"boot one")]);
    forge.assign("early", "1.0.0");
    forge
}

fn scenarios() -> Vec<Scenario> {
    let base = workspace();
    let mut release = base.fork();
    release.release("1.1.0", 2, &[("rootfs.img", &vec![2; 150_000]), ("boot.img", b"boot two")]);
    release.assign("early", "1.1.0");
    let mut rotation = base.fork();
    rotation.renew(&["root"]);
    rotation.renew(&["stable.late"]);
    let mut refresh = base.fork();
    refresh.renew(&["timestamp"]);
    let (first, before) = (base.fork(), || Some(base.fork()));
    let guarded = guarded();
    let mut secret = guarded.fork();
    secret.release("2.0.0", 2, &[("rootfs.img", &vec![2; 150_000])]);
    secret.assign_privately("secret", "2.0.0");
    let apart = false;
    vec![
        Scenario { name: "first", before: None, after: first, apart },
        Scenario { name: "release", before: before(), after: release, apart },
        Scenario { name: "root", before: before(), after: rotation, apart },
        Scenario { name: "refresh", before: before(), after: refresh, apart },
        Scenario { name: "private", before: Some(guarded), after: secret, apart: true },
    ]
}

/// One of whose cohorts is protected.
fn guarded() -> Forge {
    let mut forge = Forge::with_gate(&["early", "secret"], "https://gate.example.com");
    forge.release("1.0.0", 1, &[("boot.img", b"boot one")]);
    forge.assign("early", "1.0.0");
    forge
}

/// Publishes; small parts, so that small files have several.
async fn publish(
    forge: &Forge,
    options: Options,
    prefix: &str,
    apart: bool,
) -> tidegate::error::Result<publish::PublishReport> {
    let options = Options { part: 64 << 10, ..options };
    let open = |prefix: &str| {
        Remote::open_with(&format!("s3://{BUCKET}/{prefix}"), &options).map(Remote::danger_assume_conditional)
    };
    let remote = if apart {
        open(&format!("{prefix}/public"))?.with_private(open(&format!("{prefix}/private"))?)?
    } else {
        open(prefix)?
    };
    let source = Source::new(forge.dir());
    let plan = publish::plan(&source, &remote, forge.now()).await?;
    publish::execute(&plan, &source, &remote, &|_| {}).await
}

/// What a reader sees hangs together; gives the version of the timestamp, 0 if there is none.
fn check(forge: &Forge, place: &Path) -> u64 {
    if !place.join("metadata/timestamp.json").exists() {
        return 0;
    }
    let origin = PublishedRepository::open(place.to_str().unwrap()).unwrap();
    let tree = audit::walk(&origin, &forge.root(), forge.now()).unwrap();
    assert_eq!(tree.faults, [], "a reader saw a broken repository at {}", place.display());
    for listed in tree.listed() {
        let path = tidegate_tuf::path::TargetPath::new(listed.path).unwrap();
        let path = place.join("targets").join(path.file_path(&listed.file.hashes, true));
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("a reader missed {}: {error}", path.display()));
        let sha256 = <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&bytes));
        assert_eq!(Some(&sha256), listed.file.hashes.sha256_digest(), "{}", path.display());
    }
    tree.timestamp.unwrap().version
}

/// The same of a public place and a private one: all is there, what is secret not in the open, and what goes through gates is given out.
fn check_apart(forge: &Forge, place: &Path) -> u64 {
    let (public, private) = (place.join("public"), place.join("private"));
    if !public.join("metadata/timestamp.json").exists() {
        return 0;
    }
    let open = |path: &Path| Arc::new(PublishedRepository::open(path.to_str().unwrap()).unwrap());
    let view = audit::View::both(open(&public), open(&private));
    let look = audit::look(view.origin.as_ref(), &forge.root(), None, true).unwrap();
    assert_eq!(look.faults, [], "a reader saw a broken repository at {}", place.display());
    for secret in look.protection.secrets() {
        assert!(!public.join(secret).exists(), "{secret} lies open");
    }
    for (role, objects) in look.protection.listings() {
        let listing = std::fs::read(private.join(format!("gate/{role}.json"))).unwrap();
        let listing = tidegate_model::listing::Listing::parse(&listing, role).unwrap();
        for key in objects {
            assert!(listing.objects.contains(key), "its gate would not give {key} to {role}");
            assert!(private.join(key).exists(), "a device of {role} missed {key}");
        }
    }
    look.tree.timestamp.unwrap().version
}

/// What came of one fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    /// The publication went through all the same.
    Through,
    /// It failed, and nothing was seen of it.
    Failed,
    /// It failed, though what it published is live.
    Unheard,
}

/// Added to a case's number when it is tried again.
const AGAIN: u64 = 1_000_000;

/// One publication with a fault at its `at`-th request; `None` if it has fewer.
async fn case(s3: &S3, scenario: &Scenario, number: u64, fault: Fault, at: u64) -> Option<Came> {
    let prefix = format!("{}-{number}", scenario.name);
    let place = s3.folder.as_ref().unwrap().join(&prefix);
    let memory = tempfile::tempdir().unwrap();
    let before = if let Some(before) = &scenario.before {
        let base = s3.folder.as_ref().unwrap().join(if scenario.apart { "base-apart" } else { "base" });
        let to = place.clone();
        tokio::task::spawn_blocking(move || forge::copy(&base, &to)).await.unwrap();
        before.version("timestamp")
    } else {
        0
    };
    let script = Arc::new(move |number: u64, _: &str| if number == at { fault } else { Fault::None });
    let proxy = Proxy::start(&s3.endpoint, TIMEOUT * 2, script).await;
    // What passes is tried again at once: only a busy machine takes longer.
    let passes = matches!(fault, Fault::Error500 | Fault::SlowDown | Fault::Reset | Fault::ResetAfter);
    let retry_for = if passes { RETRY * 10 } else { RETRY };
    let options = Options { retry_for, timeout: TIMEOUT, ..s3.options_at(&proxy.endpoint) };
    let check: fn(&Forge, &Path) -> u64 = if scenario.apart { check_apart } else { check };
    let outcome = publish(&scenario.after, options.in_workspace(memory.path()), &prefix, scenario.apart).await;
    let reached = proxy.count() > at;
    proxy.heal();
    let after = scenario.after.version("timestamp");
    let seen = check(&scenario.after, &place);
    assert!(seen == before || seen == after, "{fault:?} at {at}: {seen}");
    if !reached {
        // Where there was no fault the machine may have been too busy for the time-out: once more, then.
        let Err(error) = outcome else { return None };
        assert!(number < 5 * AGAIN, "without a fault: {error:?}");
        return Box::pin(case(s3, scenario, number + AGAIN, fault, at)).await;
    }
    let came = match &outcome {
        Ok(_) => {
            assert_eq!(seen, after, "{fault:?} at {at} of {}", scenario.name);
            Came::Through
        }
        Err(error) => {
            let said = format!("{error} {:?} {error:?}", error.remedy_text());
            assert!(!said.contains("tidegate-secret"), "{said}");
            match fault {
                Fault::Expired => assert!(said.contains("credentials have expired"), "{said}"),
                Fault::Skewed => assert!(said.contains("clock is wrong"), "{said}"),
                _ => {}
            }
            if seen == before { Came::Failed } else { Came::Unheard }
        }
    };
    // The next run completes, whatever was left behind.
    let options = s3.options_at(&proxy.endpoint);
    let again = publish(&scenario.after, options.in_workspace(memory.path()), &prefix, scenario.apart).await;
    again.unwrap_or_else(|error| panic!("after {fault:?} at {at} of {}: {error} {error:?}", scenario.name));
    assert_eq!(check(&scenario.after, &place), after);
    let uploads = memory.path().join(".tidegate/remote/uploads");
    assert_eq!(std::fs::read_dir(uploads).map_or(0, Iterator::count), 0, "an upload is remembered that has ended");
    tokio::task::spawn_blocking(move || std::fs::remove_dir_all(place)).await.unwrap().unwrap();
    Some(came)
}

#[tokio::test(flavor = "multi_thread")]
async fn at_every_request_and_of_every_kind() {
    let s3 = S3::here().await;
    let scenarios = scenarios();
    publish(scenarios[1].before.as_ref().unwrap(), s3.options(), "base", false).await.unwrap();
    publish(scenarios[4].before.as_ref().unwrap(), s3.options(), "base-apart", true).await.unwrap();
    let numbers = AtomicU64::new(0);
    let (s3, numbers) = (&s3, &numbers);
    let kinds = scenarios.iter().flat_map(|scenario| Fault::ALL.map(|fault| (scenario, fault)));
    // Each kind goes from request to request by itself, as only then it is known where a publication ends.
    let rows = futures::stream::iter(kinds).map(|(scenario, fault)| async move {
        let mut came: BTreeMap<Came, u64> = BTreeMap::new();
        let mut at = 0;
        while let Some(what) = case(s3, scenario, numbers.fetch_add(1, Ordering::SeqCst), fault, at).await {
            *came.entry(what).or_default() += 1;
            at += 1;
        }
        (scenario.name, fault, at, came)
    });
    let rows: Vec<_> = rows.buffered(AT_ONCE).collect().await;

    println!(
        "{:<9} {:<13} {:>6} {:>8} {:>7} {:>8}  readers  next run",
        "scenario", "fault", "faults", "through", "failed", "unheard"
    );
    let mut total = 0;
    for (scenario, fault, faults, came) in &rows {
        let count = |what| came.get(&what).copied().unwrap_or_default();
        let (through, failed, unheard) = (count(Came::Through), count(Came::Failed), count(Came::Unheard));
        println!(
            "{scenario:<9} {:<13} {faults:>6} {through:>8} {failed:>7} {unheard:>8}  all well  completed",
            format!("{fault:?}")
        );
        total += faults;
        match fault {
            // What passes is tried again, so nobody need notice.
            Fault::Error500 | Fault::SlowDown | Fault::Reset | Fault::ResetAfter => assert_eq!(through, *faults),
            // What lasts stops it, but for what comes after the last word.
            Fault::Die | Fault::Down | Fault::Expired | Fault::Skewed => assert_eq!(failed, *faults),
            Fault::DieAfter => assert_eq!((through, unheard), (0, 1)),
            _ => {}
        }
    }
    println!("{total} faults, none seen by a reader, all repaired by the next run");
    assert!(total >= 500, "only {total} faults");
}

/// The program itself, killed by the system while a request of its is open: at every request.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_program_killed_at_every_request() {
    let s3 = S3::here().await;
    let base = workspace().with_settings();
    let mut later = base.fork();
    later.release("1.1.0", 2, &[("rootfs.img", &vec![2; 9 << 20])]);
    later.assign("early", "1.1.0");
    killed_at_every_request(&s3, &base, &later, false).await;
    let base = guarded().with_settings();
    let mut later = base.fork();
    later.release("2.0.0", 2, &[("rootfs.img", &vec![2; 9 << 20])]);
    later.assign_privately("secret", "2.0.0");
    killed_at_every_request(&s3, &base, &later, true).await;
}

/// `apart`: with a private place beside the public one.
#[cfg(unix)]
async fn killed_at_every_request(s3: &S3, base: &Forge, later: &Forge, apart: bool) {
    let check: fn(&Forge, &Path) -> u64 = if apart { check_apart } else { check };
    let name = |what: &str| if apart { format!("{what}-apart") } else { what.to_owned() };
    let options = |memory: &Path| s3.options().in_workspace(memory);
    let memory = tempfile::tempdir().unwrap();
    let folder = s3.folder.clone().unwrap();
    publish(base, options(memory.path()), &name("begun"), apart).await.unwrap();
    let (before, after) = (base.version("timestamp"), later.version("timestamp"));
    let run = |endpoint: &str, prefix: &str| -> tokio::process::Child {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["-C", later.dir().to_str().unwrap(), "-q", "publish", "--single-writer"]);
        command.args(["--now", &tidegate_tuf::time::format(later.now())]);
        let place = |side: &str| format!("s3://{BUCKET}/{prefix}{side}");
        if apart {
            command.args([&place("/public"), "--private", &place("/private")]);
        } else {
            command.arg(place(""));
        }
        command.envs(s3.variables_at(endpoint)).stdin(std::process::Stdio::null()).kill_on_drop(true).spawn().unwrap()
    };
    let (mut at, mut killed) = (0, 0);
    loop {
        let prefix = name(&format!("kill-{at}"));
        forge::copy(&folder.join(name("begun")), &folder.join(&prefix));
        let reached = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&reached);
        let script = Arc::new(move |number: u64, _: &str| {
            if number < at {
                return Fault::None;
            }
            flag.store(true, Ordering::SeqCst);
            // Every other one after the store has done it.
            if at % 2 == 0 { Fault::Silence } else { Fault::SilenceAfter }
        });
        let proxy = Proxy::start(&s3.endpoint, Duration::from_secs(60), script).await;
        let mut child = run(&proxy.endpoint, &prefix);
        let ended = loop {
            if reached.load(Ordering::SeqCst) {
                // What is carried out is given the time for it.
                tokio::time::sleep(Duration::from_millis(30)).await;
                child.start_kill().unwrap();
                child.wait().await.unwrap();
                break false;
            }
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "it ended by itself at {at}: {status}");
                break true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        drop(proxy);
        let seen = check(later, &folder.join(&prefix));
        assert!(seen == before || seen == after, "killed at {at}: {seen}");
        if ended {
            break;
        }
        killed += 1;
        assert!(run(&s3.endpoint, &prefix).wait().await.unwrap().success(), "the run after the kill at {at}");
        assert_eq!(check(later, &folder.join(&prefix)), after);
        std::fs::remove_dir_all(folder.join(&prefix)).unwrap();
        at += 1;
    }
    println!("killed at each of {killed} requests: readers all well, each next run completed");
    assert!(killed >= 15, "only {killed}");
}

/// A folder on a disk that is full at any moment, which takes root to mount.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_at_any_moment() {
    let mount = tempfile::tempdir().unwrap();
    let run = |program: &str, args: &[&str]| {
        std::process::Command::new(program).args(args).status().is_ok_and(|status| status.success())
    };
    let path: PathBuf = mount.path().to_owned();
    if !run("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs", path.to_str().unwrap()]) {
        crate::support::skip("cannot mount a small file system: not root, or not allowed to");
        return;
    }
    let base = workspace();
    let mut later = base.fork();
    later.release("1.1.0", 2, &[("rootfs.img", &vec![2; 150_000]), ("boot.img", b"boot two")]);
    later.assign("early", "1.1.0");
    let publish = async |forge: &Forge, place: &Path| {
        let (source, remote) = (Source::new(forge.dir()), Remote::open(place.to_str().unwrap()).unwrap());
        let plan = publish::plan(&source, &remote, forge.now()).await?;
        publish::execute(&plan, &source, &remote, &|_| {}).await
    };
    let (before, after) = (base.version("timestamp"), later.version("timestamp"));
    let work = async {
        let mut faults = 0;
        for room in 0..200_u64 {
            let place = path.join(format!("p{room}"));
            publish(&base, &place).await.unwrap();
            // Fill it up but for so many pages.
            let filler = path.join("filler");
            let mut size = 4 << 20;
            let mut file = std::fs::File::create(&filler).unwrap();
            while size >= 4096 {
                use std::io::Write as _;
                if file.write_all(&vec![0; size]).is_err() {
                    size /= 2;
                }
            }
            let full = file.metadata().unwrap().len();
            file.set_len(full.saturating_sub(room * 4096)).unwrap();
            let outcome = publish(&later, &place).await;
            let seen = check(&later, &place);
            drop(file);
            std::fs::remove_file(&filler).unwrap();
            assert!(seen == before || seen == after, "{seen}");
            let ended = outcome.is_ok();
            if let Err(error) = outcome {
                assert!(error.remedy_text().unwrap().contains("free some space"), "{error:?}");
                faults += 1;
                publish(&later, &place).await.unwrap();
            }
            assert_eq!(check(&later, &place), after);
            std::fs::remove_dir_all(&place).unwrap();
            if ended {
                break;
            }
        }
        faults
    };
    let faults = work.await;
    assert!(run("umount", &["--lazy", path.to_str().unwrap()]));
    println!("full with 0 to {faults} pages left: readers all well, each next run completed");
    assert!(faults >= 8, "only {faults}");
}
