//! One `.safetensors` file: nothing in it is trusted before it is checked.
//! Knows nothing of what the tensors mean.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tch::{Kind, Tensor};

/// Largest header that is read, bytes.
const MAX_HEADER: u64 = 16 << 20;
/// Most tensors a file may have.
const MAX_TENSORS: usize = 65_536;

/// Where each tensor of a checked file lies.
#[derive(Debug)]
pub struct WeightFile {
    pub path: PathBuf,
    file: fs_err::File,
    tensors: HashMap<String, Stretch>,
}

/// A tensor in a file.
#[derive(Debug, Clone)]
pub struct Stretch {
    pub dtype: String,
    pub shape: Vec<u64>,
    /// First byte in the file.
    start: u64,
    bytes: usize,
}

impl WeightFile {
    /// Opens a file and checks its header, before any tensor is read.
    ///
    /// # Errors
    /// When the header is too large, lists too many tensors or one twice, names an unknown type,
    /// or does not cover the file exactly.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = fs_err::File::open(path)?;
        let size = file.metadata()?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| anyhow!("the file has no header"))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length.saturating_add(8) > size {
            bail!("the header claims {length} bytes; at most {MAX_HEADER} and the file are read");
        }
        let mut buffer = vec![0; length as usize];
        file.read_exact(&mut buffer)?;
        let mut infos = read_header(&buffer)?;
        infos.sort_by_key(|(_, info)| info.data_offsets);
        let mut tensors = HashMap::new();
        let mut end = 0;
        for (name, Info { dtype, shape, data_offsets: [from, to] }) in infos {
            let width = width(&dtype)
                .with_context(|| format!("tensor `{name}` is of the unknown type {dtype}"))?;
            let bytes = shape.iter().try_fold(width, |n, side| n.checked_mul(*side));
            if from != end || bytes != to.checked_sub(from) {
                bail!("tensor `{name}` does not lie where its shape and its neighbours say");
            }
            end = to;
            let (start, bytes) = (8 + length + from, (to - from) as usize);
            tensors.insert(name, Stretch { dtype, shape, start, bytes });
        }
        if Some(size) != end.checked_add(8 + length) {
            bail!("the header describes {end} bytes of tensors, the file has another size");
        }
        Ok(Self { path: path.to_owned(), file, tensors })
    }

    /// Names of all tensors, and where they lie.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Stretch)> {
        self.tensors.iter().map(|(name, stretch)| (name.as_str(), stretch))
    }

    /// Checks that the file holds exactly `parts`, names and shapes, as f32.
    ///
    /// # Errors
    /// Names the tensor that is missing, unknown, or of another type or shape.
    pub fn expect(&self, parts: &[(&str, Vec<i64>)]) -> Result<()> {
        if let Some((name, found)) = self.tensors().find(|(_, t)| t.dtype != "F32") {
            bail!("tensor `{name}` is {}; only F32 is supported", found.dtype);
        }
        for (name, shape) in parts {
            let Some(found) = self.tensors.get(*name) else { bail!("tensor `{name}` is missing") };
            found.expect_shape(name, shape)?;
        }
        let wanted: BTreeSet<&str> = parts.iter().map(|(name, _)| *name).collect();
        match self.tensors.keys().filter(|n| !wanted.contains(n.as_str())).min() {
            Some(name) => bail!("tensor `{name}` is not part of this model"),
            None => Ok(()),
        }
    }

    /// The values of one tensor as f32, `[n]`.
    ///
    /// # Errors
    /// When the tensor is not there or its type holds no real numbers, or the file cannot be read.
    pub fn read(&mut self, name: &str) -> Result<Tensor> {
        let found =
            self.tensors.get(name).with_context(|| format!("tensor `{name}` is missing"))?;
        let kind = match found.dtype.as_str() {
            "F32" => Kind::Float,
            "F16" => Kind::Half,
            "BF16" => Kind::BFloat16,
            other => bail!("tensor `{name}` is {other}; supported are F32, F16 and BF16"),
        };
        let mut bytes = vec![0; found.bytes];
        self.file.seek(SeekFrom::Start(found.start))?;
        self.file.read_exact(&mut bytes)?;
        let n = (found.bytes / kind.elt_size_in_bytes()) as i64;
        Ok(Tensor::f_from_data_size(&bytes, &[n], kind)?.to_kind(Kind::Float))
    }
}

impl Stretch {
    /// Compares the shape with that which a config asks for.
    ///
    /// # Errors
    /// When the two differ.
    pub fn expect_shape(&self, name: &str, wanted: &[i64]) -> Result<()> {
        if self.shape.iter().map(|n| *n as i64).ne(wanted.iter().copied()) {
            bail!("tensor `{name}` has shape {:?}, the config wants {wanted:?}", self.shape);
        }
        Ok(())
    }
}

/// Bytes of one value.
fn width(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" => 1,
        "F16" | "BF16" | "I16" | "U16" => 2,
        "F32" | "I32" | "U32" => 4,
        "F64" | "I64" | "U64" => 8,
        _ => return None,
    })
}

/// One entry of the header.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The entries of a header. Refuses a name that is there twice, of which a JSON map would keep the
/// last silently, and too many of them.
fn read_header(header: &[u8]) -> Result<Vec<(String, Info)>> {
    struct Entries(Vec<(String, Info)>);
    impl<'de> Deserialize<'de> for Entries {
        fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            d.deserialize_map(Self(Vec::new()))
        }
    }
    impl<'de> Visitor<'de> for Entries {
        type Value = Self;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a map of tensors")
        }
        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
            use serde::de::Error as _;
            let mut seen = BTreeSet::new();
            while let Some(name) = map.next_key::<String>()? {
                if !seen.insert(name.clone()) {
                    return Err(A::Error::custom(format!("tensor `{name}` is listed twice")));
                }
                if seen.len() > MAX_TENSORS + 1 {
                    return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                }
                if name == "__metadata__" {
                    map.next_value::<IgnoredAny>()?;
                } else {
                    self.0.push((name, map.next_value()?));
                }
            }
            Ok(self)
        }
    }
    let entries: Entries = serde_json::from_slice(header).context("the header is not usable")?;
    Ok(entries.0)
}
