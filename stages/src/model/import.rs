//! The weights of a Hugging Face folder: one file or several, any float type, names as published.
//! Knows nothing of tokenizers or configs beyond the shape.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::checkpoint::fill;
use super::layout::{head_name, prefix};
use super::weight_file::WeightFile;
use super::{ModelConfig, ParamSpec, Params};
use crate::advice::error_with_help;

const ONE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Largest index that is read, bytes.
const MAX_INDEX: u64 = 64 << 20;
/// Endings of weights that are programs rather than data, or in formats that are not read.
const FOREIGN: [&str; 7] = ["bin", "pt", "pth", "ckpt", "pkl", "h5", "msgpack"];
/// Endings of names that old files carry although they are no weights.
const BUFFERS: [&str; 5] =
    [".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".inv_freq"];

/// The bias of a reward model, which transformers has not and our exports have.
const BIAS: &str = "score.bias";

/// Reads the language model of `config` in `folder` or, with `reward`, a model with one number
/// instead of an output layer.
///
/// # Errors
/// When there are no safetensors, a file is damaged or does not fit the index, a tensor is
/// missing, unknown, there twice or of another shape, or a value is not finite.
pub fn read_folder(folder: &Path, config: &ModelConfig, reward: bool) -> Result<Params> {
    let mut files = open_files(folder)?;
    let mut found = BTreeMap::new();
    for (i, file) in files.iter().enumerate() {
        for (name, stretch) in file.tensors() {
            if found.insert(name.to_owned(), (i, stretch.clone())).is_some() {
                bail!("tensor `{name}` is in two files");
            }
        }
    }
    let specs = ParamSpec::list(config, reward);
    let bare = !found.keys().any(|name| name.starts_with(prefix(config.family)));
    let published = |name: &str| {
        let short = name.strip_prefix(prefix(config.family)).filter(|_| bare);
        short.unwrap_or(name).to_owned()
    };
    let parts: Vec<_> = specs.iter().flat_map(|s| &s.parts).collect();
    for part in &parts {
        let name = published(&part.name);
        let Some((_, stretch)) = found.get(&name) else {
            if name == BIAS {
                continue;
            }
            bail!("tensor `{name}` is missing")
        };
        stretch.expect_shape(&name, &part.file_shape())?;
    }
    let wanted: BTreeSet<String> = parts.iter().map(|p| published(&p.name)).collect();
    let head = head_name(config.family);
    let is_buffer = |name: &str| BUFFERS.iter().any(|ending| name.ends_with(ending));
    let spare = |name: &str| config.tie_embeddings && !reward && name == head;
    let unknown = |name: &&String| !wanted.contains(*name) && !is_buffer(name) && !spare(name);
    if let Some(name) = found.keys().find(unknown) {
        let what = if reward { "reward" } else { "language" };
        bail!("tensor `{name}` is not part of a {} {what} model", config.family.model_type());
    }
    if let Some((i, _)) = found.get(&head).filter(|_| spare(&head)) {
        let embed = published(&parts[0].name);
        let same = files[*i].read(&head)? == files[found[&embed].0].read(&embed)?;
        if !same {
            bail!("`tie_word_embeddings` is true, but `{head}` and `{embed}` differ");
        }
    }
    let flat = fill(&specs, |part| {
        let name = published(&part.name);
        let Some((place, _)) = found.get(&name) else {
            return Ok(Tensor::zeros([part.numel()], (Kind::Float, Device::Cpu)));
        };
        let file = &mut files[*place];
        let values =
            file.read(&name).with_context(|| format!("cannot read {}", file.path.display()))?;
        match values.numel() as i64 - values.isfinite().sum(Kind::Int64).int64_value(&[]) {
            0 => Ok(values),
            n => bail!("tensor `{name}` has {n} values that are not finite"),
        }
    })?;
    Ok(Params::from_flat(specs, flat))
}

/// Opens the one file, or those that the index names.
fn open_files(folder: &Path) -> Result<Vec<WeightFile>> {
    let open = |path: PathBuf| {
        WeightFile::open(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let index = folder.join(INDEX);
    if !index.is_file() {
        return match folder.join(ONE) {
            path if path.is_file() => Ok(vec![open(path)?]),
            _ => Err(no_weights(folder)),
        };
    }
    if fs_err::metadata(&index)?.len() > MAX_INDEX {
        bail!("{} is larger than {MAX_INDEX} bytes", index.display());
    }
    let value: Value = serde_json::from_slice(&fs_err::read(&index)?)
        .with_context(|| format!("{} is not JSON", index.display()))?;
    let map = value["weight_map"].as_object();
    let map = map.with_context(|| format!("{} has no `weight_map`", index.display()))?;
    let mut files = BTreeMap::new();
    for (tensor, name) in map {
        let name = name.as_str().unwrap_or_default();
        if Path::new(name).file_name().is_none_or(|plain| plain != name) {
            bail!("the index places tensor `{tensor}` in `{name}`, which is no file name");
        }
        if !files.contains_key(name) {
            files.insert(name, open(folder.join(name))?);
        }
        if files[name].tensors().all(|(found, _)| found != tensor) {
            bail!("the index places tensor `{tensor}` in {name}, where it is not");
        }
    }
    Ok(files.into_values().collect())
}

fn no_weights(folder: &Path) -> anyhow::Error {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let foreign = entries.map(|e| e.path()).find(|path| {
        path.extension().and_then(|e| e.to_str()).is_some_and(|e| FOREIGN.contains(&e))
    });
    match foreign {
        Some(path) => error_with_help(
            format!(
                "{} is not read: such files run code when they are opened, or hold other formats",
                path.display()
            ),
            "convert the model: from_pretrained(…).save_pretrained(…, safe_serialization=True) of \
             transformers writes model.safetensors",
        ),
        None => error_with_help(
            format!("{} has neither {ONE} nor {INDEX}", folder.display()),
            "name the folder that save_pretrained wrote, or that was downloaded whole",
        ),
    }
}
