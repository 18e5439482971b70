//! Checks the content of a file: whether it begins as its media type requires, and whether it can be read to its end.
//!
//! A file that was truncated or damaged before it was hashed has the right hash but is useless; only reading it through shows
//! that.

use std::io::{self, BufReader, Read, Seek as _};

use flate2::read::MultiGzDecoder;

/// The first bytes of formats that have a signature.
const SIGNATURES: [(&str, &[u8]); 5] = [
    ("application/gzip", &[0x1f, 0x8b]),
    ("application/zstd", &[0x28, 0xb5, 0x2f, 0xfd]),
    ("application/x-xz", &[0xfd, b'7', b'z', b'X', b'Z', 0]),
    ("application/x-bzip2", b"BZh"),
    ("application/zip", b"PK"),
];
/// Maximum unpacked size; anything larger is treated as a decompression bomb.
const MOST: u64 = 1 << 40;
/// Types of packed files that are not unpacked.
const UNCHECKED: [&str; 4] = ["application/x-bzip2", "application/x-tar", "application/x-xz", "application/zip"];

/// What the first bytes of a file say of the media type that the manifest gives it.
pub(super) enum Beginning {
    /// The file begins as its media type requires.
    Right,
    /// It does not; this is the detected format, if known.
    Wrong(Option<&'static str>),
    /// The media type has no signature.
    Unknown,
}

/// Compares a file's first bytes with its media type.
pub(super) fn beginning(media_type: &str, mut file: impl Read) -> io::Result<Beginning> {
    let Some((_, signature)) = SIGNATURES.iter().find(|(kind, _)| *kind == media_type) else {
        return Ok(Beginning::Unknown);
    };
    let mut start = Vec::new();
    file.by_ref().take(8).read_to_end(&mut start)?;
    if start.starts_with(signature) {
        return Ok(Beginning::Right);
    }
    Ok(Beginning::Wrong(SIGNATURES.iter().find(|(_, other)| start.starts_with(other)).map(|(kind, _)| *kind)))
}

/// What reading a file to its end showed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is whole, and unpacks to so many bytes.
    Reached(u64),
    /// It is packed, but not as one of the types that are unpacked here.
    Unchecked,
    /// Files of this type are not packed.
    NotPacked,
}

/// Unpacks a file to its end and keeps nothing.
///
/// # Errors
///
/// What is wrong with the file.
pub(super) fn unpacked(media_type: &str, file: impl Read + io::Seek) -> io::Result<End> {
    let length = match media_type {
        "application/gzip" => drain(MultiGzDecoder::new(BufReader::new(file)))?,
        "application/zstd" => zstd(BufReader::new(file))?,
        "application/json" => {
            let mut reader = BufReader::new(file);
            serde_json::from_reader::<_, serde::de::IgnoredAny>(&mut reader).map_err(io::Error::from)?;
            reader.stream_position()?
        }
        other if UNCHECKED.contains(&other) => return Ok(End::Unchecked),
        _ => return Ok(End::NotPacked),
    };
    Ok(End::Reached(length))
}

fn drain(mut reader: impl Read) -> io::Result<u64> {
    let length = io::copy(&mut reader.by_ref().take(MOST), &mut io::sink())?;
    if length == MOST {
        return Err(bad(format!("it unpacks to {MOST} bytes or more")));
    }
    Ok(length)
}

/// A stream of frames, of which some may be there to be skipped.
fn zstd(mut file: impl io::BufRead) -> io::Result<u64> {
    use ruzstd::decoding::StreamingDecoder;
    use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
    let mut length = 0;
    let mut frames = 0;
    while !file.fill_buf()?.is_empty() {
        let mut decoder = match StreamingDecoder::new(&mut file) {
            Ok(decoder) => decoder,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let skipped = io::copy(&mut file.by_ref().take(u64::from(length)), &mut io::sink())?;
                if skipped < u64::from(length) {
                    return Err(bad("it ends within a frame".into()));
                }
                continue;
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        length += drain(&mut decoder)?;
        frames += 1;
        let decoder = decoder.into_frame_decoder();
        if let Some(written) = decoder.get_checksum_from_data()
            && decoder.get_calculated_checksum() != Some(written)
        {
            return Err(bad("the checksum of a frame is wrong".into()));
        }
    }
    if frames == 0 {
        return Err(bad("it holds no frame".into()));
    }
    Ok(length)
}

fn bad(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstandard(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn read(kind: &str, bytes: &[u8]) -> Result<End, String> {
        unpacked(kind, Cursor::new(bytes)).map_err(|error| error.to_string())
    }

    #[test]
    fn packed_files_are_read_to_their_end() {
        let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let length = bytes.len() as u64;
        for (kind, packed) in [("application/gzip", gzip(&bytes)), ("application/zstd", zstandard(&bytes))] {
            assert_eq!(read(kind, &packed), Ok(End::Reached(length)), "{kind}");
            assert!(read(kind, &packed[..packed.len() / 2]).is_err(), "{kind}, cut off");
            let mut damaged = packed.clone();
            damaged[packed.len() / 2] ^= 0x10;
            assert!(read(kind, &damaged).is_err(), "{kind}, damaged");
        }
        let twice = [zstandard(b"one"), zstandard(b"two")].concat();
        assert_eq!(read("application/zstd", &twice), Ok(End::Reached(6)));
        for kind in UNCHECKED {
            assert_eq!(read(kind, b"anything"), Ok(End::Unchecked), "{kind}");
        }
        assert_eq!(read("application/octet-stream", b"anything"), Ok(End::NotPacked));
        assert_eq!(read("application/json", b"{\"a\": [1, 2]}"), Ok(End::Reached(13)));
        assert!(read("application/json", b"{\"a\": [1, 2}").is_err());
    }

    #[test]
    fn what_begins_otherwise_is_named() {
        let looks = |kind: &str, bytes: &[u8]| beginning(kind, bytes).unwrap();
        assert!(matches!(looks("application/gzip", &gzip(b"x")), Beginning::Right));
        assert!(matches!(looks("application/zstd", &gzip(b"x")), Beginning::Wrong(Some("application/gzip"))));
        assert!(matches!(looks("application/zstd", b"plain"), Beginning::Wrong(None)));
        assert!(matches!(looks("application/octet-stream", b"plain"), Beginning::Unknown));
    }
}
