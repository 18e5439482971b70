//! Deliveries on a board: an update comes as a patch or as chunks, straight into the slot that does not run.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastcdc::v2020::FastCDC;
use serde_json::{Value, json};
use tidegate_client::Error;
use tidegate_client::agent::Health;
use tidegate_client::clock::{StubClock, SystemClock};
use tidegate_client::command::Command;
use tidegate_client::delivery::WayKind;
use tidegate_client::disk::{Disk, Faults};
use tidegate_client::fetch::http::{HttpFetch, HttpOptions, Proxy};
use tidegate_client::fetch::{Fetch, FetchError, Reply, Request};
use tidegate_client::install::{CommandInstaller, DirectoryInstaller, FileSlot, SlotImage, SlotInstaller, StubBoot};
use tidegate_client::policy::{Policy, Step};
use tidegate_client::retry::Retry;
use tidegate_client::state::State;
use tidegate_client::watch::unwatched;
use tidegate_model::delivery::Kind;
use tidegate_model::delivery::index::{AVERAGE_CHUNK, MAX_CHUNK, MIN_CHUNK};
use tidegate_model::delivery::patch::PIECE;
use tidegate_model::digest::Digest;
use tidegate_model::facts::Facts;
use tidegate_model::layout::{delivery_path, patches_path};

use crate::board::{ALL, Board};
use crate::delivery_files::{Made, made, noise, patch, patch_entry, publish};
use crate::fleet::{approve_image, assign, channel, device, manifest_of, name};
use crate::mirror::{Mirror, Trick, scratch};
use crate::simulator::{Simulator, epoch};

/// Assigns a release with this image and delivery to every device.
fn release(sim: &mut Simulator, version: &str, sequence: u64, image: &[u8], delivery: &Value) -> Vec<u8> {
    let mut manifest = manifest_of(version, sequence, image);
    if !delivery.is_null() {
        manifest["artifacts"][0]["delivery"] = delivery.clone();
    }
    let bytes = approve_image(sim, &manifest, image);
    assign(sim, "all", &bytes, &json!({}));
    sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
    bytes
}

/// The old image and the new one: what is copied, changed, zeros, and new, in this order.
fn images() -> (Vec<u8>, Vec<u8>) {
    let old = [b"old".as_slice(), &noise(1, 4 * PIECE - 3)].concat();
    let mut new = old.clone();
    new[..10].copy_from_slice(b"well, new!");
    for at in (PIECE..2 * PIECE).step_by(5000) {
        new[at] ^= 1;
    }
    new[2 * PIECE..3 * PIECE].fill(0);
    new.truncate(3 * PIECE);
    new.extend(noise(2, 60_000));
    (old, new)
}

/// The same with two pieces: one changed, one new.
fn small_images() -> (Vec<u8>, Vec<u8>) {
    let old = [b"old".as_slice(), &noise(1, PIECE + 20_000)].concat();
    let mut new = old[..PIECE].to_vec();
    new[..10].copy_from_slice(b"well, new!");
    new.extend(noise(2, 60_000));
    // So that chunks are cheaper than the whole file.
    new.resize(new.len() + 20_000, 0);
    (old, new)
}

/// The files of a delivery of which bytes came, and the bytes.
fn delivered(mirror: &Mirror) -> (Vec<String>, usize) {
    let transfers = mirror.take_transfers().into_iter();
    let of = |file: &str| file.contains("/delivery/") || file.ends_with("image.bin");
    let transfers: Vec<_> = transfers.filter(|(file, _)| of(file)).collect();
    let bytes = transfers.iter().map(|(_, bytes)| bytes).sum();
    let kind = |file: &str| file.rsplit('.').next().unwrap().to_owned();
    (transfers.iter().map(|(file, _)| kind(file)).collect(), bytes)
}

/// A board that runs an old image, and a repository with a new one.
struct Scene {
    _folder: tempfile::TempDir,
    board: Board,
    mirror: Mirror,
    made: Made,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Scene {
    fn new(with_patch: bool) -> Self {
        let (old, new) = images();
        let made = made(Some(&old).filter(|_| with_patch).map(Vec::as_slice), &new);
        Self::of(old, new, made)
    }

    fn small(with_patch: bool) -> Self {
        let (old, new) = small_images();
        let made = made(Some(&old).filter(|_| with_patch).map(Vec::as_slice), &new);
        Self::of(old, new, made)
    }

    fn of(old: Vec<u8>, new: Vec<u8>, made: Made) -> Self {
        let mut sim = channel(ALL);
        let listed = publish(&mut sim, &made, &old);
        release(&mut sim, "1.2.0", 12, &new, &listed);
        let (folder, mirror) = (scratch(), Mirror::of(sim));
        // It is well if it runs: that takes no program.
        let board = Board::new(folder.path(), &mirror);
        fs::write(folder.path().join("slot.a"), &old).unwrap();
        Self { _folder: folder, board, mirror, made, old, new }
    }

    fn slot(&self, slot: &str) -> Vec<u8> {
        fs::read(self.board.folder.join(format!("slot.{slot}"))).unwrap()
    }

    /// The same repository, for another board with the old image.
    fn again(&self) -> Self {
        let folder = scratch();
        let mut board = Board::new(folder.path(), &self.mirror);
        board.options = self.board.options.clone();
        fs::write(folder.path().join("slot.a"), &self.old).unwrap();
        let Self { mirror, made, old, new, .. } = self;
        let (mirror, made, old, new) = (mirror.clone(), made.clone(), old.clone(), new.clone());
        Self { _folder: folder, board, mirror, made, old, new }
    }

    /// Runs until all is done, and checks that the new image runs.
    fn updates(&self) {
        self.board.run(&Disk::new()).unwrap();
        self.is_done().unwrap();
    }

    fn is_done(&self) -> Result<(), String> {
        let status = self.board.status();
        let runs = self.board.runs();
        if runs != self.new && runs != self.old {
            return Err("neither the old image nor the new one runs".into());
        }
        if runs != self.new || status.device.installed.sequence != 12 || status.overwritten.is_some() {
            return Err(format!("not done: {}, {:?}", status.update.state, status.overwritten));
        }
        Ok(())
    }

    /// Runs as often as it takes, while time passes.
    fn gets_there(&mut self) -> Result<(), String> {
        for _ in 0..6 {
            let _ = self.board.run(&Disk::new());
            if self.is_done().is_ok() {
                return Ok(());
            }
            self.board.now += chrono::TimeDelta::hours(5);
        }
        self.is_done()
    }

    /// The server has no files of the delivery.
    fn loses_the_delivery(&self) {
        for kind in Kind::ALL {
            self.mirror.trick(&self.path(kind), Trick::Gone);
        }
    }

    /// Downloads half of the update, until the network breaks off.
    fn stops_half_way(&self) {
        self.mirror.trick(&self.path(Kind::Patch), Trick::Cut(self.patch().len() / 2));
        self.board.run(&Disk::new()).unwrap_err();
        self.mirror.behave();
        assert!(self.slot("b") != self.new && self.slot("b").iter().any(|byte| *byte != 0));
        assert_eq!(self.board.invalid(), "b");
    }

    fn overwritten_by(&self) -> Option<(u64, bool)> {
        self.board.status().overwritten.map(|it| (it.release.sequence, it.complete))
    }

    fn patch(&self) -> &[u8] {
        &self.made.patch.as_ref().unwrap().0
    }

    fn path(&self, kind: Kind) -> String {
        let bytes = match kind {
            Kind::Index => &self.made.index,
            Kind::Pack => &self.made.pack,
            Kind::Patch => self.patch(),
        };
        format!("targets/{}", delivery_path(&name("stable"), kind, &Digest::of(bytes)))
    }
}

/// Bytes of the delivery and the artifact that were read.
fn read(mirror: &Mirror) -> usize {
    let of = |file: &str| file.contains("/delivery/") || file.ends_with("image.bin");
    mirror.take_read().into_iter().filter(|(file, _)| of(file)).map(|(_, bytes)| bytes).sum()
}

#[test]
fn a_patch_goes_straight_into_the_slot() {
    let scene = Scene::new(true);
    let check = scene.board.device().check().unwrap();
    let ways = check.update.as_ref().unwrap().artifacts[0].ways.clone();
    let signed = [scene.patch().len(), scene.made.index.len() + scene.made.pack.len(), scene.new.len()];
    assert_eq!(ways.iter().map(|way| way.way).collect::<Vec<_>>(), [WayKind::Patch, WayKind::Chunks, WayKind::Whole]);
    assert_eq!(ways.iter().map(|way| usize::try_from(way.bytes).unwrap()).collect::<Vec<_>>(), signed);
    assert_eq!(ways[0].to_string(), format!("patch from 1.0.0, {} bytes", signed[0]));
    scene.mirror.take_transfers();
    scene.updates();
    let (files, bytes) = delivered(&scene.mirror);
    // The directory, the rest, and the first piece, each in one range.
    assert_eq!((files, bytes), (vec!["patch".to_owned(); 3], scene.patch().len()));
    assert!(scene.slot("a") == scene.old);
    assert_eq!(fs::read_dir(scene.board.folder.join("state/downloads")).unwrap().count(), 0);
}

/// The image is short and does not compress, so that index and pack are much longer than it is.
#[test]
fn the_whole_file_is_fetched_before_a_dearer_way() {
    let (old, new) = images();
    let new = new[..3000].to_vec();
    for (with_patch, ways) in
        [(true, &[WayKind::Patch, WayKind::Whole, WayKind::Chunks][..]), (false, &[WayKind::Whole, WayKind::Chunks])]
    {
        let scene = Scene::of(old.clone(), new.clone(), made(with_patch.then_some(&*old), &new));
        let check = scene.board.device().check().unwrap();
        let signed: Vec<_> = check.update.unwrap().artifacts[0].ways.iter().map(|it| it.way).collect();
        assert_eq!(signed, ways);
        scene.mirror.trick(&scene.path(if with_patch { Kind::Patch } else { Kind::Index }), Trick::Gone);
        delivered(&scene.mirror);
        read(&scene.mirror);
        scene.updates();
        let (files, _) = delivered(&scene.mirror);
        assert!(!files.iter().any(|file| file == "index" || file == "pack"), "{files:?}");
        assert_eq!(read(&scene.mirror), new.len());
        // In place of the slot, there was room for it elsewhere.
        assert_eq!(scene.slot("a"), scene.old);
    }
}

/// What a metered network allows goes by the cheapest way.
#[test]
fn a_metered_network_is_asked_for_the_cheapest_way() {
    let scene = Scene::small(true);
    for (at_most, allows) in [(scene.patch().len(), true), (scene.patch().len() - 1, false)] {
        let policy = Policy::read(&json!({"metered": {"at_most": at_most}}), "policy").unwrap();
        let facts = Facts::parse(br#"{"metered": true}"#).unwrap();
        let mut device = scene.board.builder(Disk::new()).policy(policy).facts(facts).open().unwrap();
        let check = device.check().unwrap();
        let download = check.policy.iter().find(|judgement| judgement.step == Step::Download).unwrap();
        assert_eq!(download.allows(), allows, "{download}");
    }
}

#[test]
fn chunks_of_the_running_release_are_not_fetched() {
    let scene = Scene::new(false);
    scene.updates();
    let (files, bytes) = delivered(&scene.mirror);
    assert_eq!(files[0], "index");
    assert!(files[1..].iter().all(|file| file == "pack"), "{files:?}");
    // The second piece was changed all over, and the last one is new; of the first, one chunk.
    let new = scene.made.index.len() + PIECE + 60_000;
    assert!(bytes > new && bytes < new + 4 * MAX_CHUNK, "{bytes}");
}

/// A network that answers the first request for a range with its login page.
struct Portal(Mirror, AtomicUsize);

impl Fetch for Portal {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        if request.end.is_none() || self.1.fetch_add(1, Ordering::SeqCst) > 0 {
            return self.0.fetch(request);
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let _ = stream.read(&mut [0; 4096]).unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>Please log in</html>").unwrap();
        });
        let options = HttpOptions { proxy: Proxy::None, ..HttpOptions::default() };
        let http = HttpFetch::with_options(options, Arc::new(SystemClock::new()));
        let reply = http.fetch(&Request { url: &url, ..*request });
        server.join().unwrap();
        reply
    }
}

#[test]
fn a_login_page_does_not_turn_ranges_off() {
    let scene = Scene::new(false);
    let retry = Retry { times: 1, first: Duration::ZERO, longest: Duration::ZERO };
    let portal = Portal(scene.mirror.clone(), AtomicUsize::new(0));
    let mut device = scene.board.builder(Disk::new()).fetch(portal).retry(retry).open().unwrap();
    let update = device.check().unwrap().update.unwrap();
    delivered(&scene.mirror);
    device.download(&update, &mut unwatched).unwrap();
    assert!(scene.slot("b") == scene.new);
    let (_, bytes) = delivered(&scene.mirror);
    assert!(bytes < scene.made.index.len() + PIECE + 60_000 + 4 * MAX_CHUNK, "{bytes}");
}

/// Every other chunk is new.
#[test]
fn small_gaps_between_ranges_are_read_and_larger_ones_are_not() {
    const GAP: usize = 16 << 10;
    let noisy = 30 * AVERAGE_CHUNK;
    let new = [b"well".as_slice(), &noise(11, noisy), &vec![0; 200_000]].concat();
    let chunks: Vec<_> = FastCDC::new(&new, MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK)
        .map(|chunk| chunk.offset..chunk.offset + chunk.length)
        .filter(|chunk| chunk.end <= noisy)
        .collect();
    let mut old = new[..noisy].to_vec();
    old[..4].copy_from_slice(b"old!");
    // Where a chunk is cut does not depend on its beginning.
    chunks.iter().skip(1).step_by(2).for_each(|chunk| old[chunk.start + 9] ^= 1);
    let end = chunks.last().unwrap().end;
    old.truncate(end);
    let scene = Scene::of(old, new.clone(), made(None, &new));
    // Noise is stored, so that it is at the same places in the pack.
    assert!(scene.made.pack[..end] == new[..end]);
    let gaps: Vec<_> = chunks.iter().skip(2).step_by(2).map(ExactSizeIterator::len).collect();
    let wide: Vec<_> = gaps.iter().copied().filter(|gap| *gap > GAP).collect();
    assert!(wide.len() > 2 && gaps.len() - wide.len() > 2, "{gaps:?}");
    scene.updates();
    let (files, bytes) = delivered(&scene.mirror);
    // The index, the data up to each wide gap and after the last, and the first chunk.
    assert_eq!(files.len(), 1 + wide.len() + 1 + 1);
    let pack = scene.made.pack.len() - chunks[1].start + chunks[0].len() - wide.iter().sum::<usize>();
    assert_eq!(bytes, scene.made.index.len() + pack);
    assert_eq!(read(&scene.mirror), bytes, "nothing is read twice");
}

#[test]
fn chunks_that_repeat_are_fetched_once() {
    let part = noise(5, 3 * MAX_CHUNK);
    let new = [b"well".as_slice(), &part, &vec![0; 200_000], &noise(6, 50_000), &part, &part].concat();
    let scene = Scene::of(b"old".to_vec(), new.clone(), made(None, &new));
    assert!(scene.made.pack.len() < new.len() / 2);
    scene.updates();
    assert_eq!(read(&scene.mirror), scene.made.index.len() + scene.made.pack.len());
}

/// The process stops at every step that changes the disk or calls the boot loader.
#[test]
fn at_most_one_piece_is_fetched_again() {
    for with_patch in [true, false] {
        let first = Scene::small(with_patch);
        let counted = Faults::none();
        first.board.run(&Disk::with_faults(counted.clone())).unwrap();
        first.is_done().unwrap();
        let once = read(&first.mirror);
        let piece = if with_patch { PIECE } else { MAX_CHUNK };
        for n in 0..counted.steps() {
            let mut scene = first.again();
            let _ = scene.board.run(&Disk::with_faults(Faults::stop_at(n)));
            if n % 2 == 1 {
                // This fails if a slot starts that is being written.
                scene.board.restart();
            }
            let runs = scene.board.runs();
            assert!(runs == scene.old || runs == scene.new, "stopped at {n}");
            scene.gets_there().unwrap_or_else(|why| panic!("stopped at {n}: {why}"));
            let bytes = read(&scene.mirror);
            assert!(bytes <= once + piece, "stopped at {n}: {bytes} instead of {once}");
        }
    }
}

#[test]
fn a_full_disk_stops_an_update_and_no_more() {
    let first = Scene::small(true);
    let counted = Faults::none();
    first.board.run(&Disk::with_faults(counted.clone())).unwrap();
    for n in (0..counted.steps()).step_by(11) {
        for faults in [Faults::full_from(n), Faults::fail_at(n, std::io::ErrorKind::Other)] {
            let mut scene = first.again();
            let _ = scene.board.run(&Disk::with_faults(faults));
            scene.board.restart();
            scene.gets_there().unwrap_or_else(|why| panic!("at {n}: {why}"));
        }
    }
}

#[test]
fn bad_files_and_servers_cost_bytes_and_no_more() {
    let first = Scene::small(true);
    let chunks = Scene::small(false);
    let all = first.patch().len() + first.made.index.len() + first.made.pack.len() + 2 * first.new.len();
    for kind in Kind::ALL {
        let scene = if kind == Kind::Patch { &first } else { &chunks };
        let path = scene.path(kind);
        let bytes = scene.mirror.sim().files[&path].clone();
        let changed = |at: usize| {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            Trick::Bytes(changed)
        };
        let mut tricks = vec![
            changed(1),
            changed(9),
            changed(bytes.len() / 2),
            changed(bytes.len() - 1),
            Trick::Bytes(vec![]),
            Trick::Bytes(b"<html>Please log in</html>".to_vec()),
            Trick::Bytes(vec![0; bytes.len()]),
            Trick::Bytes(noise(9, 2 * bytes.len())),
            Trick::Gone,
            Trick::Endless,
            Trick::Cut(bytes.len() - 1),
            Trick::NoRanges,
        ];
        tricks.extend((0..3).map(Trick::WrongRange));
        for trick in tricks {
            let mut scene = scene.again();
            scene.mirror.take_read();
            scene.mirror.trick(&path, trick.clone());
            scene.gets_there().unwrap_or_else(|why| panic!("{kind:?}: {trick:?} {why}"));
            scene.mirror.behave();
            let bytes = read(&scene.mirror);
            assert!(bytes <= all, "{kind:?}: {bytes} of at most {all}");
        }
    }
    // Nothing of the delivery is there: the whole file is stored, or goes into the slot if there is no room.
    for (faults, cut) in [(Faults::none(), 0), (Faults::with_room(1000), 0), (Faults::with_room(1000), PIECE + 100)] {
        let mut scene = first.again();
        scene.loses_the_delivery();
        if cut > 0 {
            let image = scene.mirror.sim().files.keys().find(|file| file.ends_with("image.bin")).unwrap().clone();
            scene.mirror.trick(&image, Trick::Cut(cut));
            scene.board.run(&Disk::with_faults(faults.clone())).unwrap_err();
            assert!(scene.slot("b").len() == scene.new.len() && scene.slot("b")[0] == 0);
            scene.mirror.behave();
            scene.board.restart();
            scene.board.now += chrono::TimeDelta::hours(5);
            scene.loses_the_delivery();
        }
        scene.board.run(&Disk::with_faults(faults)).unwrap();
        scene.mirror.behave();
        scene.is_done().unwrap();
    }
    // A network that shows its login page for everything, until someone logs in.
    let mut scene = first.again();
    let files: Vec<_> = scene.mirror.sim().files.keys().cloned().collect();
    let page = Trick::Bytes(b"<html>Please log in</html>".to_vec());
    files.iter().filter(|file| file.starts_with("targets/")).for_each(|file| scene.mirror.trick(file, page.clone()));
    scene.board.run(&Disk::new()).unwrap_err();
    scene.mirror.behave();
    scene.gets_there().unwrap();
}

/// Every transfer of a server without ranges breaks off within a piece.
#[test]
fn pieces_are_continued_where_a_transfer_broke_off() {
    let mut scene = Scene::small(true);
    let once = Retry { times: 1, first: Duration::ZERO, longest: Duration::ZERO };
    let update = |scene: &Scene| {
        let mut device = scene.board.builder(Disk::new()).retry(once).open().unwrap();
        let update = device.check().unwrap().update.unwrap();
        device.download(&update, &mut unwatched).map(drop)
    };
    scene.mirror.trick(&scene.path(Kind::Patch), Trick::Drops(7_000));
    update(&scene).unwrap();
    scene.gets_there().unwrap();
    assert_eq!(read(&scene.mirror), scene.patch().len());
    // Also the whole file, where there is nothing else and no room.
    let scene = scene.again();
    scene.mirror.edit(|sim| drop(release(sim, "1.2.0", 12, &scene.new, &Value::Null)));
    let image = scene.mirror.sim().files.keys().find(|file| file.ends_with("image.bin")).unwrap().clone();
    scene.mirror.trick(&image, Trick::Drops(50_000));
    let mut device = scene.board.builder(Disk::with_faults(Faults::with_room(9))).retry(once).open().unwrap();
    let update = device.check().unwrap().update.unwrap();
    device.download(&update, &mut unwatched).unwrap();
    assert!(scene.slot("b") == scene.new);
    assert_eq!(read(&scene.mirror), scene.new.len());
}

#[test]
fn a_running_slot_that_was_changed_costs_bytes_and_no_more() {
    type Change = fn(&Path, &[u8]);
    let changes: [(&str, Change); 7] = [
        ("one byte", |slot, old| {
            let mut old = old.to_vec();
            old[PIECE / 2] ^= 1;
            fs::write(slot, old).unwrap();
        }),
        ("every block", |slot, old| {
            let mut old = old.to_vec();
            old.iter_mut().step_by(4096).for_each(|byte| *byte ^= 1);
            fs::write(slot, old).unwrap();
        }),
        ("shorter", |slot, old| fs::write(slot, &old[..PIECE / 2]).unwrap()),
        ("longer", |slot, old| fs::write(slot, [old, old].concat()).unwrap()),
        ("missing", |slot, _| fs::remove_file(slot).unwrap()),
        // Its first page cannot be read: EIO.
        ("unreadable", |slot, _| {
            fs::remove_file(slot).unwrap();
            std::os::unix::fs::symlink("/proc/self/mem", slot).unwrap();
        }),
        ("not a file", |slot, _| {
            fs::remove_file(slot).unwrap();
            fs::create_dir(slot).unwrap();
        }),
    ];
    let scenes = [Scene::small(true), Scene::small(false)];
    for (name, change) in changes {
        for first in &scenes {
            let mut scene = first.again();
            let slot = scene.board.folder.join("slot.a");
            change(&slot, &scene.old);
            scene.old = fs::read(&slot).unwrap_or_default();
            scene.board.run(&Disk::new()).unwrap();
            scene.is_done().unwrap_or_else(|why| panic!("{name}: {why}"));
        }
    }
}

/// The publisher signed a patch and an index of another image.
#[test]
fn a_delivery_of_another_image_is_noticed() {
    let (old, new) = small_images();
    let mut other = new.clone();
    other[10..3000].fill(7);
    let (right, wrong) = (made(Some(&old), &new), made(Some(&old), &other));
    for (patch, index) in [(&wrong, &right), (&right, &wrong), (&wrong, &wrong)] {
        let mixed = Made { patch: patch.patch.clone(), ..index.clone() };
        let scene = Scene::of(old.clone(), new.clone(), mixed);
        scene.updates();
    }
}

#[test]
fn nothing_is_written_during_a_trial() {
    let mut scene = Scene::new(true);
    scene.board.options.health = Health::ByHand;
    scene.board.check(Disk::new()).unwrap();
    scene.mirror.edit(|sim| drop(release(sim, "1.3.0", 13, &noise(3, PIECE), &Value::Null)));
    scene.mirror.edit(|sim| {
        let listed = publish(sim, &made(None, &noise(4, PIECE)), &[]);
        release(sim, "1.4.0", 14, &noise(4, PIECE), &listed);
    });
    for waits_for_restart in [true, false] {
        assert_eq!(matches!(scene.board.state(), State::Rebooting { .. }), waits_for_restart);
        let _ = scene.board.check(Disk::new());
        let mut device = scene.board.device();
        let update = device.check().unwrap().update.unwrap();
        assert_eq!(update.release.sequence, 14);
        let error = device.download(&update, &mut unwatched).unwrap_err().to_string();
        assert!(error.contains("the other slot"), "{error}");
        assert!(scene.slot("a") == scene.old && scene.slot("b") == scene.new);
        drop(device);
        if waits_for_restart {
            scene.board.restart();
            scene.board.check(Disk::new()).unwrap();
        }
    }
}

#[test]
fn a_pause_in_the_middle_keeps_what_came() {
    let mut scene = Scene::new(true);
    scene.stops_half_way();
    assert_eq!(scene.overwritten_by(), Some((12, false)));
    let before = scene.slot("b");
    let paused = |paused: bool| {
        scene.mirror.edit(|sim| {
            let listed = publish(sim, &scene.made, &scene.old);
            let mut manifest = manifest_of("1.2.0", 12, &scene.new);
            manifest["artifacts"][0]["delivery"] = listed;
            let bytes = approve_image(sim, &manifest, &scene.new);
            assign(sim, "all", &bytes, &json!({"paused": paused}));
            sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
        });
    };
    paused(true);
    scene.board.now += chrono::TimeDelta::hours(5);
    scene.board.run(&Disk::new()).unwrap();
    scene.board.restart();
    assert!(scene.slot("b") == before && scene.board.runs() == scene.old);
    assert_eq!(scene.overwritten_by(), Some((12, false)), "there is no fallback");
    paused(false);
    scene.gets_there().unwrap();
    let bytes = read(&scene.mirror);
    assert!(bytes <= scene.patch().len() + PIECE, "{bytes}");
}

#[test]
fn a_withdrawal_in_the_middle_leaves_no_fallback() {
    let mut scene = Scene::new(true);
    scene.stops_half_way();
    scene.mirror.edit(|sim| {
        sim.signed.get_mut("stable.all").unwrap()["targets"] = json!({});
        sim.publish(&["stable.all", "snapshot", "timestamp"]);
    });
    scene.board.now += chrono::TimeDelta::hours(5);
    scene.board.run(&Disk::new()).unwrap();
    assert_eq!(scene.overwritten_by(), Some((12, false)));
    assert!(scene.board.runs() == scene.old);
    scene.mirror.edit(|sim| {
        let listed = publish(sim, &scene.made, &scene.old);
        release(sim, "1.2.1", 12, &scene.new, &listed);
    });
    scene.gets_there().unwrap();
}

#[test]
fn a_newer_release_in_the_middle_takes_over_what_is_the_same() {
    let mut scene = Scene::new(true);
    scene.stops_half_way();
    let came = read(&scene.mirror);
    let mut newer = scene.new.clone();
    newer[3 * PIECE + 10..3 * PIECE + 20].fill(1);
    let made = made(Some(&scene.old), &newer);
    scene.mirror.edit(|sim| {
        let listed = publish(sim, &made, &scene.old);
        release(sim, "1.3.0", 13, &newer, &listed);
    });
    scene.board.now += chrono::TimeDelta::hours(5);
    scene.board.run(&Disk::new()).unwrap();
    assert!(scene.board.runs() == newer);
    assert_eq!(scene.overwritten_by(), None);
    let (patch, directory) = made.patch.unwrap();
    let bytes = read(&scene.mirror);
    // The second piece, which was whole, did not come again.
    assert!(came > directory && bytes < patch.len() && bytes > directory, "{came}, {bytes}");
}

#[test]
fn a_finished_slot_is_kept() {
    let scene = Scene::new(true);
    let download = || {
        let mut device = scene.board.device();
        let update = device.check().unwrap().update.unwrap();
        let downloaded = device.download(&update, &mut unwatched).unwrap();
        assert_eq!(downloaded.artifacts()[0].path, scene.board.folder.join("slot.b"));
    };
    download();
    assert_eq!(scene.overwritten_by(), Some((12, true)));
    read(&scene.mirror);
    download();
    scene.updates();
    assert_eq!(read(&scene.mirror), 0);
    // A finished slot that changed is filled again.
    let scene = scene.again();
    let mut device = scene.board.device();
    let update = device.check().unwrap().update.unwrap();
    device.download(&update, &mut unwatched).unwrap();
    drop(device);
    let mut changed = scene.new.clone();
    changed[5] ^= 1;
    fs::write(scene.board.folder.join("slot.b"), changed).unwrap();
    scene.updates();
}

#[test]
fn a_fallback_can_be_kept_where_there_is_room() {
    let mut scene = Scene::new(true);
    scene.board.adjust = |builder| builder.keep_fallback(true);
    let download = |disk: Disk| {
        let mut device = scene.board.builder(disk).open().unwrap();
        let update = device.check().unwrap().update.unwrap();
        device.download(&update, &mut unwatched).unwrap().artifacts()[0].path.clone()
    };
    let stored = download(Disk::new());
    assert!(stored.starts_with(scene.board.folder.join("state")) && fs::read(&stored).unwrap() == scene.new);
    assert_eq!((scene.slot("b"), scene.overwritten_by(), scene.board.invalid()), (vec![], None, String::new()));
    assert_eq!(read(&scene.mirror), scene.patch().len());
    fs::remove_file(stored).unwrap();
    // Where there is none, the slot is filled.
    assert_eq!(download(Disk::with_faults(Faults::with_room(1000))), scene.board.folder.join("slot.b"));
    scene.updates();
}

#[test]
fn a_hook_that_cannot_mark_a_slot_has_releases_stored() {
    let mut scene = Scene::new(true);
    let hook = r#"cd "$1"; put() { printf %s "$2" > "$1"; }
        case "$2" in running) cat running ;; try) put attempted "$3" ;; keep) put kept "$3"; put attempted "" ;; *) exit 2 ;; esac"#;
    let words = ["sh", "-c", hook, "hook", &scene.board.folder.display().to_string()].map(str::to_owned);
    let command = tidegate_client::command::Command::new(words, std::time::Duration::from_secs(20));
    scene.board.hook = Some(tidegate_client::install::BootHook::new(command));
    let mut device = scene.board.device();
    let update = device.check().unwrap().update.unwrap();
    let downloaded = device.download(&update, &mut unwatched).unwrap();
    assert!(downloaded.artifacts()[0].path.starts_with(scene.board.folder.join("state")));
    assert_eq!((scene.slot("b"), scene.overwritten_by()), (vec![], None));
    drop(device);
    scene.updates();
    assert_eq!(read(&scene.mirror), scene.patch().len());
}

#[test]
fn a_file_slot_is_patched_from_its_own_file() {
    let scene = Scene::new(true);
    let slot = scene.board.folder.join("slot");
    fs::write(&slot, &scene.old).unwrap();
    let state = scene.board.folder.join("other");
    let mut device = device(&scene.mirror, &state, epoch()).installer(FileSlot::new(&slot)).open().unwrap();
    let update = device.check().unwrap().update.unwrap();
    let downloaded = device.download(&update, &mut unwatched).unwrap();
    device.install(&downloaded, &mut unwatched).unwrap();
    assert!(fs::read(&slot).unwrap() == scene.new);
    assert_eq!(read(&scene.mirror), scene.patch().len());
}

/// The folder of releases has the running artifact, so that a patch suffices; a program has nothing to start from, and gets the artifact from its
/// chunks.
#[test]
fn folders_are_patched_and_programs_get_chunks() {
    let scene = Scene::new(true);
    let base = scene.board.folder.join("app");
    fs::create_dir_all(base.join("releases/1.0.0")).unwrap();
    fs::write(base.join("releases/1.0.0/image.bin"), &scene.old).unwrap();
    std::os::unix::fs::symlink("releases/1.0.0", base.join("current")).unwrap();
    let state = scene.board.folder.join("of-the-folder");
    let mut device = device(&scene.mirror, &state, epoch()).installer(DirectoryInstaller::new(&base)).open().unwrap();
    let update = device.check().unwrap().update.unwrap();
    let downloaded = device.download(&update, &mut unwatched).unwrap();
    device.install(&downloaded, &mut unwatched).unwrap();
    assert!(fs::read(base.join("current/image.bin")).unwrap() == scene.new);
    assert_eq!(read(&scene.mirror), scene.patch().len());
    device.confirm().unwrap();
    assert!(!base.join("releases/1.0.0").exists());

    let installed = scene.board.folder.join("installed");
    let words =
        ["sh", "-c", "[ $1 != running ] || exit 20; [ $1 != install ] || cp $TIDEGATE_ARTIFACT $0"].map(str::to_owned);
    let words = words.into_iter().chain([installed.display().to_string()]);
    let program = CommandInstaller::new(Command::new(words, Duration::from_secs(20)));
    let state = scene.board.folder.join("of-the-program");
    let mut device = crate::fleet::device(&scene.mirror, &state, epoch()).installer(program).open().unwrap();
    let update = device.check().unwrap().update.unwrap();
    delivered(&scene.mirror);
    let downloaded = device.download(&update, &mut unwatched).unwrap();
    device.install(&downloaded, &mut unwatched).unwrap();
    assert!(fs::read(&installed).unwrap() == scene.new);
    let (files, bytes) = delivered(&scene.mirror);
    assert!(
        files.iter().any(|file| file == "pack") && bytes <= scene.made.index.len() + scene.made.pack.len(),
        "{files:?}"
    );
}

#[test]
fn slots_of_several_artifacts_are_filled() {
    let (old, new) = images();
    let (kernel, folder) = (noise(7, 50_000), scratch());
    let mut sim = channel(ALL);
    let listed = publish(&mut sim, &made(Some(&old), &new), &old);
    let kernel_listed = publish(&mut sim, &made(None, &kernel), &[]);
    let mut manifest = manifest_of("1.2.0", 12, &new);
    manifest["artifacts"][0]["delivery"] = listed;
    let mut second = manifest_of("1.2.0", 12, &kernel)["artifacts"][0].clone();
    (second["name"], second["path"]) = (json!("kernel"), json!("stable/releases/os/1.2.0/kernel"));
    second["delivery"] = kernel_listed;
    manifest["artifacts"].as_array_mut().unwrap().push(second);
    sim.add_target("stable", "stable/releases/os/1.2.0/kernel", &kernel);
    let bytes = approve_image(&mut sim, &manifest, &new);
    assign(&mut sim, "all", &bytes, &json!({}));
    sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
    let path = |name: &str| folder.path().join(name);
    let image = |artifact: &str| SlotImage {
        artifact: Some(artifact.to_owned()),
        ..SlotImage::only(path(&format!("{artifact}.a")), path(&format!("{artifact}.b")))
    };
    fs::write(path("image.bin.a"), &old).unwrap();
    let boot = StubBoot::new();
    let slots = SlotInstaller::new(vec![image("kernel"), image("image.bin")], boot.clone()).unwrap();
    let mirror = Mirror::of(sim);
    let mut device = device(&mirror, &path("state"), epoch()).installer(slots).open().unwrap();
    let update = device.check().unwrap().update.unwrap();
    let downloaded = device.download(&update, &mut unwatched).unwrap();
    assert_eq!(boot.invalid(), Some(tidegate_client::install::Slot::B));
    device.install(&downloaded, &mut unwatched).unwrap();
    assert_eq!((boot.invalid(), boot.restart()), (None, tidegate_client::install::Slot::B));
    assert!(fs::read(path("image.bin.b")).unwrap() == new && fs::read(path("kernel.b")).unwrap() == kernel);
}

#[test]
fn patches_made_later_are_found() {
    let scene = Scene::new(false);
    let (bytes, directory) = patch(&scene.old, &scene.new);
    let listed = |sim: &mut Simulator, artifact: Digest| {
        sim.files.insert(
            format!("targets/{}", delivery_path(&name("stable"), Kind::Patch, &Digest::of(&bytes))),
            bytes.clone(),
        );
        let list = json!({"schema": 1, "artifact": artifact, "patches": [patch_entry(&bytes, directory, &scene.old)]});
        let path = patches_path(&name("stable"), &name("os"), &"1.2.0".parse().unwrap(), &"image.bin".parse().unwrap());
        sim.add_target("stable", &path, list.to_string().as_bytes());
        sim.publish(&["stable", "snapshot", "timestamp"]);
    };
    let first = || scene.board.device().check().unwrap().update.unwrap().artifacts[0].ways[0].way;
    assert_eq!(first(), WayKind::Chunks);
    // One of another artifact is none.
    scene.mirror.edit(|sim| listed(sim, Digest::of(b"another")));
    assert_eq!(first(), WayKind::Chunks);
    scene.mirror.edit(|sim| listed(sim, Digest::of(&scene.new)));
    assert_eq!(first(), WayKind::Patch);
    scene.updates();
    assert_eq!(read(&scene.mirror), bytes.len());
}

#[test]
fn without_a_delivery_and_without_room_the_file_goes_into_the_slot() {
    let scene = Scene::small(false);
    scene.mirror.edit(|sim| drop(release(sim, "1.2.0", 12, &scene.new, &Value::Null)));
    let room = || Disk::with_faults(Faults::with_room(1000));
    let stop = scene.again();
    scene.board.run(&room()).unwrap();
    scene.is_done().unwrap();
    assert_eq!(read(&scene.mirror), scene.new.len());
    // A network that breaks off leaves a slot that does not start.
    let image = scene.mirror.sim().files.keys().find(|file| file.ends_with("image.bin")).unwrap().clone();
    scene.mirror.trick(&image, Trick::Cut(PIECE + 1000));
    stop.board.run(&room()).unwrap_err();
    scene.mirror.behave();
    assert_eq!((stop.slot("b")[0], stop.board.invalid(), stop.overwritten_by()), (0, "b".into(), Some((12, false))));
    stop.board.restart();
    assert!(stop.board.runs() == stop.old);
}

/// A network on which every request for a part of the delivery takes 13 hours.
struct Slow {
    mirror: Mirror,
    clock: StubClock,
}

impl Fetch for Slow {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        if request.url.contains("/delivery/") {
            self.clock.advance(Duration::from_secs(13 * 3600));
        }
        self.mirror.fetch(request)
    }
}

#[test]
fn a_delivery_of_days_is_decided_again_and_goes_on() {
    for withdrawn in [false, true] {
        let scene = Scene::small(true);
        let clock = StubClock::at(epoch());
        let slow = Slow { mirror: scene.mirror.clone(), clock: clock.clone() };
        let mut device = scene.board.builder(Disk::new()).fetch(slow).clock(clock).open().unwrap();
        let update = device.check().unwrap().update.unwrap();
        if withdrawn {
            scene.mirror.edit(|sim| {
                sim.signed.get_mut("stable.all").unwrap()["targets"] = json!({});
                sim.publish(&["stable.all", "snapshot", "timestamp"]);
            });
        }
        scene.mirror.take_requests();
        let result = device.download(&update, &mut unwatched);
        let refreshed = scene.mirror.take_requests().iter().filter(|file| file.ends_with("timestamp.json")).count();
        assert_eq!(refreshed, 1, "after a day");
        drop(device);
        match result {
            Err(error) => assert!(withdrawn && matches!(error, Error::Outdated { .. }), "{error}"),
            Ok(_) => assert!(!withdrawn && read(&scene.mirror) == scene.patch().len()),
        }
        assert_eq!((scene.overwritten_by(), scene.board.invalid()), (Some((12, !withdrawn)), "b".into()));
    }
}

/// The process stops at every step of an installation, the device restarts, and somebody fetches the next release without the agent.
#[test]
fn the_fallback_of_an_installation_that_was_not_written_down_is_kept() {
    let first = Scene::small(true);
    let begun = first.mirror.sim();
    let next = {
        let image = noise(8, PIECE);
        let made = made(None, &image);
        move |sim: &mut Simulator| {
            let listed = publish(sim, &made, &[]);
            release(sim, "1.3.0", 13, &image, &listed);
        }
    };
    let by_agent = |scene: &Scene, disk: &Disk| drop(scene.board.run(disk));
    let by_hand = |scene: &Scene, disk: &Disk| {
        let Ok(mut device) = scene.board.builder(disk.clone()).open() else { return };
        let Some(update) = device.check().ok().and_then(|check| check.update) else { return };
        let Ok(downloaded) = device.download(&update, &mut unwatched) else { return };
        let _ = device.install(&downloaded, &mut unwatched);
    };
    let mut refused = 0;
    for (install, has_agent) in [(&by_agent as &dyn Fn(&Scene, &Disk), true), (&by_hand, false)] {
        let counted = Faults::none();
        install(&first.again(), &Disk::with_faults(counted.clone()));
        for n in 0..counted.steps() {
            let mut scene = first.again();
            scene.board.options.health = Health::ByHand;
            install(&scene, &Disk::with_faults(Faults::stop_at(n)));
            scene.board.restart();
            let is_on_trial = scene.board.runs() == scene.new;
            scene.mirror.edit(&next);
            let mut device = scene.board.device();
            let update = device.check().unwrap().update.unwrap();
            if let Err(error) = device.download(&update, &mut unwatched) {
                // An agent may not have looked yet.
                let is_known = device.machine().state.is_unsettled();
                assert!(is_on_trial || is_known, "stopped at {n}: {error}");
                assert!(error.to_string().contains("the other slot"), "stopped at {n}: {error}");
                refused += 1;
                assert!(scene.slot("a") == scene.old, "stopped at {n}");
                // Somebody says that it is well. (The agent finds out by itself.)
                if !has_agent {
                    assert_eq!(device.confirm().unwrap().release.sequence, 12);
                    device.download(&update, &mut unwatched).unwrap();
                }
            } else {
                assert!(!is_on_trial, "stopped at {n}");
            }
            scene.mirror.serve(begun.clone());
        }
    }
    assert!(refused > 2, "{refused}");
}

/// The boot loader is told to try a release, and its hook fails all the same.
#[test]
fn a_try_that_fails_is_taken_back() {
    let mut scene = Scene::small(true);
    let hook = r#"cd "$1"; put() { printf %s "$2" > "$1"; }
        case "$2" in
          running) cat running ;;
          try) put invalid ""; put attempted "$3"; test -e works ;;
          keep) put kept "$3"; put attempted "" ;;
          invalid) put invalid "$3" ;;
        esac"#;
    let words = ["sh", "-c", hook, "hook", &scene.board.folder.display().to_string()].map(str::to_owned);
    let command = tidegate_client::command::Command::new(words, Duration::from_secs(20));
    scene.board.hook = Some(tidegate_client::install::BootHook::new(command));
    scene.board.run(&Disk::new()).unwrap_err();
    scene.board.restart();
    assert!(scene.board.runs() == scene.old);
    fs::write(scene.board.folder.join("works"), "").unwrap();
    scene.gets_there().unwrap();
}

/// The slot holds an older release, whose beginning would start.
#[test]
fn the_beginning_of_a_slot_goes_first() {
    for (with_patch, has_delivery) in [(true, true), (false, true), (false, false)] {
        let first = Scene::small(with_patch);
        if !has_delivery {
            first.mirror.edit(|sim| drop(release(sim, "1.2.0", 12, &first.new, &Value::Null)));
        }
        let older = [b"oldest".as_slice(), &noise(4, PIECE + 90_000)].concat();
        let runs = |disk: &dyn Fn() -> Arc<Faults>| {
            let scene = first.again();
            fs::write(scene.board.folder.join("slot.b"), &older).unwrap();
            let faults = disk();
            let _ = scene.board.run(&Disk::with_faults(faults.clone()));
            (scene.slot("b"), faults.steps())
        };
        let (_, steps) = runs(&Faults::none);
        let mut destroyed = 0;
        for n in 0..steps {
            let (slot, _) = runs(&|| Faults::stop_at(n));
            let is_begun = slot.len() != older.len() || slot[6..] != older[6..];
            let has_beginning = slot.get(..MIN_CHUNK) == Some(&older[..MIN_CHUNK]);
            // Its length alone says nothing yet.
            let is_mixed = has_beginning && slot[MIN_CHUNK..] != older[MIN_CHUNK..slot.len().min(older.len())];
            assert!(!is_mixed, "stopped at {n}");
            destroyed += u32::from(is_begun && slot.first() == Some(&0));
        }
        assert!(destroyed > 0 || !has_delivery);
    }
}

/// A server that starts anew each time, and never gets past the same byte; and the number of requests.
struct Anew(Mirror, Arc<AtomicUsize>);

impl Fetch for Anew {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let is_image = request.url.ends_with("image.bin");
        self.0.fetch(&if is_image { Request { offset: 0, end: None, ..*request } } else { *request })
    }
}

#[test]
fn a_transfer_that_gets_no_further_ends() {
    let scene = Scene::small(false);
    scene.mirror.edit(|sim| drop(release(sim, "1.2.0", 12, &scene.new, &Value::Null)));
    let image = scene.mirror.sim().files.keys().find(|file| file.ends_with("image.bin")).unwrap().clone();
    let retry = Retry { times: 3, first: Duration::ZERO, longest: Duration::ZERO };
    let disk = Disk::with_faults(Faults::with_room(1000));
    let builder = scene.board.builder(disk).fetch(Anew(scene.mirror.clone(), Arc::default())).retry(retry);
    let mut device = builder.open().unwrap();
    let update = device.check().unwrap().update.unwrap();
    scene.mirror.trick(&image, Trick::Cut(PIECE + 1000));
    scene.mirror.take_requests();
    device.download(&update, &mut unwatched).unwrap_err();
    assert_eq!(scene.mirror.take_requests().len(), 4, "once, and three times more");
}

#[test]
fn a_busy_server_is_left_alone() {
    let scene = Scene::small(true);
    let retry = Retry { times: 3, first: Duration::ZERO, longest: Duration::from_secs(1) };
    let requests = Arc::<AtomicUsize>::default();
    let builder = scene.board.builder(Disk::new()).fetch(Anew(scene.mirror.clone(), requests.clone())).retry(retry);
    let mut device = builder.open().unwrap();
    let update = device.check().unwrap().update.unwrap();
    for kind in Kind::ALL {
        scene.mirror.trick(&scene.path(kind), Trick::Busy(Duration::from_secs(3600)));
    }
    requests.store(0, Ordering::SeqCst);
    let error = device.download(&update, &mut unwatched).unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[test]
fn a_metered_network_is_asked_for_no_other_way() {
    let metered = |builder: tidegate_client::device::DeviceBuilder| {
        let policy = Policy::read(&json!({"metered": {"at_most": 150_000}}), "policy").unwrap();
        builder.policy(policy).facts(Facts::parse(br#"{"metered": true}"#).unwrap())
    };
    let mut scene = Scene::small(true);
    scene.board.adjust = metered;
    assert!(scene.patch().len() < 150_000 && scene.made.pack.len() > 150_000);
    scene.mirror.trick(&scene.path(Kind::Patch), Trick::Gone);
    read(&scene.mirror);
    scene.board.run(&Disk::new()).unwrap();
    let State::Waiting { why, .. } = scene.board.state() else { panic!("{}", scene.board.state()) };
    assert!(why.contains("cannot be fetched as patch") && why.contains("metered"), "{why}");
    assert_eq!(read(&scene.mirror), 0);
    scene.mirror.behave();
    scene.gets_there().unwrap();
    // A finished slot that somebody changed has to be fetched again, which is asked for.
    let mut scene = scene.again();
    let mut device = scene.board.device();
    let update = device.check().unwrap().update.unwrap();
    device.download(&update, &mut unwatched).unwrap();
    drop(device);
    fs::write(scene.board.folder.join("slot.b"), b"changed").unwrap();
    scene.board.adjust = |builder| {
        let policy = Policy::read(&json!({"metered": "refuse"}), "policy").unwrap();
        builder.policy(policy).facts(Facts::parse(br#"{"metered": true}"#).unwrap())
    };
    read(&scene.mirror);
    for _ in 0..3 {
        scene.board.run(&Disk::new()).unwrap();
        scene.board.now += chrono::TimeDelta::hours(5);
    }
    assert_eq!((read(&scene.mirror), scene.overwritten_by()), (0, Some((12, false))));
    scene.board.adjust = |builder| builder;
    scene.gets_there().unwrap();
}
