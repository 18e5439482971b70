//! `TPMS_ATTEST` and `TPMT_SIGNATURE` as the TPM writes them (Trusted Platform Module Library, part 2: 10.12.12 and 11.3.4), read with
//! every length checked and nothing left over.

/// The longest of either, in bytes: a quote is below 200, a signature with an RSA key of 8192 bits 1,030.
pub const LONGEST: usize = 2048;

/// `TPM_GENERATED_VALUE`: what only a TPM's own structures begin with when a restricted key signs them.
const GENERATED: u32 = 0xff54_4347;
const ST_ATTEST_QUOTE: u16 = 0x8018;
const ALG_SHA256: u16 = 0x000b;
const ALG_RSASSA: u16 = 0x0014;
const ALG_ECDSA: u16 = 0x0018;
/// `TPML_PCR_SELECTION` holds no more (`HASH_COUNT` of any TPM).
const SELECTIONS: u32 = 16;

/// What a quote says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attest {
    /// The qualifying data that was asked for.
    pub extra_data: Vec<u8>,
    /// The numbers of the registers of the SHA-256 bank, in the order in which they were digested.
    pub sha256_registers: Vec<u8>,
    /// The digest of their values.
    pub pcr_digest: Vec<u8>,
}

impl Attest {
    /// Reads a quote. `None` for anything else, and for quotes of other banks.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.u32()? != GENERATED || reader.u16()? != ST_ATTEST_QUOTE {
            return None;
        }
        // The name of the signer: who signed is known by its key.
        reader.sized(68)?;
        let extra_data = reader.sized(64)?.to_vec();
        // TPMS_CLOCK_INFO: clock, resetCount, restartCount, safe; then the firmware's version.
        reader.take(8 + 4 + 4 + 1 + 8)?;
        let selections = reader.u32()?;
        if selections == 0 || selections > SELECTIONS {
            return None;
        }
        let mut sha256_registers = Vec::new();
        for _ in 0..selections {
            let bank = reader.u16()?;
            let size = usize::from(reader.u8()?);
            if size > 4 {
                return None;
            }
            for (octet, bits) in (0u8..).zip(reader.take(size)?) {
                for bit in (0..8u8).filter(|bit| bits & (1 << bit) != 0) {
                    // A register of another bank would be part of the digest.
                    let number = octet * 8 + bit;
                    if bank != ALG_SHA256 || number > 23 || sha256_registers.contains(&number) {
                        return None;
                    }
                    sha256_registers.push(number);
                }
            }
        }
        let pcr_digest = reader.sized(64)?.to_vec();
        reader.end()?;
        Some(Self { extra_data, sha256_registers, pcr_digest })
    }
}

/// A signature with SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// RSASSA-PKCS1-v1_5.
    RsaSsa(Vec<u8>),
    /// ECDSA on a curve of 256 bits: r and s, 32 bytes each.
    Ecdsa([u8; 64]),
}

impl Signature {
    /// Reads a signature. `None` for other schemes and hashes.
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
                    // Some TPMs leave out zeros at the front.
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

/// Big-endian, and never beyond the end.
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

    /// What a length of 16 bits stands before (`TPM2B`).
    fn sized(&mut self, most: usize) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        if length > most { None } else { self.take(length) }
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
    fn a_quote_is_read_and_nothing_that_is_cut_or_longer() {
        let bytes = quote();
        let attest = Attest::parse(&bytes).unwrap();
        assert_eq!(
            attest,
            Attest { extra_data: vec![1, 2, 3], sha256_registers: vec![0, 7, 23], pcr_digest: vec![9, 9] }
        );
        for end in 0..bytes.len() {
            assert_eq!(Attest::parse(&bytes[..end]), None, "{end}");
        }
        assert_eq!(Attest::parse(&[&bytes[..], &[0]].concat()), None);
        // No change of a byte makes it panic.
        for at in 0..bytes.len() {
            for value in [0, 1, 3, 127, 255] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = Attest::parse(&changed);
            }
        }
        let bank = bytes.len() - 10;
        let mut sha1 = bytes;
        sha1[bank + 1] = 4;
        assert_eq!(Attest::parse(&sha1), None);
    }

    #[test]
    fn signatures_are_read_and_filled_up() {
        let mut bytes = vec![0, 0x18, 0, 11, 0, 1, 7];
        bytes.extend([0, 32]);
        bytes.extend([8; 32]);
        let Signature::Ecdsa(both) = Signature::parse(&bytes).unwrap() else { panic!() };
        assert_eq!((both[30], both[31], both[32]), (0, 7, 8));
        for end in 0..bytes.len() {
            assert_eq!(Signature::parse(&bytes[..end]), None);
        }
        assert_eq!(Signature::parse(&[0, 0x14, 0, 11, 0, 2, 1, 2]), Some(Signature::RsaSsa(vec![1, 2])));
        for other in [&[0, 0x14, 0, 4, 0, 0][..], &[0, 0x16, 0, 11, 0, 0], &[0, 0x14, 0, 11, 0, 2, 1, 2, 3]] {
            assert_eq!(Signature::parse(other), None);
        }
    }
}
