//! What a check costs a device, in requests and bytes, against a real server: with 10 cohorts and with 1,000.

use tidegate_client::device::{Check, Device};
use tidegate_client::fetch::http::HttpFetch;
use tidegate_client::updater::Repository;
use tidegate_model::decision::Outcome;

use crate::support::{Forge, Serving, publish};

const DEVICE: &str = "device-0001";

/// A check, in a process of its own as far as the server can tell: but for the stored state everything is new.
async fn check(forge: &Forge, url: &str, state: &std::path::Path) -> Check {
    let builder = Device::builder()
        .root(forge.root())
        .repository(Repository::at(url).unwrap())
        .state_dir(state)
        .id(DEVICE.parse().unwrap())
        .channel("stable".parse().unwrap())
        .product("os".parse().unwrap())
        .hardware("board-a".parse().unwrap())
        .factory("0.9.0".parse().unwrap(), 0)
        .fetch(HttpFetch::new());
    tokio::task::spawn_blocking(move || builder.open().unwrap().check().unwrap()).await.unwrap()
}

/// The requests of one check without hashes, and the bytes of bodies and connections they took.
struct Cost {
    requests: Vec<String>,
    bytes: u64,
    connections: u64,
}

impl Cost {
    async fn of(server: &Serving, check: impl Future<Output = Check>) -> (Check, Self) {
        let before = server.meter().read();
        server.take_log();
        let check = check.await;
        let after = server.meter().read();
        let requests = server.take_log().into_iter().map(|(path, status)| format!("{status} {}", without_hash(&path)));
        let (bytes, connections) = (after.bytes - before.bytes, after.connections - before.connections);
        (check, Self { requests: requests.collect(), bytes, connections })
    }

    fn print(&self, cohorts: usize, what: &str) {
        println!("{cohorts:>5} cohorts  {what:<24} {:>2} requests  {:>7} bytes", self.requests.len(), self.bytes);
    }
}

/// `/targets/stable/HASH.cohorts.json` as `/targets/stable/cohorts.json`.
fn without_hash(path: &str) -> String {
    let is_hash = |part: &str| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    match path.rsplit_once('/').and_then(|(dir, file)| Some((dir, file.split_once('.')?))) {
        Some((dir, (hash, file))) if is_hash(hash) => format!("{dir}/{file}"),
        _ => path.to_owned(),
    }
}

async fn costs(cohorts: usize) -> Vec<u64> {
    let mut forge = Forge::with_cohorts(cohorts);
    let own = forge.cohort_of(DEVICE);
    let other = if own == "c0000" { "c0001" } else { "c0000" };
    forge.release("1.0.0", 1, &[("os.img", b"one")]);
    forge.release("1.1.0", 2, &[("os.img", b"two")]);
    forge.assign(&own, "1.0.0");
    let (place, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    publish(&forge, place.path()).await;
    let server = Serving::start(place.path()).await;
    let url = server.url();
    let mut bytes = Vec::new();
    let mut tell = |what: &str, cost: &Cost| {
        cost.print(cohorts, what);
        assert_eq!(cost.connections, 1, "{what}: one connection is kept alive");
        bytes.push(cost.bytes);
    };

    let (first, cost) = Cost::of(&server, check(&forge, &url, state.path())).await;
    tell("first check", &cost);
    assert!(matches!(first.outcome(), Outcome::Install { .. }), "{:?}", first.outcome());
    let (stable, role) = (forge.version("stable"), forge.version(&format!("stable.{own}")));
    let mut expected = vec![
        "404 /metadata/2.root.json".to_owned(),
        "200 /metadata/timestamp.json".to_owned(),
        format!("200 /metadata/{}.snapshot.json", forge.version("snapshot")),
        "200 /metadata/1.targets.json".to_owned(),
        format!("200 /metadata/{stable}.stable.json"),
        "200 /targets/stable/cohorts.json".to_owned(),
        format!("200 /metadata/{role}.stable.{own}.json"),
        "200 /targets/stable/releases/os/1.0.0/manifest.json".to_owned(),
    ];
    assert_eq!(cost.requests, expected);

    let (again, cost) = Cost::of(&server, check(&forge, &url, state.path())).await;
    tell("unchanged", &cost);
    expected = vec!["404 /metadata/2.root.json".to_owned(), "304 /metadata/timestamp.json".to_owned()];
    assert_eq!(cost.requests, expected);
    // The instant of the decision is another.
    assert_eq!(
        (&again.explanation.outcome, &again.explanation.offers),
        (&first.explanation.outcome, &first.explanation.offers),
        "decided as before, without asking again"
    );

    forge.assign(other, "1.1.0");
    publish(&forge, place.path()).await;
    let (_, cost) = Cost::of(&server, check(&forge, &url, state.path())).await;
    tell("another cohort changed", &cost);
    expected = vec![
        "404 /metadata/2.root.json".to_owned(),
        "200 /metadata/timestamp.json".to_owned(),
        format!("200 /metadata/{}.snapshot.json", forge.version("snapshot")),
    ];
    assert_eq!(cost.requests, expected);

    forge.assign(&own, "1.1.0");
    publish(&forge, place.path()).await;
    let (own_check, cost) = Cost::of(&server, check(&forge, &url, state.path())).await;
    tell("own cohort advanced", &cost);
    assert!(own_check.update.is_some_and(|update| update.release.version.to_string() == "1.1.0"));
    expected = vec![
        "404 /metadata/2.root.json".to_owned(),
        "200 /metadata/timestamp.json".to_owned(),
        format!("200 /metadata/{}.snapshot.json", forge.version("snapshot")),
        format!("200 /metadata/{}.stable.{own}.json", forge.version(&format!("stable.{own}"))),
        "200 /targets/stable/releases/os/1.1.0/manifest.json".to_owned(),
    ];
    assert_eq!(cost.requests, expected);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_costs_the_same_requests_however_many_cohorts_there_are() {
    let few = costs(10).await;
    let many = costs(1000).await;
    // Unchanged: nothing but the text of a 404.
    assert_eq!((few[1], many[1]), (13, 13));
    // The rest grows by what lists all cohorts (snapshot, channel role, cohort map), which travel compressed.
    assert!(few[0] < 8_000, "{few:?}");
    assert!(many[0] < 64_000, "{many:?}");
    assert!(many[2] < 16_000 && many[3] < 20_000, "{many:?}");
}
