//! The status page and `status.json`.

use std::path::Path;
use std::process::Command;

use schemars::schema_for;
use serde_json::Value;

use super::busy;
use super::story::{NOW, Story, text, tidegate};
use crate::support::tools::missing_unless;

const SCHEMA: &str = "docs/schemas/status.schema.json";

fn make(story: &Story, args: &[&str]) -> (String, Value) {
    let out = story.path("site");
    let out = story.run(&[&["site", "--out", text(&out)], args].concat());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let read = |name: &str| std::fs::read_to_string(story.path("site").join(name)).unwrap();
    (read("index.html"), serde_json::from_str(&read("status.json")).unwrap())
}

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(SCHEMA);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_schemas_are_those_of_the_types() {
    let generated = [
        ("status", schema_for!(tidegate::report::view::State)),
        ("diff", schema_for!(tidegate::report::view::Changes)),
        ("doctor", schema_for!(tidegate::report::doctor::Diagnosis)),
    ];
    for (name, generated) in generated {
        let mut generated = serde_json::to_value(generated).unwrap();
        let name = format!("{name}.schema.json");
        generated["$id"] = name.as_str().into();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas").join(name);
        if std::env::var_os("TIDEGATE_WRITE_SCHEMAS").is_some() {
            std::fs::write(&path, serde_json::to_string_pretty(&generated).unwrap() + "\n").unwrap();
        }
        let published: Value = serde_json::from_slice(&std::fs::read(&path).unwrap_or_default()).unwrap_or_default();
        assert!(
            published == generated,
            "{}: write it anew: TIDEGATE_WRITE_SCHEMAS=1 cargo test the_schemas_are",
            path.display()
        );
    }
}

#[test]
fn a_fleet_in_the_middle_of_things_is_told_whole() {
    let story = Story::new();
    let (page, status) = make(&story, &[]);
    let errors: Vec<String> =
        jsonschema::validator_for(&schema()).unwrap().iter_errors(&status).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert_eq!((&status["sound"], &status["at"]), (&true.into(), &NOW.into()));

    let product = &status["channels"][0]["products"][0];
    let curve = &product["curves"][0];
    // 5% canary, and 20% early at half of its ramp.
    assert_eq!(
        (&curve["release"], &curve["now_ppm"], &curve["final_ppm"]),
        (&"1.1.0".into(), &150_000.into(), &250_000.into())
    );
    let lives: Vec<_> =
        status["workspace"]["releases"].as_array().unwrap().iter().map(|r| r["state"].as_str().unwrap()).collect();
    assert_eq!(lives, ["withdrawn", "limited", "draft"]);
    let need = &status["workspace"]["proposals"][0]["needs"][0];
    assert_eq!((&need["signed"][0], &need["missing"][0]), (&"release-2".into(), &"release-1".into()));
    assert!(status["trust"]["keys"].as_array().unwrap().iter().all(|key| key["example"] == true));
    assert_eq!(status["workspace"]["ledger"]["entries"][0]["event"], "sign");

    // One file, which needs nothing and runs nothing.
    assert_eq!(page.matches("<script").count() + page.matches(" style=").count() + page.matches("<img").count(), 0);
    assert!(!page.contains("src=") && !page.contains("@import") && !page.contains("url("));
    assert!(page.contains("default-src 'none'; style-src 'sha256-"));
    // What a repository says is text.
    assert!(page.contains("The first &lt;b&gt;release&lt;/b&gt; &amp; all."), "a note is escaped");
}

#[test]
fn the_signed_part_is_the_same_from_the_root_alone() {
    let story = Story::new();
    let (public, root) = (story.public(), story.root());
    let (page, mut outside) = make(&story, &[text(&public), "--root", text(&root)]);
    assert!(!page.contains("somebody"), "the ledger is not for everyone");
    let (_, mut inside) = make(&story, &["--public"]);
    assert!(outside.get("workspace").is_none() && inside.get("workspace").is_none());
    // What is at a place is live; a workspace is compared with its places, of which the public hears nothing.
    let signed = outside["shows"]["signed"].clone();
    let shown = |source: &str| {
        let timestamp = &outside["trust"]["roles"][1]["version"];
        serde_json::json!({"source": source, "live": true, "timestamp": timestamp, "signed": signed, "places": []})
    };
    assert_eq!((&outside["shows"], &inside["shows"]), (&shown("place"), &shown("workspace")));
    inside["shows"] = outside["shows"].clone();
    outside["place"] = "".into();
    inside["place"] = "".into();
    assert_eq!(outside, inside);

    // The same over the network, from a server that knows nothing.
    let server = super::Server::over(&public);
    let (_, mut over_the_network) = make(&story, &[&server.url, "--root", text(&root)]);
    over_the_network["place"] = "".into();
    assert_eq!(over_the_network, outside);

    // Without a root (outside a workspace, which has one), or with another one, nothing is believed.
    let out = tidegate(&["site", text(&public), "--out", text(&story.path("none"))]);
    assert_eq!(out.status.code(), Some(2), "{}", String::from_utf8_lossy(&out.stderr));
    let elsewhere = story.path("other.json");
    std::fs::write(&elsewhere, std::fs::read_to_string(root).unwrap().replace("\"sig\":\"", "\"sig\":\"00")).unwrap();
    let out = story.run(&["site", text(&public), "--root", text(&elsewhere), "--out", text(&story.path("none"))]);
    assert_eq!(out.status.code(), Some(1));
    assert!(!story.path("none").exists());
}

#[test]
fn the_page_says_whether_it_is_live() {
    let story = Story::new();
    let toml = story.workspace().join("tidegate.toml");
    let before = std::fs::read_to_string(&toml).unwrap();
    let place = |place: &str| {
        let text = before.replace("place = \"../public\"", &format!("place = \"{place}\""));
        std::fs::write(&toml, text).unwrap();
    };
    let found = || {
        let (page, status) = make(&story, &[]);
        let banner = page.split_once("class=\"shown\"").unwrap().1.split_once("</div>").unwrap().0.to_owned();
        (banner, status["shows"].clone())
    };
    place("../public");
    let (banner, shows) = found();
    assert_eq!((&shows["source"], &shows["live"]), (&"workspace".into(), &true.into()));
    assert!(banner.contains("Live") && banner.contains("public"), "{banner}");

    let out = story.run(&["rollout", "pause", "1.1.0"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let (banner, shows) = found();
    assert_eq!(
        (&shows["live"], &shows["places"][0]["waiting"][0]),
        (&false.into(), &"stable.validation".into()),
        "{shows}"
    );
    assert!(banner.contains("Not live") && banner.contains("not published yet: stable.validation"), "{banner}");
    // What is there is live.
    let (page, status) = make(&story, &[text(&story.public()), "--root", text(&story.root())]);
    assert_eq!((&status["shows"]["source"], &status["shows"]["live"]), (&"place".into(), &true.into()));
    assert!(page.contains("This is what devices see"));
    let snapshot = status["trust"]["roles"][2]["version"].as_u64().unwrap();
    let one = format!("{}@{snapshot}", text(&story.public()));
    let (page, status) = make(&story, &[&one, "--root", text(&story.root())]);
    assert_eq!((&status["shows"]["source"], status["shows"].get("live")), (&"snapshot".into(), None));
    assert!(page.contains("One snapshot"));

    // Nobody can tell of a place that cannot be reached.
    place("http://127.0.0.1:9/fleet");
    let (banner, shows) = found();
    assert_eq!((shows.get("live"), shows["places"][0]["live"].is_u64()), (None, true), "{shows}");
    assert!(banner.contains("Not known to be live") && banner.contains("cannot be reached"), "{banner}");
}

#[test]
fn what_has_expired_or_was_tampered_with_is_shown_as_such() {
    let story = Story::new();
    let out = story.path("site");
    let (public, root) = (story.public(), story.root());
    let late = ["--now", "2026-03-20T00:00:00Z", "site", text(&public), "--root", text(&root), "--out", text(&out)];
    assert!(super::story::tidegate(&late).status.success());
    let status: Value = serde_json::from_slice(&std::fs::read(out.join("status.json")).unwrap()).unwrap();
    assert_eq!((&status["due"][0]["urgency"], &status["sound"]), (&"expired".into(), &true.into()));
    assert_eq!(status["channels"][0]["products"][0]["cohorts"][1]["offers"][0]["in_force"], false);

    let canary = std::fs::read_dir(public.join("metadata")).unwrap().map(|entry| entry.unwrap().path());
    let mut canary: Vec<_> = canary.filter(|path| text(path).ends_with(".stable.canary.json")).collect();
    canary.sort();
    for path in canary {
        let bytes = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, bytes.replace("\"paused\":false", "\"paused\":true")).unwrap();
    }
    let (page, status) = make(&story, &[text(&public), "--root", text(&root)]);
    assert_eq!(status["faults"][0]["subject"], "stable.canary");
    assert!(page.contains("its role does not verify"));
}

/// What headless Chromium finds, in light and dark, wide and on a phone; `None` if it is not here. `TIDEGATE_NODE_MODULES` names where
/// playwright-core and axe-core are, `TIDEGATE_SCREENSHOTS` a folder to keep pictures in.
fn views(page: &Path, name: &str) -> Option<Vec<Value>> {
    let modules = std::env::var_os("TIDEGATE_NODE_MODULES").unwrap_or_else(|| "node_modules".into());
    let runs = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
    let chromium = std::env::var("TIDEGATE_CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
    let found = runs("node") && runs(&chromium) && Path::new(&modules).join("axe-core").is_dir();
    if !missing_unless(found, "node with playwright-core and axe-core (TIDEGATE_NODE_MODULES), or chromium") {
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/site/check.cjs");
    let mut command = Command::new("node");
    command.arg(script).arg(page).env("NODE_PATH", &modules);
    command.args(std::env::var_os("TIDEGATE_SCREENSHOTS").map(|folder| Path::new(&folder).join(name)));
    let out = command.env("TIDEGATE_CHROMIUM", &chromium).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let views: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(views.len(), 4);
    for view in &views {
        let what = format!("{} at {}", view["colorScheme"], view["width"]);
        for (none, why) in [("requests", "it asks for something else"), ("problems", "the console complains")] {
            assert_eq!(view[none], serde_json::json!([]), "{what}: {why}");
        }
        assert_eq!(view["found"], serde_json::json!([]), "{what}: axe-core objects");
        assert!(view["overflow"].as_f64().unwrap() <= 0.0, "{what}: it is wider than the screen");
        assert_eq!(
            (&view["first"], &view["opened"]),
            (&"Skip to the content".into(), &true.into()),
            "{what}: by keyboard"
        );
        let screens = view["screens"].as_f64().unwrap();
        assert!(screens <= 5.0, "{what}: it is {screens} screens long");
    }
    assert_ne!(views[0]["background"], views[2]["background"], "dark is another colour than light");
    Some(views)
}

fn shows(view: &Value, facts: &[&str]) {
    let shown = view["text"].as_str().unwrap();
    for fact in facts {
        assert!(shown.contains(fact), "{} at {}: {fact} is missing in\n{shown}", view["colorScheme"], view["width"]);
    }
}

#[test]
fn a_browser_shows_it_to_everyone() {
    let story = Story::new();
    make(&story, &[]);
    for view in views(&story.path("site/index.html"), "story").unwrap_or_default() {
        shows(
            &view,
            &[
                "Example fleet",
                "1.1.0 at 15%",
                "1 proposal waits",
                "release-1",
                "stable.canary",
                "withdrawn",
                "git+https://example.com/os@3f2c",
                "tidegate refresh",
                "The first <b>release</b> & all.",
                "V-ART-01",
                "everyone: it is an example key",
                "the chain is intact",
            ],
        );
        let chart = &view["charts"][0];
        assert_eq!(chart["name"], "1.1.0 is open to 15% of the fleet, to be 25% in 12 h.");
        assert!(chart["width"].as_f64().unwrap() > 200.0, "{chart}");
    }
}

/// Three channels of six cohorts, five rollouts, receipts.
#[test]
fn a_busy_fleet_takes_five_screens_of_a_phone() {
    let fleet = busy::busy();
    let page = busy::site(&fleet, fleet.now).join("index.html");
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(
        !text.contains("device-0") && !text.contains("space on"),
        "nothing in a device's words, and no device's name"
    );
    for view in views(&page, "busy").unwrap_or_default() {
        shows(
            &view,
            &[
                "Not live",
                "not published yet",
                "os on nightly",
                "6 of 48 devices failing",
                "of 240 devices",
                "canary, board-a",
            ],
        );
        let told = "1.1.0 is open to 22.5% of the fleet, to be 30% in 12 h. Of 240 devices 47 installed it, 41 confirmed it, 1 failed, 5 rolled back.";
        let names: Vec<&str> =
            view["charts"].as_array().unwrap().iter().filter_map(|chart| chart["name"].as_str()).collect();
        assert!(names.contains(&told), "{names:#?}");
    }
}

#[test]
fn it_is_published_beside_the_repository_when_asked() {
    let story = Story::new();
    let public = story.public();
    let publish = |flag: &str| {
        let out = story.run(&["publish", text(&public), flag]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let status = std::fs::read(public.join("status.json")).unwrap();
        (std::fs::read_to_string(public.join("index.html")).unwrap(), serde_json::from_slice::<Value>(&status).unwrap())
    };
    let (page, status) = publish("--site");
    assert!(page.contains("1.1.0 at 15%") && !page.contains("somebody"));
    assert!(status.get("workspace").is_none());
    let (page, status) = publish("--site=full");
    assert!(page.contains("somebody") && status["workspace"]["name"] == "Example fleet");
    let root = story.root();
    let out = story.run(&["verify", text(&public), "--root", text(&root)]);
    assert!(out.status.success(), "it is no part of the repository: {}", String::from_utf8_lossy(&out.stdout));
}

/// The schemas of signed files accept everything published, and the test vectors.
#[test]
fn schemas_match_published_files_and_vectors() {
    let read = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let base = Path::new(env!("CARGO_MANIFEST_DIR"));
    let validator = |name: &str| jsonschema::validator_for(&read(&base.join("docs/schemas").join(name))).unwrap();
    let holds = |validator: &jsonschema::Validator, value: &Value, what: &str| {
        let errors: Vec<String> = validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{what}: {errors:#?}");
    };
    let (manifest, cohorts, offers) =
        (validator("manifest.schema.json"), validator("cohorts.schema.json"), validator("offers.schema.json"));
    for vector in read(&base.join("model/tests/vectors/manifests.json")).as_array().unwrap() {
        holds(&manifest, &vector["manifest"], &vector["name"].to_string());
    }
    // A schema need not know all that is refused; these, however, are the ways to leave a cohort unprotected by mistake.
    for vector in read(&base.join("model/tests/vectors/protected.json")).as_array().unwrap() {
        match vector.get("refused") {
            Some(_) => assert!(!cohorts.is_valid(&vector["map"]), "{}", vector["name"]),
            None => holds(&cohorts, &vector["map"], &vector["name"].to_string()),
        }
    }
    let listing = validator("listing.schema.json");
    for vector in read(&base.join("model/tests/vectors/listings.json")).as_array().unwrap() {
        if let Some(text) = vector.get("canonical") {
            holds(&listing, &serde_json::from_str(text.as_str().unwrap()).unwrap(), &vector["name"].to_string());
        }
    }
    assert!(!listing.is_valid(&serde_json::json!({"schema": 1, "cohort": "stable", "objects": []})));
    let story = Story::new();
    let (mut manifests, mut maps, mut lists) = (0, 0, 0);
    let mut folders = vec![story.public()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = text(&path).to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".manifest.json") {
                manifests += 1;
                holds(&manifest, &read(&path), &name);
            } else if name.ends_with(".cohorts.json") {
                maps += 1;
                holds(&cohorts, &read(&path), &name);
            } else if name.contains("/metadata/") && name.contains(".stable.") && !name.ends_with(".stable.json") {
                for file in read(&path)["signed"]["targets"].as_object().unwrap().values() {
                    lists += 1;
                    holds(&offers, &file["custom"]["tidegate"], &name);
                }
            }
        }
    }
    assert!(manifests >= 2 && maps >= 1 && lists >= 2, "{manifests} {maps} {lists}");
    // And they can say no.
    assert!(
        !manifest.is_valid(&serde_json::json!({"schema": 2})) && !cohorts.is_valid(&serde_json::json!({"schema": 1}))
    );
}
