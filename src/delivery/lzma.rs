//! LZMA, encoding.

use std::io::Write as _;

use lzma_rust2::{DICT_SIZE_MIN, EncodeMode, LzmaOptions, LzmaWriter, MfType};

use crate::error::{Error, Result};

/// How bytes are modelled: bits of the byte before, bits of the position for literals, and for matches.
pub(super) type Properties = (u32, u32, u32);

/// For programs, text and tables.
pub(super) const MIXED: Properties = (3, 0, 2);
/// For differences and new bytes in short runs.
pub(super) const BYTES: Properties = (0, 0, 0);

/// Packs bytes as `unpack_after` of the model reads them. They may refer to `before`.
pub(super) fn pack_after(bytes: &[u8], before: &[u8], properties: Properties) -> Result<Vec<u8>> {
    // The position of the first byte is a multiple of 16 to the decoder.
    let before = before.get(before.len() % 16..).unwrap_or_default();
    let preset_dict = (!before.is_empty()).then(|| before.to_vec());
    let dict_size = (bytes.len() + before.len()).next_power_of_two() as u32;
    encode(bytes, properties, LzmaOptions { preset_dict, dict_size, ..LzmaOptions::default() })
}

/// Packs bytes by themselves.
pub(super) fn pack(bytes: &[u8], properties: Properties) -> Result<Vec<u8>> {
    pack_after(bytes, &[], properties)
}

/// Packs a chunk, in three quarters of the time for half a percent more bytes: there are many.
pub(super) fn pack_chunk(bytes: &[u8]) -> Result<Vec<u8>> {
    let dict_size = bytes.len().next_power_of_two() as u32;
    encode(
        bytes,
        MIXED,
        LzmaOptions { dict_size, nice_len: 32, mf: MfType::Hc4, depth_limit: 8, ..LzmaOptions::default() },
    )
}

fn encode(bytes: &[u8], (lc, lp, pb): Properties, options: LzmaOptions) -> Result<Vec<u8>> {
    let failed = |error| Error::bug("LZMA cannot be written").with_source(error);
    let dict_size = options.dict_size.max(DICT_SIZE_MIN);
    let options = LzmaOptions { lc, lp, pb, dict_size, mode: EncodeMode::Normal, ..options };
    let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, false).map_err(failed)?;
    writer.write_all(bytes).map_err(failed)?;
    let mut packed = writer.finish().map_err(failed)?;
    // The first byte is always 0; so are those that are read behind the end.
    if let Some(first) = packed.first_mut() {
        *first = (lc + 9 * (lp + 5 * pb)) as u8;
    }
    let end = packed.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    packed.truncate(end.max(1));
    Ok(packed)
}
