//! Files in the safetensors format, array by array: an eight byte length, a JSON header, the
//! values. Reads no more than a piece at a time. Does not know what the arrays are for.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::files;

/// Longest header that is read; the format allows no more.
const LONGEST_HEADER: u64 = 100_000_000;
/// Bytes that are compared at a time; a multiple of every value's size.
const PIECE: u64 = 1 << 18;

/// The first array, by name, that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArrayDifference {
    pub array: String,
    /// Type and shape, `F32 [4, 8]`; `None`: the file has no such array.
    pub before: Option<String>,
    pub now: Option<String>,
    /// How its values differ, where types and shapes agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<ValueDifference>,
    /// Arrays that differ, and arrays in both files together.
    pub arrays: (usize, usize),
}

/// How many values of an array differ, and by how much.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValueDifference {
    pub differing: u64,
    pub of: u64,
    /// Place of the first one, counted from 0, row by row.
    pub first: u64,
    /// Over the values that are finite in both files; `None`: there is no such pair, or the type
    /// is not one that is read here.
    pub largest: Option<f64>,
    /// Differing values of which one is infinite or no number.
    pub not_finite: u64,
}

/// One array as the header tells of it.
#[derive(Debug, Deserialize)]
struct Array {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Array {
    fn form(&self) -> String {
        format!("{} {:?}", self.dtype, self.shape)
    }

    /// How many values it has; `None`: more than can be.
    fn count(&self) -> Option<u64> {
        self.shape.iter().try_fold(1, |n: u64, side| n.checked_mul(*side))
    }

    fn bytes(&self) -> u64 {
        self.data_offsets.1 - self.data_offsets.0
    }
}

/// A file whose header was read.
pub struct Arrays {
    file: std::fs::File,
    /// Where the values begin.
    start: u64,
    arrays: BTreeMap<String, Array>,
}

/// Opens a file of arrays; `None`: it is none, or a damaged one.
///
/// # Errors
/// The disk fails.
pub fn open(path: &Path) -> io::Result<Option<Arrays>> {
    let file = files::open(path).map_err(|e| files::named(path, &e))?;
    let size = file.metadata()?.len();
    let mut length = [0; 8];
    if size < 10 {
        return Ok(None);
    }
    file.read_exact_at(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER || length > size - 8 {
        return Ok(None);
    }
    let mut header = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut header, 8)?;
    let Ok(mut found) = serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(&header)
    else {
        return Ok(None);
    };
    found.remove("__metadata__");
    let start = 8 + length;
    let mut arrays = BTreeMap::new();
    for (name, value) in found {
        match serde_json::from_value::<Array>(value) {
            Ok(array)
                if array.data_offsets.0 <= array.data_offsets.1
                    && array.data_offsets.1 <= size - start
                    && array.count().is_some() =>
            {
                arrays.insert(name, array)
            }
            _ => return Ok(None),
        };
    }
    Ok((!arrays.is_empty()).then_some(Arrays { file, start, arrays }))
}

/// The first array that differs.
///
/// # Errors
/// The disk fails.
pub fn first_difference(before: &Arrays, now: &Arrays) -> io::Result<Option<ArrayDifference>> {
    let mut names: Vec<&String> = before.arrays.keys().chain(now.arrays.keys()).collect();
    names.sort();
    names.dedup();
    let mut first = None;
    let mut differing = 0;
    for name in &names {
        let (old, new) = (before.arrays.get(*name), now.arrays.get(*name));
        let values = match (old, new) {
            (Some(a), Some(b)) if a.form() == b.form() && a.bytes() == b.bytes() => {
                match values((before, a), (now, b))? {
                    None => continue,
                    values => values,
                }
            }
            _ => None,
        };
        differing += 1;
        first.get_or_insert_with(|| ArrayDifference {
            array: (*name).clone(),
            before: old.map(Array::form),
            now: new.map(Array::form),
            values,
            arrays: (0, names.len()),
        });
    }
    Ok(first.map(|first| ArrayDifference { arrays: (differing, names.len()), ..first }))
}

fn values(
    (before, a): (&Arrays, &Array),
    (now, b): (&Arrays, &Array),
) -> io::Result<Option<ValueDifference>> {
    let of = a.count().unwrap_or(0);
    // Types of less than a byte are compared by bytes.
    let size = if of > 0 && a.bytes() % of == 0 { (a.bytes() / of).max(1) } else { 1 };
    let width = usize::try_from(size).map_err(io::Error::other)?;
    let read = reader(&a.dtype).filter(|(bytes, _)| *bytes == width).map(|(_, read)| read);
    let mut found = ValueDifference { differing: 0, of, first: 0, largest: None, not_finite: 0 };
    let mut done = 0;
    while done < a.bytes() {
        let n = usize::try_from((a.bytes() - done).min(PIECE)).map_err(io::Error::other)?;
        let (mut x, mut y) = (vec![0; n], vec![0; n]);
        before.file.read_exact_at(&mut x, before.start + a.data_offsets.0 + done)?;
        now.file.read_exact_at(&mut y, now.start + b.data_offsets.0 + done)?;
        if x != y {
            for (i, (p, q)) in x.chunks(width).zip(y.chunks(width)).enumerate() {
                if p != q {
                    let place = done / size + i as u64;
                    found.add(place, read.map(|read| (read(p) - read(q)).abs()));
                }
            }
        }
        done += n as u64;
    }
    Ok((found.differing > 0).then_some(found))
}

impl ValueDifference {
    fn add(&mut self, place: u64, by: Option<f64>) {
        if self.differing == 0 {
            self.first = place;
        }
        self.differing += 1;
        match by {
            Some(by) if by.is_finite() => self.largest = Some(self.largest.unwrap_or(0.0).max(by)),
            Some(_) => self.not_finite += 1,
            None => {}
        }
    }
}

/// Makes a number of the bytes of a value.
type Read = fn(&[u8]) -> f64;

/// Size of a value and how its bytes are read; all are little endian.
fn reader(dtype: &str) -> Option<(usize, Read)> {
    macro_rules! number {
        ($type:ty, $to:expr) => {
            (size_of::<$type>(), |bytes: &[u8]| {
                let mut own = [0; size_of::<$type>()];
                own.copy_from_slice(bytes);
                $to(<$type>::from_le_bytes(own))
            })
        };
    }
    #[expect(clippy::cast_precision_loss, reason = "a difference is shown with few digits")]
    Some(match dtype {
        "F64" => number!(f64, f64::from),
        "F32" => number!(f32, f64::from),
        "F16" => number!(f16, f64::from),
        "BF16" => number!(bf16, f64::from),
        "I64" => number!(i64, |v| v as f64),
        "I32" => number!(i32, f64::from),
        "I16" => number!(i16, f64::from),
        "I8" => number!(i8, f64::from),
        "U64" => number!(u64, |v| v as f64),
        "U32" => number!(u32, f64::from),
        "U16" => number!(u16, f64::from),
        "U8" | "BOOL" => number!(u8, f64::from),
        _ => return None,
    })
}
