//! Files of deliveries, made simply: every piece of a patch comes from its own place in the old image.

use std::io::Write as _;

use fastcdc::v2020::FastCDC;
use lzma_rust2::{LzmaOptions, LzmaWriter};
use serde_json::{Value, json};
use tidegate_model::delivery::index::{AVERAGE_CHUNK, IndexRecord, MAX_CHUNK, MIN_CHUNK, write_index};
use tidegate_model::delivery::patch::{PIECE, Step, write_directory, write_patched};
use tidegate_model::delivery::{DeliveryError, Kind, Method, Piece, Source};
use tidegate_model::digest::Digest;
use tidegate_model::layout::delivery_path;

use crate::fleet::name;
use crate::simulator::Simulator;

/// LZMA as it is in deliveries.
fn pack(bytes: &[u8]) -> Vec<u8> {
    let options = LzmaOptions { dict_size: 1 << 20, ..LzmaOptions::with_preset(1) };
    let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, false).unwrap();
    writer.write_all(bytes).unwrap();
    let mut packed = writer.finish().unwrap();
    packed[0] = u8::try_from(options.lc + 9 * (options.lp + 5 * options.pb)).unwrap();
    packed.truncate(packed.iter().rposition(|&byte| byte != 0).unwrap() + 1);
    packed
}

/// An artifact's files of a delivery.
#[derive(Clone)]
pub struct Made {
    pub index: Vec<u8>,
    pub pack: Vec<u8>,
    /// The patch, and the length of its directory.
    pub patch: Option<(Vec<u8>, usize)>,
}

/// Cuts an image into an index and a pack, and makes a patch from an old one.
pub fn made(old: Option<&[u8]>, new: &[u8]) -> Made {
    let mut records: Vec<IndexRecord> = Vec::new();
    let mut all = Vec::new();
    for chunk in FastCDC::new(new, MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK) {
        let bytes = &new[chunk.offset..chunk.offset + chunk.length];
        let (sha256, length) = (Digest::of(bytes), u32::try_from(chunk.length).unwrap());
        if let Some(again) = records.iter().find(|record| record.sha256 == sha256) {
            records.push(*again);
            continue;
        }
        let packed = pack(bytes);
        let offset = all.len() as u64;
        if bytes.iter().all(|byte| *byte == 0) {
            records.push(IndexRecord { sha256, length, packed: 0, offset });
            continue;
        }
        all.extend_from_slice(if packed.len() < bytes.len() { &packed } else { bytes });
        records.push(IndexRecord { sha256, length, packed: u32::try_from(all.len() as u64 - offset).unwrap(), offset });
    }
    let index = write_index(&records, &mut |bytes| Ok::<_, DeliveryError>(pack(bytes))).unwrap();
    Made { index, pack: all, patch: old.map(|old| patch(old, new)) }
}

/// A patch of which every piece comes from the same place of the old image, and the length of its directory.
pub fn patch(old: &[u8], new: &[u8]) -> (Vec<u8>, usize) {
    let (mut pieces, mut data) = (Vec::new(), Vec::new());
    for (index, bytes) in new.chunks(PIECE).enumerate() {
        let at = index * PIECE;
        let length = bytes.len();
        let from = old.get(at..at + length);
        let source = vec![Source { offset: at as u64, length: u32::try_from(length).unwrap() }];
        let (method, sources, packed) = match from {
            _ if bytes.iter().all(|byte| *byte == 0) => (Method::Zeros, vec![], vec![]),
            Some(from) if from == bytes => (Method::Copy, source, vec![]),
            Some(from) if from.iter().zip(bytes).filter(|(old, new)| old != new).count() < length / 4 => {
                let differences: Vec<u8> = bytes.iter().zip(from).map(|(new, old)| new.wrapping_sub(*old)).collect();
                let step = Step { taken: u32::try_from(length).unwrap(), added: 0, moved: 0 };
                let data = write_patched(&[step], &differences, &[], &mut |bytes| pack(bytes)).unwrap();
                (Method::Patched, source, data)
            }
            _ if pack(bytes).len() < length => (Method::Packed, vec![], pack(bytes)),
            _ => (Method::Stored, vec![], bytes.to_vec()),
        };
        pieces.push(Piece {
            sha256: Digest::of(bytes),
            offset: at as u64,
            length,
            method,
            data_offset: 0,
            data_length: packed.len(),
            sources,
        });
        data.extend(packed);
    }
    let directory = write_directory(&pieces, old.len() as u64, &mut |bytes| pack(bytes));
    ([directory.as_slice(), &data].concat(), directory.len())
}

fn file(bytes: &[u8]) -> Value {
    json!({"length": bytes.len(), "sha256": Digest::of(bytes)})
}

/// Publishes the files of a delivery. Returns how a manifest lists them.
pub fn publish(sim: &mut Simulator, made: &Made, old: &[u8]) -> Value {
    let mut put = |kind, bytes: &[u8]| {
        let path = delivery_path(&name("stable"), kind, &Digest::of(bytes));
        sim.files.insert(format!("targets/{path}"), bytes.to_vec());
    };
    put(Kind::Index, &made.index);
    put(Kind::Pack, &made.pack);
    let mut listed = json!({"index": file(&made.index), "pack": file(&made.pack)});
    if let Some((patch, directory)) = &made.patch {
        put(Kind::Patch, patch);
        listed["patches"] = json!([patch_entry(patch, *directory, old)]);
    }
    listed
}

pub fn patch_entry(patch: &[u8], directory: usize, old: &[u8]) -> Value {
    let mut entry = file(patch);
    entry["directory"] = file(&patch[..directory]);
    entry["from"] = json!({"version": "1.0.0", "length": old.len(), "sha256": Digest::of(old)});
    entry
}

/// Bytes that do not repeat.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}
