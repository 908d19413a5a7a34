//! Records with a checksum: JSON objects whose last field, `sum`, is the SHA-256 of all bytes
//! before it. Records that earlier versions wrote have none.
//! Does not know what records say.

use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::files;
use crate::identity::Digest;
use crate::user;

/// What stands before and after the sum.
const BEFORE: &[u8] = b",\"sum\":\"";
const AFTER: &[u8] = b"\"}";

/// Hexadecimal digits of a sum.
const DIGITS: usize = 64;

/// The bytes of a record. It must be a struct of named fields, at least one of them present.
///
/// # Panics
/// The record is no JSON object.
#[must_use]
pub fn to_bytes<T: Serialize>(record: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(record).expect("invariant: a record is plain data");
    assert_eq!(bytes.pop(), Some(b'}'), "invariant: a record is a JSON object");
    let sum = Digest::of(&bytes).hex();
    for part in [BEFORE, sum.as_bytes(), AFTER, b"\n"] {
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Reads a record. `T` must refuse unknown fields: a damaged `sum` would pass for one.
///
/// # Errors
/// It is damaged, or something else.
pub fn from_bytes<T: DeserializeOwned>(mut bytes: Vec<u8>) -> Result<T, String> {
    if let Some(body) = body(&bytes)? {
        bytes.truncate(body);
        bytes.push(b'}');
    }
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

/// The record in a file that this program wrote. `None`: there is no such file.
///
/// # Errors
/// It is damaged, something else, or larger than `limit`.
pub fn read<T: DeserializeOwned>(path: &Path, limit: u64) -> io::Result<Option<T>> {
    match files::read_own(path, limit) {
        Ok(bytes) => from_bytes(bytes).map(Some).map_err(io::Error::other),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Changes the user's own record in a file while nobody else does; one that is not there yet begins
/// empty.
///
/// # Errors
/// As [`read`]; it cannot be locked or written, then it is as it was.
pub fn change<T: Serialize + DeserializeOwned + Default, R>(
    path: &Path,
    limit: u64,
    change: impl FnOnce(&mut T) -> R,
) -> io::Result<R> {
    let lock = files::create_own(&path.with_extension("lock"))?;
    lock.lock()?;
    let mut record = read(path, limit)?.unwrap_or_default();
    let result = change(&mut record);
    user::write_private(path, &to_bytes(&record))?;
    Ok(result)
}

/// Whether these bytes carry a sum; an earlier version wrote those that do not.
#[must_use]
pub fn has_sum(bytes: &[u8]) -> bool {
    !matches!(body(bytes), Ok(None))
}

/// Length of what the sum is of; `None`: there is none.
fn body(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(rest) = bytes.trim_ascii_end().strip_suffix(AFTER) else { return Ok(None) };
    let Some(at) = rest.len().checked_sub(DIGITS) else { return Ok(None) };
    let (before, sum) = rest.split_at(at);
    let Some(body) = before.strip_suffix(BEFORE) else { return Ok(None) };
    if Digest::of(body).hex().as_bytes() != sum {
        return Err("its bytes do not have its checksum".to_owned());
    }
    Ok(Some(body.len()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Record {
        name: String,
        figure: f64,
    }

    fn record() -> Record {
        Record { name: "a\"}".into(), figure: 0.125 }
    }

    #[test]
    fn a_record_reads_back_with_and_without_a_sum() {
        let bytes = to_bytes(&record());
        assert!(has_sum(&bytes));
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        // printf '{"name":"a\\"}","figure":0.125' | sha256sum
        let sum = "32c4f5a0280bb1b878a2871ced5b61138d46b06aa64826638ac5b35f266dd3f4";
        assert_eq!(value["sum"], sum);
        assert_eq!(from_bytes::<Record>(bytes).unwrap(), record());
        let old = serde_json::to_vec_pretty(&record()).unwrap();
        assert!(!has_sum(&old));
        assert_eq!(from_bytes::<Record>(old).unwrap(), record());
    }

    #[test]
    fn no_bit_may_turn_and_no_byte_be_lost() {
        let whole = to_bytes(&record());
        for at in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            // White space at the end says nothing.
            let blank = at / 8 + 1 == whole.len() && bytes[at / 8].is_ascii_whitespace();
            assert!(blank || from_bytes::<Record>(bytes).is_err(), "bit {at}");
        }
        for length in 0..whole.len() - 1 {
            assert!(from_bytes::<Record>(whole[..length].to_vec()).is_err(), "{length} bytes");
        }
    }
}
