//! `model.safetensors`: stable bytes out, and nothing trusted on the way in.
//! Knows nothing of what the tensors mean.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use safetensors::{Dtype, View};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tch::Tensor;

use super::{ParamSpec, Params};

/// Largest header that is read, bytes.
const MAX_HEADER: u64 = 16 << 20;
/// Most tensors a file may have.
const MAX_TENSORS: usize = 65_536;

/// Where each tensor of a checked file lies.
#[derive(Debug)]
pub struct WeightFile {
    file: fs_err::File,
    /// Name → (shape, first byte in the file, number of bytes).
    tensors: HashMap<String, (Vec<u64>, u64, usize)>,
}

impl WeightFile {
    /// Opens a file and checks its header, before any tensor is read.
    ///
    /// # Errors
    /// When the header is too large, lists too many tensors or one twice, does not cover the
    /// file exactly, or a tensor is not f32.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = fs_err::File::open(path)?;
        let size = file.metadata()?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| anyhow!("the file has no header"))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length.saturating_add(8) > size {
            bail!("the header claims {length} bytes; at most {MAX_HEADER} and the file are read");
        }
        let mut buffer = vec![0; 8 + length as usize];
        file.seek(SeekFrom::Start(0))?;
        file.read_exact(&mut buffer)?;
        let mut infos = read_header(&buffer[8..])?;
        infos.sort_by_key(|(_, info)| info.data_offsets);
        let mut tensors = HashMap::new();
        let mut end = 0;
        for (name, info) in infos {
            let [from, to] = info.data_offsets;
            if info.dtype != "F32" {
                bail!("tensor `{name}` is {}; only F32 is supported", info.dtype);
            }
            let bytes = info.shape.iter().try_fold(4_u64, |n, side| n.checked_mul(*side));
            if from != end || bytes != to.checked_sub(from) {
                bail!("tensor `{name}` does not lie where its shape and its neighbours say");
            }
            end = to;
            tensors.insert(name, (info.shape, 8 + length + from, (to - from) as usize));
        }
        if Some(size) != end.checked_add(8 + length) {
            bail!("the header describes {end} bytes of tensors, the file has another size");
        }
        Ok(Self { file, tensors })
    }

    /// Checks that the file holds exactly `parts`, names and shapes.
    ///
    /// # Errors
    /// Names the tensor that is missing, unknown or of another shape.
    pub fn expect<'a>(&self, parts: impl IntoIterator<Item = (&'a str, &'a [i64])>) -> Result<()> {
        let mut wanted = BTreeSet::new();
        for (name, shape) in parts {
            wanted.insert(name);
            let Some((found, ..)) = self.tensors.get(name) else {
                bail!("tensor `{name}` is missing");
            };
            if !found.iter().eq(shape.iter().map(|n| *n as u64).collect::<Vec<_>>().iter()) {
                bail!("tensor `{name}` has shape {found:?}, the config wants {shape:?}");
            }
        }
        match self.tensors.keys().filter(|n| !wanted.contains(n.as_str())).min() {
            Some(name) => bail!("tensor `{name}` is not part of this model"),
            None => Ok(()),
        }
    }

    /// Appends the values of one tensor to `out`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&mut self, name: &str, out: &mut Vec<f32>) -> Result<()> {
        let (_, start, bytes) = self.tensors.get(name).context("invariant: names were checked")?;
        let mut buffer = vec![0; *bytes];
        self.file.seek(SeekFrom::Start(*start))?;
        self.file.read_exact(&mut buffer)?;
        let word = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        out.extend(buffer.chunks_exact(4).map(word));
        Ok(())
    }
}

/// The weights of a model of these parameters, `[n]`.
///
/// # Errors
/// When the file is damaged, or does not hold exactly these tensors.
pub fn read_weights(path: &Path, specs: &[ParamSpec]) -> Result<Tensor> {
    let context = || format!("cannot read {}", path.display());
    let mut file = WeightFile::open(path).with_context(context)?;
    let parts = || specs.iter().flat_map(|s| &s.parts);
    file.expect(parts().map(|p| (p.name.as_str(), p.shape.as_slice()))).with_context(context)?;
    let mut values = Vec::new();
    for part in parts() {
        file.read(&part.name, &mut values).with_context(context)?;
    }
    Ok(Tensor::from_slice(&values))
}

/// Writes the weights: equal weights give equal bytes.
///
/// # Errors
/// When the file cannot be written.
pub fn write_weights(path: &Path, params: &Params) -> Result<()> {
    let values = params.to_vec();
    let mut start = 0;
    let mut tensors = BTreeMap::new();
    for part in params.specs.iter().flat_map(|s| &s.parts) {
        let n = part.shape.iter().product::<i64>() as usize;
        let shape = part.shape.iter().map(|n| *n as usize).collect();
        let data = values[start..start + n].iter().flat_map(|x| x.to_le_bytes()).collect();
        tensors.insert(part.name.clone(), Plain { shape, data });
        start += n;
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| anyhow!("{e}"))?;
    fs_err::write(path, bytes)?;
    Ok(())
}

/// One tensor on its way into a file.
struct Plain {
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl View for Plain {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        (&self.data).into()
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
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
