//! Reading receipts from where they are kept: as a stream, each looked at by itself.

use std::sync::Arc;

use futures::stream::{StreamExt as _, TryStreamExt as _};
use tidegate_model::digest::Digest;
use tidegate_model::name::Name;
use tidegate_model::receipt::{MAX_LENGTH, Receipt, SignedReceipt};

use super::count::Why;
use super::enrolments::{Enrolments, Held};
use crate::error::{Error, Kind, Result};
use crate::publish::Remote;

/// How many are read and verified at once.
const AT_A_TIME: usize = 64;

/// A receipt that is a device's word: the device's number among the enrolments, and what it says.
type Word = (u32, Receipt);

/// Reads all receipts below a key of a place, such as `receipts/stable`. `told` is given each object's name and what came of it, in no order.
///
/// # Errors
///
/// If the place cannot be read: then nothing can be said about anybody.
pub async fn read(
    place: &Remote,
    below: &str,
    enrolments: &Arc<Enrolments>,
    mut told: impl FnMut(&str, Result<&Word, Why>),
) -> Result<()> {
    let looked_at = place.objects(below).map(|listed| async {
        let (name, length) = listed?;
        let (place, enrolments) = (place.clone(), Arc::clone(enrolments));
        // Verifying takes longer than reading: as tasks, so that all processors do it.
        let looked = tokio::spawn(async move { look(&place, name, length, &enrolments).await });
        looked.await.map_err(|error| Error::bug("reading a receipt ended early").with_source(error))?
    });
    let mut looked_at = std::pin::pin!(looked_at.buffer_unordered(AT_A_TIME));
    while let Some((name, found)) = looked_at.try_next().await? {
        match found {
            Some(Ok(word)) => told(&name, Ok(&word)),
            Some(Err(why)) => told(&name, Err(why)),
            None => {}
        }
    }
    Ok(())
}

/// Reads one; `None` if it has gone since it was listed.
async fn look(
    place: &Remote,
    name: String,
    length: u64,
    enrolments: &Enrolments,
) -> Result<(String, Option<Result<Word, Why>>)> {
    if !is_name(&name) {
        return Ok((name, Some(Err(Why::Name))));
    }
    let limit = MAX_LENGTH as u64;
    if length > limit {
        return Ok((name, Some(Err(Why::Length))));
    }
    let found = match place.read_listed(&name, limit).await {
        Ok(found) => found.map(|bytes| check(&name, &bytes, enrolments)),
        // It grew.
        Err(error) if error.kind() == Kind::Trust => Some(Err(Why::Length)),
        Err(error) => return Err(error),
    };
    Ok((name, found))
}

/// Whether an object's name is one that a receipt can have: `receipts/CHANNEL/PRODUCT/SEQUENCE/SHA256.json`.
fn is_name(name: &str) -> bool {
    let mut parts = name.split('/');
    let (Some("receipts"), Some(channel), Some(product), Some(sequence), Some(file), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let names = [channel, product].into_iter().all(|name| name.parse::<Name>().is_ok());
    names
        && sequence.parse::<u64>().is_ok_and(|number| number.to_string() == sequence)
        && file.strip_suffix(".json").is_some_and(|hash| hash.parse::<Digest>().is_ok())
}

/// Whether what is kept under a name is the word of a device that is enrolled; whether it can be true is not asked here.
///
/// # Errors
///
/// With the first thing that stands against it.
pub fn check(name: &str, bytes: &[u8], enrolments: &Enrolments) -> Result<Word, Why> {
    let signed = SignedReceipt::parse(bytes).map_err(|_| Why::Form)?;
    if signed.object_name().ok().as_deref() != Some(name) {
        return Err(Why::Misnamed);
    }
    let (device, id, key) = match enrolments.holder(&signed.keyid) {
        Held::By { device, id, key } => (device, id, key),
        Held::Disabled => return Err(Why::Disabled),
        Held::Shared => return Err(Why::SharedKey),
        Held::Nobody => return Err(Why::UnknownKey),
    };
    // Whose salted hash it is cannot be told when the salt has changed since. Whose key it is, can.
    let says = &signed.receipt.device;
    if says != id && says.as_str().parse::<Digest>().is_err() {
        return Err(Why::OtherDevice);
    }
    if !signed.verify(&key) {
        return Err(Why::Signature);
    }
    Ok((device, signed.receipt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_receipts_can_have_are_read() {
        let hash = "0".repeat(64);
        assert!(is_name(&format!("receipts/stable/os/12/{hash}.json")));
        for name in [
            format!("receipts/stable/os/12/{hash}"),
            format!("receipts/stable/os/12/{}.json", &hash[1..]),
            format!("receipts/stable/os/12/{}A.json", &hash[1..]),
            format!("receipts/stable/os/012/{hash}.json"),
            format!("receipts/stable/os/-1/{hash}.json"),
            format!("receipts/stable/OS/12/{hash}.json"),
            format!("receipts/stable/os/12/more/{hash}.json"),
            format!("receipts/stable/os/{hash}.json"),
            format!("other/stable/os/12/{hash}.json"),
            "receipts".into(),
            String::new(),
        ] {
            assert!(!is_name(&name), "{name}");
        }
    }
}
