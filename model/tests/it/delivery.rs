//! Files of deliveries: what is written is read, and what is damaged is bounded and refused.
#![allow(clippy::cast_possible_truncation)]

use std::io::Write as _;

use lzma_rust2::{LzmaOptions, LzmaWriter};
use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_model::delivery::index::{self, IndexRecord, read_index, write_index};
use tidegate_model::delivery::patch::{PIECE, Step, write_directory, write_patched};
use tidegate_model::delivery::{
    DeliveryError, Directory, Method, PatchList, Piece, Source, apply, unpack, unpack_after,
};
use tidegate_model::digest::Digest;
use tidegate_model::manifest::Manifest;

use super::decisions;

fn pack_after(bytes: &[u8], before: &[u8], (lc, lp, pb): (u32, u32, u32)) -> Vec<u8> {
    let mut options = LzmaOptions { lc, lp, pb, dict_size: 2 << 20, ..LzmaOptions::with_preset(6) };
    options.preset_dict = (!before.is_empty()).then(|| before.to_vec());
    let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, false).unwrap();
    writer.write_all(bytes).unwrap();
    let mut packed = writer.finish().unwrap();
    packed[0] = u8::try_from(lc + 9 * (lp + 5 * pb)).unwrap();
    packed.truncate(packed.iter().rposition(|&byte| byte != 0).unwrap() + 1);
    packed
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    pack_after(bytes, &[], (3, 0, 2))
}

/// Bytes like those of programs: some repeat near and far, some do not.
fn text(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let mut bytes: Vec<u8> = Vec::new();
    while bytes.len() < length {
        let run = next() % 60 + 1;
        if next().is_multiple_of(3) || bytes.len() < 100 {
            bytes.extend((0..run).map(|_| next() as u8));
        } else {
            let from = next() % (bytes.len() - 60);
            bytes.extend_from_within(from..from + run);
        }
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn what_is_packed_is_unpacked() {
    for (round, length) in [1, 2, 17, 300, 70_000].into_iter().enumerate() {
        let bytes = text(round as u64 + 7, length);
        for properties in [(3, 0, 2), (0, 0, 0), (0, 2, 2), (4, 0, 4), (1, 3, 1)] {
            let mut unpacked = b"kept".to_vec();
            unpack_after(&pack_after(&bytes, &[], properties), &[], length, &mut unpacked).unwrap();
            assert!(unpacked == [b"kept", bytes.as_slice()].concat(), "{length} {properties:?}");
        }
    }
    let (before, bytes) = (text(1, 160_000), text(1, 200_000));
    let packed = pack_after(&bytes, &before, (3, 0, 2));
    assert!(packed.len() < 40_000, "{}", packed.len());
    let mut unpacked = Vec::new();
    unpack_after(&packed, &[text(5, 77), before].concat(), bytes.len(), &mut unpacked).unwrap();
    assert!(unpacked == bytes);
    // A chunk that is as long packed as unpacked is stored.
    let mut stored = Vec::new();
    unpack(b"abc", 3, &mut stored).unwrap();
    assert_eq!(stored, b"abc");
}

#[test]
fn damaged_data_is_no_longer_than_asked_for() {
    let bytes = text(3, 5_000);
    let packed = pack(&bytes);
    for at in 0..packed.len().min(600) {
        for change in [1, 0x80, 0xff] {
            let mut damaged = packed.clone();
            damaged[at] ^= change;
            let mut into = Vec::new();
            let _ = unpack_after(&damaged, &[], bytes.len(), &mut into);
            assert!(into.len() <= bytes.len());
        }
        let mut into = Vec::new();
        let _ = unpack_after(&packed[..at], &[], bytes.len(), &mut into);
        assert!(into.len() <= bytes.len());
    }
    // A bomb gives what is asked for and no more; more than four bits of context are refused.
    let mut into = Vec::new();
    unpack_after(&pack(&vec![0; 200_000]), &[], 1000, &mut into).unwrap();
    assert_eq!(into, vec![0; 1000]);
    for properties in [225, 255, 8 + 9 * 4, 5] {
        assert!(unpack_after(&[properties, 0, 0, 0, 0], &[], 10, &mut Vec::new()).is_err(), "{properties}");
    }
}

fn chunks(count: usize) -> (Vec<IndexRecord>, u64, u64) {
    let mut records = Vec::new();
    let (mut length, mut end) = (0, 0);
    for index in 0..count {
        let (sha256, size) = (Digest::of(&index.to_be_bytes()), 5000 + index as u32 % 7000);
        let record = match index % 10 {
            3 => IndexRecord { sha256, length: 65536, packed: 0, offset: end },
            7 => records[index / 2],
            _ => {
                end += u64::from(size / 2);
                IndexRecord { sha256, length: size, packed: size / 2, offset: end - u64::from(size / 2) }
            }
        };
        length += u64::from(record.length);
        records.push(record);
    }
    (records, length, end)
}

fn read(index: &[u8], length: u64, pack: u64) -> Result<Vec<IndexRecord>, DeliveryError> {
    let (mut rest, mut records) = (index, Vec::new());
    let mut fill = |into: &mut [u8]| {
        let (next, after) = rest.split_at(into.len());
        into.copy_from_slice(next);
        rest = after;
        Ok::<(), DeliveryError>(())
    };
    read_index([index.len() as u64, length, pack], &mut fill, &mut |record| {
        records.push(record);
        Ok(())
    })?;
    Ok(records)
}

#[test]
fn an_index_comes_back() {
    for count in [0, 1, 10, index::BLOCK, index::BLOCK + 1, 9_000] {
        let (records, length, end) = chunks(count);
        let file = write_index::<DeliveryError>(&records, &mut |bytes| Ok(pack(bytes))).unwrap();
        assert!(read(&file, length, end).unwrap() == records, "{count}");
        assert!(file.len() <= 100 + 36 * count, "{count}: {}", file.len());
    }
}

#[test]
fn an_index_that_does_not_fit_is_refused() {
    let (records, length, end) = chunks(100);
    let write = |records: &[IndexRecord]| write_index::<DeliveryError>(records, &mut |bytes| Ok(pack(bytes))).unwrap();
    let file = write(&records);
    for (length, pack) in [(length - 1, end), (length + 1, end), (length, end - 1), (20_000, end)] {
        read(&file, length, pack).unwrap_err();
    }
    let changed = |change: fn(&mut IndexRecord)| {
        let mut records = records.clone();
        change(&mut records[5]);
        read(&write(&records), length, end).unwrap_err().to_string()
    };
    let wrong = "a chunk has a wrong length or place";
    assert_eq!(changed(|record| record.length = 0), wrong);
    assert_eq!(changed(|record| record.length = 65537), wrong);
    assert_eq!(changed(|record| record.packed = record.length + 1), wrong);
    assert_eq!(changed(|record| record.offset = (1 << 40) - 1), wrong);
    assert_eq!(changed(|record| record.length += 1), "the chunks are not as long as the artifact");
    // Cut short, and with something after the end.
    for cut in 0..file.len() {
        read(&file[..cut], length, end).unwrap_err();
    }
    read(&[file.as_slice(), b"x"].concat(), length, end).unwrap_err();
    // It says more chunks than it can have: refused before anything is unpacked.
    let mut many = file.clone();
    many[4] = 0xff;
    assert_eq!(read(&many, length, end).unwrap_err().to_string(), "too many chunks");
}

/// A patch with a piece of each method, what it makes, and the old artifact.
fn patch() -> (Vec<u8>, usize, Vec<u8>, Vec<u8>) {
    let old = text(11, 3 * PIECE);
    let mut changed = old[1000..1000 + PIECE - 500].to_vec();
    changed[17] = changed[17].wrapping_add(3);
    let new_bytes = text(99, 500);
    let steps = [
        Step { taken: 1000, added: 500, moved: -300 },
        Step { taken: 300, added: 0, moved: 0 },
        Step { taken: (PIECE - 1800) as u32, added: 0, moved: 7 },
    ];
    let (mut differences, mut piece) = (Vec::new(), Vec::new());
    differences.resize(PIECE - 500, 0);
    differences[17] = 3;
    piece.extend_from_slice(&changed[..1000]);
    piece.extend_from_slice(&new_bytes);
    piece.extend_from_slice(&old[1700..2000]);
    piece.extend_from_slice(&old[2000..2000 + PIECE - 1800]);
    let patched = write_patched(&steps, &differences, &new_bytes, &mut pack).unwrap();
    let after = text(11, PIECE + 5)[5..].to_vec();
    let source = |offset: usize, length: usize| Source { offset: offset as u64, length: length as u32 };
    let made = [
        (Method::Zeros, vec![], vec![], vec![0; PIECE]),
        (
            Method::Copy,
            vec![source(PIECE, 100), source(0, PIECE - 100)],
            vec![],
            [&old[PIECE..PIECE + 100], &old[..PIECE - 100]].concat(),
        ),
        (Method::Patched, vec![source(1000, PIECE)], patched, piece),
        (Method::Packed, vec![], pack(&text(55, PIECE)), text(55, PIECE)),
        (Method::Packed, vec![source(0, 2 * PIECE)], pack_after(&after, &old[..2 * PIECE], (3, 0, 2)), after.clone()),
        (Method::Stored, vec![], b"the end".to_vec(), b"the end".to_vec()),
    ];
    let (mut pieces, mut data, mut new) = (Vec::new(), Vec::new(), Vec::new());
    for (method, sources, of_it, bytes) in made {
        let (sha256, length, data_length) = (Digest::of(&bytes), bytes.len(), of_it.len());
        pieces.push(Piece { sha256, offset: 0, length, method, data_offset: 0, data_length, sources });
        data.extend(of_it);
        new.extend(bytes);
    }
    let directory = write_directory(&pieces, old.len() as u64, &mut pack);
    let length = directory.len();
    ([directory, data].concat(), length, new, old)
}

fn expand(file: &[u8], directory: usize, new_length: usize, old: &[u8]) -> Result<Vec<u8>, DeliveryError> {
    let directory = Directory::parse(&file[..directory], new_length as u64, file.len() as u64)?;
    let mut made = Vec::new();
    for piece in directory.pieces() {
        let mut source = Vec::new();
        for part in &piece.sources {
            source.extend_from_slice(&old[part.offset as usize..][..part.length as usize]);
        }
        let data = &file[piece.data_offset as usize..][..piece.data_length];
        apply(&piece, &source, data, &mut made)?;
    }
    Ok(made)
}

#[test]
fn a_patch_makes_the_artifact() {
    let (file, directory, new, old) = patch();
    assert!(expand(&file, directory, new.len(), &old).unwrap() == new);
}

#[test]
fn a_patch_that_does_not_fit_is_refused() {
    let (file, directory, new, old) = patch();
    expand(&file, directory, new.len() + 1, &old).unwrap_err();
    expand(&file[..file.len() - 1], directory, new.len(), &old).unwrap_err();
    // Whatever is changed: refused, or the same artifact.
    for at in (0..file.len()).filter(|at| *at < 60 || (*at < directory + 40 && at % 7 == 0) || at % 20_011 == 0) {
        let mut damaged = file.clone();
        damaged[at] ^= 0x41;
        if let Ok(made) = expand(&damaged, directory, new.len(), &old) {
            assert!(made == new, "{at}");
        }
    }
    // Another old artifact: a piece that is not right is not kept.
    let mut into = b"kept".to_vec();
    let parsed = Directory::parse(&file[..directory], new.len() as u64, file.len() as u64).unwrap();
    let piece = parsed.piece(2).unwrap();
    let data = &file[piece.data_offset as usize..][..piece.data_length];
    apply(&piece, &vec![1; PIECE], data, &mut into).unwrap_err();
    apply(&piece, &[], data, &mut into).unwrap_err();
    assert_eq!(into, b"kept");
    assert!(parsed.piece(6).is_none());
}

#[test]
fn lengths_in_a_directory_are_bounded() {
    let (file, directory, new, _) = patch();
    let parsed = Directory::parse(&file[..directory], new.len() as u64, file.len() as u64).unwrap();
    let pieces: Vec<Piece> = parsed.pieces().collect();
    let refused = |change: fn(&mut Vec<Piece>)| {
        let mut pieces = pieces.clone();
        change(&mut pieces);
        let directory = write_directory(&pieces, 3 * PIECE as u64, &mut pack);
        let data: usize = pieces.iter().map(|piece| piece.data_length).sum();
        Directory::parse(&directory, new.len() as u64, (directory.len() + data) as u64).unwrap_err().to_string()
    };
    let wrong = "a piece of the patch has a wrong length or place";
    assert_eq!(refused(|pieces| pieces[0].data_length = 1), wrong);
    assert_eq!(refused(|pieces| pieces[1].sources[0].length = 99), wrong);
    assert_eq!(refused(|pieces| pieces[2].sources[0].offset = 3 * PIECE as u64), wrong);
    assert_eq!(refused(|pieces| pieces[2].sources = vec![pieces[2].sources[0]; 5]), wrong);
    assert_eq!(refused(|pieces| pieces[3].data_length = PIECE + 1), wrong);
    assert_eq!(refused(|pieces| pieces[5].data_length = 6), wrong);
    assert_eq!(refused(|pieces| pieces[2].sources.clear()), wrong);
    let many = refused(|pieces| pieces[4].sources = vec![Source { offset: 0, length: 1 }; 17]);
    assert_eq!(many, "the directory is damaged");
    // A directory that says it is large is refused before it is unpacked.
    let mut bomb = file[..directory].to_vec();
    bomb[20] = 0x7f;
    let error = Directory::parse(&bomb, new.len() as u64, file.len() as u64).unwrap_err();
    assert_eq!(error.to_string(), "the directory is too long");
}

fn manifest(delivery: Value) -> Value {
    let mut manifest = serde_json::to_value(decisions::manifest("1.2.0", 12)).unwrap();
    manifest["artifacts"][0]["delivery"] = delivery;
    manifest
}

fn patch_ref() -> Value {
    let hash = "ab".repeat(32);
    json!({"from": {"version": "1.1.0", "length": 5, "sha256": hash}, "length": 789, "sha256": hash,
           "directory": {"length": 99, "sha256": hash}, "x-later": 1})
}

#[test]
fn a_manifest_lists_its_deliveries() {
    let file = json!({"length": 5, "sha256": "cd".repeat(32)});
    let whole = manifest(json!({"index": file, "pack": file, "patches": [patch_ref()], "x-later": {"a": 1}}));
    let read = Manifest::from_value(&whole).unwrap();
    assert_eq!(read.artifacts[0].delivery.as_ref().unwrap().patches[0].directory.length, 99);
    assert_eq!(Manifest::parse(&read.to_bytes().unwrap()).unwrap(), read);
    assert_eq!(serde_json::to_value(&read).unwrap(), whole);

    let refused = |change: fn(&mut Value)| {
        let mut value = manifest(json!({"index": file, "pack": file, "patches": [patch_ref()]}));
        change(&mut value["artifacts"][0]["delivery"]);
        Manifest::from_value(&value).unwrap_err().to_string()
    };
    let at = "manifest: `artifacts[0].delivery";
    assert_eq!(refused(|value| value["index"] = json!(null)), format!("{at}.index`: expected an object, found null"));
    assert_eq!(
        refused(|value| value["patches"][0]["directory"]["length"] = json!(790)),
        format!("{at}.patches[0].directory.length`: longer than the patch: the directory is its beginning")
    );
    assert_eq!(
        refused(|value| value["pack"]["length"] = json!(1_u64 << 40)),
        format!("{at}.pack.length`: too long: a file of a delivery is shorter than 2^40 bytes")
    );
    assert!(refused(|value| value["patches"] = json!(vec![patch_ref(); 17])).contains("16"));
}

#[test]
fn a_list_of_later_patches_comes_back() {
    let list = json!({"schema": 1, "artifact": "ef".repeat(32), "patches": [patch_ref()], "x-later": true});
    let read = PatchList::parse(&serde_json::to_vec(&list).unwrap()).unwrap();
    assert_eq!(PatchList::parse(&read.to_bytes().unwrap()).unwrap(), read);
    assert_eq!(serde_json::to_value(&read).unwrap(), list);
    let mut wrong = list.clone();
    wrong["patches"][0]["directory"]["length"] = json!(790);
    assert_eq!(
        PatchList::from_value(&wrong).unwrap_err().to_string(),
        "list of patches: `patches[0].directory.length`: longer than the patch: the directory is its beginning"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_are_refused_or_bounded(bytes in prop::collection::vec(any::<u8>(), 0..300), length in 0_u64..3_000_000) {
        let _ = read(&[b"TGI1", bytes.as_slice()].concat(), length, 1000);
        let mut directory = b"TGP1".to_vec();
        directory.extend(length.to_be_bytes());
        directory.extend(bytes);
        let _ = Directory::parse(&directory, length, directory.len() as u64);
    }
}
