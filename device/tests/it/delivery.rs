//! An update in pieces by the program: what it shows, and the memory that it takes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::cli::Bench;
use crate::delivery_files::{made, noise, publish};
use crate::fleet::{approve_image, assign, manifest_of};
use crate::tools;

/// A board with two slots, the old image in slot a, and a release with the new one that has a delivery.
fn board(old: &[u8], new: &[u8], with_patch: bool) -> Bench {
    let bench = Bench::new(|sim| {
        let listed = publish(sim, &made(with_patch.then_some(old), new), old);
        let mut manifest = manifest_of("1.2.0", 12, new);
        manifest["artifacts"][0]["delivery"] = listed;
        let bytes = approve_image(sim, &manifest, new);
        assign(sim, "all", &bytes, &json!({}));
        sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
    });
    fs::write(bench.path("slot.a"), old).unwrap();
    fs::write(bench.path("running"), "a").unwrap();
    let hook = bench.path("hook");
    let text = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\ncase $1 in\n  running) cat running ;;\n  *) echo \"$@\" >> calls ;;\nesac\n";
    fs::write(&hook, text).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    bench.set(&json!({
        "slot": Value::Null,
        "installer": {"kind": "slots", "images": [{"a": "slot.a", "b": "slot.b"}], "boot": ["./hook"]},
    }));
    bench
}

#[test]
fn the_program_shows_the_ways_and_the_lost_fallback() {
    let old = noise(1, 400_000);
    let mut new = old.clone();
    new[..4].copy_from_slice(b"new!");
    let bench = board(&old, &new, true);
    let (code, out, _) = bench.run(&["check"]);
    let ways = out.lines().nth(1).unwrap();
    assert!(code == 0 && ways.starts_with("fetch image.bin: patch from 1.0.0, "), "{out}");
    assert!(ways.contains(" bytes; else chunks, ") && ways.ends_with(" bytes; else whole, 400000 bytes"), "{out}");
    let (_, explained, _) = bench.run(&["explain"]);
    assert!(explained.contains(ways), "{explained}");
    let artifact = &bench.json(&["check"])["update"]["artifacts"][0];
    assert_eq!((&artifact["ways"][0]["way"], &artifact["ways"][0]["from"]), (&json!("patch"), &json!("1.0.0")));
    assert_eq!(artifact["ways"][2], json!({"way": "whole", "bytes": 400_000}));
    let (code, out, err) = bench.run(&["download"]);
    assert_eq!((code, out.trim()), (0, bench.path("slot.b").to_str().unwrap()), "{err}");
    assert_eq!(fs::read_to_string(bench.path("calls")).unwrap(), "keep a\ninvalid b\n");
    let (_, out, _) = bench.run(&["status"]);
    assert!(out.contains("\nfallback     none: the other slot has 1.2.0 (sequence 12)\n"), "{out}");
    let (code, _, err) = bench.run(&["install"]);
    assert_eq!(code, 0, "{err}");
    assert!(fs::read_to_string(bench.path("calls")).unwrap().ends_with("try b\n"));
    fs::write(bench.path("running"), "b").unwrap();
    bench.run(&["confirm"]);
    assert_eq!(bench.json(&["status"]).get("overwritten"), None);
    assert!(fs::read(bench.path("slot.b")).unwrap() == new);
}

/// TIDEGATE_MIB sets the size of the image: 1024 takes minutes.
#[test]
fn an_image_in_pieces_takes_little_memory_and_state() {
    if !tools::have(&["time"]) {
        return;
    }
    let mib = std::env::var("TIDEGATE_MIB").map_or(16, |text| text.parse().unwrap());
    // One in eight pieces is not zeros.
    let old: Vec<u8> = (0..mib).flat_map(|n| if n % 8 == 0 { noise(n, 1 << 20) } else { vec![0; 1 << 20] }).collect();
    let mut new = old.clone();
    new.iter_mut().step_by(1 << 20).for_each(|byte| *byte ^= 1);
    for with_patch in [true, false] {
        let bench = board(&old, &new, with_patch);
        let install = bench.command(&["install"]);
        let output = Command::new("time")
            .args(["-f", "%M", "-o"])
            .arg(bench.path("peak"))
            .arg(install.get_program())
            .args(install.get_args())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(fs::read(bench.path("slot.b")).unwrap() == new);
        let peak: u64 = fs::read_to_string(bench.path("peak")).unwrap().trim().parse().unwrap();
        println!("patch: {with_patch}, {peak} KiB");
        assert!(peak * 1024 <= 12_000_000, "{peak} KiB");
    }
}
