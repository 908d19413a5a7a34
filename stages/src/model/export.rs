//! Weights as `transformers` publishes them: in shards of a chosen size and type.
//! Knows nothing of configs or tokenizers.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::json;
use tch::Kind;

use super::Params;
use super::checkpoint::{Outgoing, parts, write_file};
use super::part::Part;

/// Writes the weights into `folder` as f32 or, with `half`, as bf16 (rounded to the nearest); in
/// files of at most `limit` bytes of tensors where a single tensor allows, 0: in one file.
///
/// # Errors
/// When a file cannot be written.
pub fn write_shards(folder: &Path, params: &Params, half: bool, limit: u64) -> Result<()> {
    let kind = if half { Kind::BFloat16 } else { Kind::Float };
    let bytes = |part: &Part| part.numel() as u64 * kind.elt_size_in_bytes() as u64;
    let shards = plan(params, limit, bytes);
    let total: u64 = params.specs.iter().flat_map(|s| &s.parts).map(bytes).sum();
    let name = |i: usize| match shards.iter().max() {
        None | Some(0) => "model.safetensors".to_owned(),
        Some(last) => format!("model-{:05}-of-{:05}.safetensors", i + 1, last + 1),
    };
    let (mut map, mut open, mut current) = (BTreeMap::new(), BTreeMap::new(), 0);
    for ((part, values), shard) in parts(params).zip(&shards) {
        if *shard != current {
            write_file(&folder.join(name(current)), std::mem::take(&mut open))?;
            current = *shard;
        }
        map.insert(part.name.clone(), name(current));
        open.insert(part.name.clone(), Outgoing::new(part, values, kind));
    }
    write_file(&folder.join(name(current)), open)?;
    if current > 0 {
        let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
        let text = serde_json::to_string_pretty(&index)? + "\n";
        fs_err::write(folder.join("model.safetensors.index.json"), text)?;
    }
    Ok(())
}

/// The shard of every part, in order.
fn plan(params: &Params, limit: u64, bytes: impl Fn(&Part) -> u64) -> Vec<usize> {
    let (mut shard, mut size) = (0, 0);
    let parts = params.specs.iter().flat_map(|s| &s.parts);
    parts
        .map(|part| {
            if limit > 0 && size > 0 && size + bytes(part) > limit {
                (shard, size) = (shard + 1, 0);
            }
            size += bytes(part);
            shard
        })
        .collect()
}
