//! `model.safetensors` of a model folder: stable bytes out, exactly the expected tensors in.
//! Knows nothing of what the tensors mean.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use safetensors::{Dtype, View};
use tch::{Device, Kind, Tensor, no_grad};

use super::params::Part;
use super::weight_file::WeightFile;
use super::{ParamSpec, Params};

/// The weights of a model of these parameters, `[n]`.
///
/// # Errors
/// When the file is damaged, or does not hold exactly these tensors.
pub fn read_weights(path: &Path, specs: &[ParamSpec]) -> Result<Tensor> {
    let context = || format!("cannot read {}", path.display());
    let mut file = WeightFile::open(path).with_context(context)?;
    let parts: Vec<_> = specs.iter().flat_map(|s| &s.parts).collect();
    let wanted: Vec<_> = parts.iter().map(|p| (p.name.as_str(), p.file_shape())).collect();
    file.expect(&wanted).with_context(context)?;
    fill(specs, |part| file.read(&part.name)).with_context(context)
}

/// One flat tensor, `[n]`, of the values that `read` gives for each part in file order.
///
/// # Errors
/// Those of `read`.
pub fn fill(
    specs: &[ParamSpec],
    mut read: impl FnMut(&Part) -> Result<Vec<f32>>,
) -> Result<Tensor> {
    let total = specs.iter().map(ParamSpec::numel).sum::<i64>();
    let flat = Tensor::empty([total], (Kind::Float, Device::Cpu));
    let mut start = 0;
    for part in specs.iter().flat_map(|s| &s.parts) {
        let values = Tensor::from_slice(&read(part)?);
        no_grad(|| flat.narrow(0, start, part.numel()).copy_(&part.from_file(&values)));
        start += part.numel();
    }
    Ok(flat)
}

/// Writes the weights: equal weights give equal bytes.
///
/// # Errors
/// When the file cannot be written.
pub fn write_weights(path: &Path, params: &Params) -> Result<()> {
    let tensors = parts(params).map(|(part, values)| (part.name.clone(), plain(part, &values)));
    write_file(path, tensors.collect())
}

/// Every part of a model with its values in file order, `[n]`, on the host.
pub fn parts(params: &Params) -> impl Iterator<Item = (&Part, Tensor)> {
    let mut start = 0;
    params.specs.iter().flat_map(|s| &s.parts).map(move |part| {
        let values = params.flat.narrow(0, start, part.numel());
        start += part.numel();
        (part, part.to_file(&values.to_device(Device::Cpu).to_kind(Kind::Float)))
    })
}

/// A part as it goes into a file, f32.
fn plain(part: &Part, values: &Tensor) -> Plain {
    let mut host = vec![0.0_f32; values.numel()];
    values.contiguous().copy_data(&mut host, values.numel());
    let shape = part.file_shape().iter().map(|n| *n as usize).collect();
    Plain { dtype: Dtype::F32, shape, data: host.iter().flat_map(|x| x.to_le_bytes()).collect() }
}

/// Writes a file of these tensors.
///
/// # Errors
/// When it cannot be written.
pub fn write_file(path: &Path, tensors: BTreeMap<String, Plain>) -> Result<()> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| anyhow!("{e}"))?;
    fs_err::write(path, bytes)?;
    Ok(())
}

/// One tensor on its way into a file.
pub struct Plain {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

impl View for Plain {
    fn dtype(&self) -> Dtype {
        self.dtype
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
