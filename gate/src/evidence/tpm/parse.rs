//! Parses `TPMS_ATTEST` and `TPMT_SIGNATURE` (Trusted Platform Module Library, part 2: 10.12.12 and 11.3.4). Checks every length and
//! accepts no trailing bytes.

/// The maximum length of either, in bytes. A quote has fewer than 200; a signature by an RSA key of 8192 bits has 1,030.
const MAX_STRUCTURE: usize = 2048;
/// The same in base64url.
pub const MAX_ENCODED: usize = MAX_STRUCTURE.div_ceil(3) * 4;

/// `TPM_GENERATED_VALUE`: a restricted key signs this prefix only for structures that the TPM itself created.
const GENERATED: u32 = 0xff54_4347;
const ST_ATTEST_QUOTE: u16 = 0x8018;
const ALG_SHA256: u16 = 0x000b;
const ALG_RSASSA: u16 = 0x0014;
const ALG_ECDSA: u16 = 0x0018;
/// The maximum length of `TPML_PCR_SELECTION` (`HASH_COUNT` of any TPM).
const SELECTIONS: u32 = 16;

/// The verified fields of a quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The qualifying data.
    pub extra_data: Vec<u8>,
    /// The indexes of the quoted PCRs of the SHA-256 bank, in digest order.
    pub sha256_pcrs: Vec<u8>,
    /// The digest of their values.
    pub pcr_digest: Vec<u8>,
}

impl Quote {
    /// Parses a quote. `None` for anything else, and for quotes of other banks.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.u32()? != GENERATED || reader.u16()? != ST_ATTEST_QUOTE {
            return None;
        }
        // The name of the signer. The signature is verified with the enrolled key instead.
        reader.sized(68)?;
        let extra_data = reader.sized(64)?.to_vec();
        // TPMS_CLOCK_INFO: clock, resetCount, restartCount, safe; then the firmware's version.
        reader.take(8 + 4 + 4 + 1 + 8)?;
        let selections = reader.u32()?;
        if selections == 0 || selections > SELECTIONS {
            return None;
        }
        let mut sha256_pcrs = Vec::new();
        for _ in 0..selections {
            let bank = reader.u16()?;
            let size = usize::from(reader.u8()?);
            if size > 4 {
                return None;
            }
            for (octet, bits) in (0u8..).zip(reader.take(size)?) {
                for bit in (0..8u8).filter(|bit| bits & (1 << bit) != 0) {
                    // The digest would include a PCR of another bank.
                    let number = octet * 8 + bit;
                    if bank != ALG_SHA256 || number > 23 || sha256_pcrs.contains(&number) {
                        return None;
                    }
                    sha256_pcrs.push(number);
                }
            }
        }
        let pcr_digest = reader.sized(64)?.to_vec();
        reader.end()?;
        Some(Self { extra_data, sha256_pcrs, pcr_digest })
    }
}

/// A signature with SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuoteSignature {
    /// RSASSA-PKCS1-v1_5.
    RsaSsa(Vec<u8>),
    /// ECDSA on a curve of 256 bits: r and s, 32 bytes each.
    Ecdsa([u8; 64]),
}

impl QuoteSignature {
    /// Parses a signature. `None` for other schemes and hashes.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let scheme = reader.u16()?;
        if reader.u16()? != ALG_SHA256 {
            return None;
        }
        let signature = match scheme {
            ALG_RSASSA => Self::RsaSsa(reader.sized(1024)?.to_vec()),
            ALG_ECDSA => {
                let mut both = [0; 64];
                let (r, s) = both.split_at_mut(32);
                for half in [r, s] {
                    // Some TPMs omit leading zeros.
                    let number = reader.sized(32)?;
                    half.get_mut(32 - number.len()..)?.copy_from_slice(number);
                }
                Self::Ecdsa(both)
            }
            _ => return None,
        };
        reader.end()?;
        Some(signature)
    }
}

/// Reads big-endian numbers and length-prefixed bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// Bytes with a 16-bit length prefix (`TPM2B`).
    fn sized(&mut self, maximum: usize) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        if length > maximum { None } else { self.take(length) }
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote() -> Vec<u8> {
        let mut bytes = GENERATED.to_be_bytes().to_vec();
        bytes.extend(ST_ATTEST_QUOTE.to_be_bytes());
        bytes.extend([0, 2, 0, 11]);
        bytes.extend([0, 3, 1, 2, 3]);
        bytes.extend([0; 25]);
        bytes.extend([0, 0, 0, 1, 0, 11, 3, 0b1000_0001, 0, 0b1000_0000]);
        bytes.extend([0, 2, 9, 9]);
        bytes
    }

    #[test]
    fn parses_only_complete_quotes() {
        let bytes = quote();
        let attest = Quote::parse(&bytes).unwrap();
        assert_eq!(attest, Quote { extra_data: vec![1, 2, 3], sha256_pcrs: vec![0, 7, 23], pcr_digest: vec![9, 9] });
        for end in 0..bytes.len() {
            assert_eq!(Quote::parse(&bytes[..end]), None, "{end}");
        }
        assert_eq!(Quote::parse(&[&bytes[..], &[0]].concat()), None);
        // No changed byte causes a panic.
        for at in 0..bytes.len() {
            for value in [0, 1, 3, 127, 255] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = Quote::parse(&changed);
            }
        }
        let bank = bytes.len() - 10;
        let mut sha1 = bytes;
        sha1[bank + 1] = 4;
        assert_eq!(Quote::parse(&sha1), None);
    }

    #[test]
    fn parses_signatures_and_pads_numbers() {
        let mut bytes = vec![0, 0x18, 0, 11, 0, 1, 7];
        bytes.extend([0, 32]);
        bytes.extend([8; 32]);
        let QuoteSignature::Ecdsa(both) = QuoteSignature::parse(&bytes).unwrap() else { panic!() };
        assert_eq!((both[30], both[31], both[32]), (0, 7, 8));
        for end in 0..bytes.len() {
            assert_eq!(QuoteSignature::parse(&bytes[..end]), None);
        }
        assert_eq!(QuoteSignature::parse(&[0, 0x14, 0, 11, 0, 2, 1, 2]), Some(QuoteSignature::RsaSsa(vec![1, 2])));
        for other in [&[0, 0x14, 0, 4, 0, 0][..], &[0, 0x16, 0, 11, 0, 0], &[0, 0x14, 0, 11, 0, 2, 1, 2, 3]] {
            assert_eq!(QuoteSignature::parse(other), None);
        }
    }
}
