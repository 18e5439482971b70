//! The files for CI in docs/operations.md, run step by step as a service does: each in a fresh clone, with the online keys alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{bash, blocks, programs};
use crate::support::tools::have;

/// The steps of a file for CI: of `steps:` those with `run:`, or the lines of `script:`.
fn steps(file: &str) -> Vec<String> {
    let of = |mark: &str| -> Vec<String> {
        file.lines().filter_map(|line| line.trim_start().strip_prefix(mark)).map(str::to_owned).collect()
    };
    match file.split_once("script:\n") {
        Some((_, script)) => {
            script.lines().filter_map(|line| line.trim_start().strip_prefix("- ")).map(str::to_owned).collect()
        }
        None => of("- run: "),
    }
}

/// A fleet with a rollout, published, in git; beside it `origin.git`.
const FLEET: &str = "tidegate -q init fleet --generate-keys >/dev/null; cd fleet; head -c 5000 /dev/urandom > ../image
    sed -i 's|^\\[publish\\]|[publish]\\nplace = \"../public\"|' tidegate.toml
    tidegate -q release new 1.0.0; tidegate -q release add 1.0.0 ../image --hardware board-a; tidegate -q release manifest 1.0.0
    tidegate -q release sign 1.0.0 --key release-1 --key release-2; tidegate -q release validate 1.0.0
    tidegate -q release register 1.0.0; tidegate -q release validate 1.0.0; tidegate -q publish
    git init -q .; git add -A; git -c user.name=a -c user.email=a@example.org commit -qm x; git clone -q --bare . ../origin.git";

struct Service {
    folder: tempfile::TempDir,
}

impl Service {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, dir: &Path, script: &str, variables: &[(String, String)]) -> String {
        let out = Command::new("bash")
            .args(["-eo", "pipefail", "-c", script])
            .current_dir(dir)
            .env_clear()
            .env("PATH", format!("{}:{}", programs().display(), std::env::var("PATH").unwrap()))
            .env("HOME", self.folder.path())
            .envs(variables.iter().cloned())
            .output()
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{script}: {said}");
        said
    }

    /// Runs a job in a fresh clone.
    fn job(&self, clone: &str, steps: &[String], actor: (&str, &str)) -> PathBuf {
        self.run(self.folder.path(), &format!("git clone -q origin.git {clone}"), &[]);
        let dir = self.path(clone);
        let key = |name: &str| {
            let pem = std::fs::read_to_string(self.path(&format!("fleet/keys/{name}.pem"))).unwrap();
            (format!("{}_KEY", name.to_uppercase()), pem)
        };
        let mut variables: Vec<_> = ["rollout", "snapshot", "timestamp"].map(key).to_vec();
        variables.push((actor.0.to_owned(), actor.1.to_owned()));
        for step in steps {
            self.run(&dir, step, &variables);
        }
        dir
    }

    fn live(&self) -> u64 {
        let text = std::fs::read(self.path("public/metadata/timestamp.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["signed"]["version"].as_u64().unwrap()
    }
}

#[test]
fn the_files_for_ci_work_from_a_clone_as_written() {
    if !have("git", "--version") {
        return;
    }
    let files: Vec<String> =
        blocks("docs/operations.md").into_iter().filter(|b| b.info == "yaml").map(|b| b.text).collect();
    let of = |name: &str| steps(files.iter().find(|file| file.contains(name)).unwrap());
    let (github, gitlab, stop) = (of("publish.yml"), of(".gitlab-ci.yml"), of("stop.yml"));
    assert_eq!((files.len(), github.len(), &gitlab, stop.len()), (3, 4, &github, 4), "{files:?}");

    let service = Service { folder: tempfile::tempdir().unwrap() };
    if bash(FLEET, service.folder.path()).is_none() {
        return;
    }
    let before = service.live();
    service.job("first", &github, ("GITHUB_ACTOR", "ada"));
    service.job("second", &gitlab, ("GITLAB_USER_LOGIN", "ben"));
    assert_eq!(service.live(), before + 2, "renewed twice");

    // A step that somebody pushes is published by the next job.
    let dir = service.path("fleet");
    service.run(
        &dir,
        "tidegate -q rollout start 1.0.0 && git remote add origin ../origin.git && git add -A && \
        git -c user.name=a -c user.email=a@b commit -qm Start && git push -q origin HEAD",
        &[("TIDEGATE_ACTOR".into(), "eve".into())],
    );
    let third = service.job("third", &github, ("GITHUB_ACTOR", "ada"));
    let status = |dir: &Path| -> Value {
        serde_json::from_str(&service.run(dir, "tidegate rollout status 1.0.0 --json", &[])).unwrap()
    };
    assert_eq!(status(&third)["publication"][0]["published"], true);
    // The one that pushed it learns that it is live.
    service.run(&dir, "tidegate -q pull", &[]);
    let published: Value = serde_json::from_slice(&std::fs::read(dir.join("published.json")).unwrap()).unwrap();
    assert_eq!(published["steps"].as_array().unwrap().len(), 2, "{published:#}");

    // At night, from another clone, on top of whatever was renewed.
    service.job("fourth", &stop, ("GITHUB_ACTOR", "ada"));
    service.run(service.folder.path(), "git clone -q origin.git fifth", &[]);
    let fifth = status(&service.path("fifth"));
    assert_eq!((&fifth["paused"], &fifth["publication"][0]["published"]), (&true.into(), &true.into()), "{fifth:#}");
    let log = service.run(&service.path("fifth"), "tidegate log --verify && tidegate log", &[]);
    assert!(log.contains("the chain is intact") && log.contains("by eve") && log.contains("by ada"), "{log}");
    assert!(!log.contains("unknown"), "{log}");
}
