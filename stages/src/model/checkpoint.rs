//! `model.safetensors` of a model folder: stable bytes out, exactly the expected tensors in.
//! Knows nothing of what the tensors mean.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use safetensors::{Dtype, View};
use tch::{Device, Kind, Tensor, no_grad};

use super::part::Part;
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
pub fn fill(specs: &[ParamSpec], mut read: impl FnMut(&Part) -> Result<Tensor>) -> Result<Tensor> {
    let total = specs.iter().map(ParamSpec::numel).sum::<i64>();
    let flat = Tensor::empty([total], (Kind::Float, Device::Cpu));
    let mut start = 0;
    for part in specs.iter().flat_map(|s| &s.parts) {
        let values = read(part)?;
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
    let tensors = parts(params)
        .map(|(part, values)| (part.name.clone(), Outgoing::new(part, values, Kind::Float)));
    write_file(path, tensors.collect())
}

/// Every part of a model with its values in memory order, `[n]`.
pub fn parts(params: &Params) -> impl Iterator<Item = (&Part, Tensor)> {
    let mut start = 0;
    params.specs.iter().flat_map(|s| &s.parts).map(move |part| {
        let values = params.flat.narrow(0, start, part.numel());
        start += part.numel();
        (part, values)
    })
}

/// Writes a file of these tensors, one after the other: no more than one is held beside the model.
///
/// # Errors
/// When it cannot be written.
pub fn write_file(path: &Path, tensors: BTreeMap<String, Outgoing>) -> Result<()> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(tensors, Some(metadata), path)
        .map_err(|e| anyhow!("{e}"))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A part of a model on its way into a file.
pub struct Outgoing<'a> {
    part: &'a Part,
    shape: Vec<usize>,
    /// In memory order, `[n]`.
    values: Tensor,
    kind: Kind,
}

impl<'a> Outgoing<'a> {
    /// A part with its values, `[n]`, to be written as f32 or bf16.
    pub fn new(part: &'a Part, values: Tensor, kind: Kind) -> Self {
        let shape = part.file_shape().iter().map(|n| *n as usize).collect();
        Self { part, shape, values, kind }
    }
}

impl View for Outgoing<'_> {
    fn dtype(&self) -> Dtype {
        if self.kind == Kind::BFloat16 { Dtype::BF16 } else { Dtype::F32 }
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let host = self.values.to_device(Device::Cpu).to_kind(self.kind);
        let values = self.part.to_file(&host).contiguous();
        let mut data = vec![0; self.data_len()];
        values.copy_data_u8(&mut data, values.numel());
        data.into()
    }
    fn data_len(&self) -> usize {
        self.values.numel() * self.kind.elt_size_in_bytes()
    }
}
