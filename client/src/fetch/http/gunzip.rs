//! Decompression of gzip (RFC 1952).

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::DeflateDecoder;

use super::pace::Paced;
use crate::fetch::error::FetchError;

/// The longest header of a member, in bytes.
const MAX_HEADER: usize = 1024;
/// The most that a file may grow when it is decompressed: this many times, beyond its first bytes. Cohort maps and snapshots grow up to
/// fifteen times.
pub(super) const GROWTH: u64 = 100;
/// The first bytes, for which growth does not count.
const GROWN: u64 = 64 * 1024;
/// The flags of optional parts of the header.
const HEADER_CRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;

/// Decompresses one gzip member and checks that nothing follows it.
///
/// Reads its source to the end, so that the connection can be reused. Header and checksum are read here, because the tables behind flate2's
/// checksum are 20 kB long.
pub(super) struct Gunzip {
    decoder: DeflateDecoder<BufReader<Paced>>,
    checksum: u32,
    has_begun: bool,
    has_ended: bool,
    growth: u64,
}

impl Gunzip {
    /// Fails if it grows by much more than so many times.
    pub(super) fn new(source: BufReader<Paced>, growth: u64) -> Self {
        Self { decoder: DeflateDecoder::new(source), checksum: u32::MAX, has_begun: false, has_ended: false, growth }
    }

    fn begin(&mut self) -> io::Result<()> {
        self.has_begun = true;
        let mut header = self.decoder.get_mut().take(MAX_HEADER as u64);
        let mut fixed = [0; 10];
        header.read_exact(&mut fixed)?;
        let [0x1f, 0x8b, 8, flags, ..] = fixed else { return Err(io::Error::other("it has no header")) };
        if flags & EXTRA != 0 {
            let mut length = [0; 2];
            header.read_exact(&mut length)?;
            io::copy(&mut (&mut header).take(u16::from_le_bytes(length).into()), &mut io::sink())?;
        }
        for text in [NAME, COMMENT] {
            if flags & text != 0 {
                header.skip_until(0)?;
            }
        }
        if flags & HEADER_CRC != 0 {
            header.read_exact(&mut [0; 2])?;
        }
        Ok(())
    }

    /// Reads the checksum and the length, behind which nothing may follow.
    fn end(&mut self) -> io::Result<()> {
        self.has_ended = true;
        let written = self.decoder.total_out();
        let source = self.decoder.get_mut();
        let mut trailer = [0; 8];
        source.read_exact(&mut trailer)?;
        if u64::from_le_bytes(trailer) != u64::from(!self.checksum) | written << 32 {
            return Err(io::Error::other("its checksum or its length is wrong"));
        }
        if source.fill_buf()?.is_empty() { Ok(()) } else { Err(io::Error::other("bytes follow it")) }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.has_begun {
            self.begin()?;
        }
        if self.has_ended {
            return Ok(0);
        }
        let count = self.decoder.read(buffer)?;
        if self.decoder.total_out() > GROWN + self.growth * self.decoder.get_ref().get_ref().received() {
            return Err(io::Error::other("it grows too much"));
        }
        if count == 0 && !buffer.is_empty() {
            self.end()?;
        }
        self.checksum = buffer.iter().take(count).fold(self.checksum, |sum, byte| crc(sum, *byte));
        Ok(count)
    }
}

/// CRC-32 of one more byte, bit by bit.
fn crc(sum: u32, byte: u8) -> u32 {
    (0..8).fold(sum ^ u32::from(byte), |sum, _| sum >> 1 ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
}

impl Read for Gunzip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill(buffer).map_err(|e| {
            // Errors of the source are wrapped; those of the decoder are not.
            if e.get_ref().and_then(|e| e.downcast_ref::<FetchError>()).is_some() {
                return e;
            }
            let url = self.decoder.get_ref().get_ref().url().to_owned();
            io::Error::other(FetchError::Protocol { url, reason: format!("broken gzip: {e}") })
        })
    }
}
