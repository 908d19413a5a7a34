//! Adapters apart from the weights that they stand beside: added to them, put one after the other,
//! read and written as PEFT does. Knows nothing of training.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor, no_grad};

use super::adapter::Adapter;
use super::checkpoint::{Outgoing, write_file};
use super::config::Family;
use super::config_fields::Fields;
use super::part::{Part, Stored};
use super::weight_file::WeightFile;
use super::{ModelConfig, ParamSpec, Params};
use crate::advice::error_with_help;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of a model's modules.
const PREFIX: &str = "base_model.model.";
/// Keys of PEFT that say where adapters came from, or what their tensors show anyway.
const TOLD: [&str; 17] = [
    "auto_mapping",
    "base_model_name_or_path",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "ensure_weight_tying",
    "revision",
    "runtime_config",
    "target_modules",
    "peft_type",
];

/// Products of two narrow matrices, each to be added to the matrix of a model that files know under
/// this name, without `.weight`.
#[derive(Debug, Default)]
pub struct LowRank {
    products: BTreeMap<String, Product>,
}

/// `b · a`: `[rows, rank]`, its scale worked in, its rows in the order of files, times
/// `[rank, inputs]`.
#[derive(Debug)]
struct Product {
    a: Tensor,
    b: Tensor,
}

impl LowRank {
    /// Whether `folder` holds an adapter.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(CONFIG).is_file()
    }

    /// The adapter in `folder` for a model of these parameters, if there is one.
    ///
    /// # Errors
    /// When it asks for what is not supported, or does not fit the model.
    pub fn open(folder: &Path, specs: &[ParamSpec]) -> Result<Option<Self>> {
        if !Self::is_in(folder) {
            return Ok(None);
        }
        let context = || format!("cannot use the adapter in {}", folder.display());
        let config = AdapterConfig::read(&folder.join(CONFIG)).with_context(context)?;
        read(&folder.join(WEIGHTS), &config, specs).with_context(context).map(Some)
    }

    /// Checks all that a folder says of its adapter without the weights.
    ///
    /// # Errors
    /// As [`LowRank::open`].
    pub fn check(folder: &Path) -> Result<()> {
        let context = || format!("cannot use the adapter in {}", folder.display());
        AdapterConfig::read(&folder.join(CONFIG)).map(|_| ()).with_context(context)
    }

    /// What `adapter` adds to a model of these parameters.
    pub(super) fn of(adapter: &Adapter, specs: &[ParamSpec]) -> Self {
        let mut products = BTreeMap::new();
        for (place, sites) in adapter.sites() {
            let mut parts = specs[place].parts.iter();
            let (mut part, mut within, mut some) = (parts.next(), 0, Vec::new());
            for (rows, factors) in sites {
                let Some(current) = part else { break };
                if let Some((a, b)) = factors {
                    some.push((within, a, b));
                }
                within += rows;
                // A part may hold several sites, where files fuse them; never the other way round.
                if within == current.shape[0] {
                    if !some.is_empty() {
                        products.insert(module(current), stacked(current, &some));
                    }
                    (part, within) = (parts.next(), 0);
                    some.clear();
                }
            }
        }
        Self { products }
    }

    /// This one and then another, on the same model.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        for (name, new) in next.products {
            let both = match self.products.remove(&name) {
                Some(old) => Product {
                    a: Tensor::cat(&[old.a, new.a], 0),
                    b: Tensor::cat(&[old.b, new.b], 1),
                },
                None => new,
            };
            self.products.insert(name, both);
        }
        self
    }

    /// Number of its weights.
    pub fn numel(&self) -> usize {
        self.products.values().map(|p| p.a.numel() + p.b.numel()).sum()
    }

    /// Adds the products to `params`.
    pub fn add_to(&self, params: &Params) {
        no_grad(|| {
            for (spec, tensor) in params.specs.iter().zip(&params.tensors) {
                let mut start = 0;
                for part in &spec.parts {
                    let rows = part.shape[0];
                    if let Some(product) = self.products.get(&module(part)) {
                        let delta = from_file_rows(part, &product.b.matmul(&product.a));
                        let mut rows = tensor.detach().narrow(0, start, rows);
                        rows += delta.to_device(tensor.device());
                    }
                    start += rows;
                }
            }
        });
    }

    /// Writes the adapter of a model of this shape into `folder`, as f32 or, with `half`, as bf16.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path, config: &ModelConfig, half: bool) -> Result<()> {
        let rank = self.products.values().map(Product::rank).max().unwrap_or(1);
        let (mut modules, mut ranks) = (Vec::new(), Map::new());
        for (name, product) in &self.products {
            let short = last_two(name);
            if !modules.contains(&short) {
                if product.rank() != rank {
                    ranks.insert(short.to_owned(), json!(product.rank()));
                }
                modules.push(short);
            }
        }
        modules.sort_unstable();
        let text = serde_json::to_string_pretty(&json!({
            "alpha_pattern": ranks,
            "base_model_name_or_path": null,
            "bias": "none",
            "fan_in_fan_out": config.family == Family::Gpt2,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": rank,
            "lora_dropout": 0.0,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": rank,
            "rank_pattern": ranks,
            "target_modules": modules,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": false,
        }))?;
        fs_err::write(folder.join(CONFIG), text + "\n")?;
        let kind = if half { Kind::BFloat16 } else { Kind::Float };
        let sides = self.products.iter().flat_map(|(name, product)| {
            [("A", &product.a), ("B", &product.b)].map(|(side, values)| {
                let name = format!("{PREFIX}{name}.lora_{side}.weight");
                (Part { name, shape: values.size(), stored: Stored::Plain }, values)
            })
        });
        let sides: Vec<_> = sides.collect();
        let outgoing = sides.iter().map(|(part, values)| {
            (part.name.clone(), Outgoing::new(part, values.reshape([-1]), kind))
        });
        write_file(&folder.join(WEIGHTS), outgoing.collect())
    }
}

impl Product {
    fn rank(&self) -> i64 {
        self.a.size()[0]
    }
}

/// One product of those that stand beside some rows of a part each, from a first row on.
fn stacked(part: &Part, some: &[(i64, Tensor, Tensor)]) -> Product {
    let a: Vec<Tensor> = some.iter().map(|(_, a, _)| a.to_device(Device::Cpu)).collect();
    let a = Tensor::cat(&a, 0).detach();
    let b = Tensor::zeros([part.shape[0], a.size()[0]], (Kind::Float, Device::Cpu));
    let mut column = 0;
    for (row, _, values) in some {
        let size = values.size();
        let mut block = b.narrow(0, *row, size[0]).narrow(1, column, size[1]);
        no_grad(|| block.copy_(&values.to_device(Device::Cpu)));
        column += size[1];
    }
    Product { a, b: to_file_rows(part, &b) }
}

/// Rows in the order of files, `[rows, n]`, of those in the order of memory.
fn to_file_rows(part: &Part, x: &Tensor) -> Tensor {
    match part.stored {
        Stored::ByHead(heads) => x.view([3, heads, -1]).transpose(0, 1).reshape_as(x),
        _ => x.shallow_clone(),
    }
}

/// Rows in the order of memory, `[rows, n]`, of those in the order of files.
fn from_file_rows(part: &Part, x: &Tensor) -> Tensor {
    match part.stored {
        Stored::ByHead(heads) => x.view([heads, 3, -1]).transpose(0, 1).reshape_as(x),
        _ => x.shallow_clone(),
    }
}

/// The name of a part's module.
fn module(part: &Part) -> String {
    part.name.trim_end_matches(".weight").to_owned()
}

/// What tells a module from the others of its layer: `self_attn.q_proj`.
fn last_two(name: &str) -> &str {
    let mut dots = name.rmatch_indices('.').map(|(at, _)| at + 1);
    dots.next();
    name.get(dots.next().unwrap_or(0)..).unwrap_or(name)
}

/// What an `adapter_config.json` says.
struct AdapterConfig {
    rank: i64,
    alpha: f64,
    ranks: Map<String, Value>,
    alphas: Map<String, Value>,
    /// The scale is α/√rank instead of α/rank.
    by_root: bool,
}

impl AdapterConfig {
    fn read(path: &Path) -> Result<Self> {
        let value: Value = serde_json::from_slice(&fs_err::read(path)?)
            .with_context(|| format!("{} is not JSON", path.display()))?;
        let fields = Fields::new(&value);
        if fields.get("peft_type") != "LORA" {
            return Err(error_with_help(
                format!("`peft_type` is {}; only LORA is supported", fields.get("peft_type")),
                "merge_and_unload() of peft makes an ordinary model of it, which import_model reads",
            ));
        }
        match fields.get("task_type") {
            Value::Null => {}
            task if task == "CAUSAL_LM" => {}
            task => bail!("`task_type` is {task}; only CAUSAL_LM is supported"),
        }
        if !matches!(fields.get("bias").as_str(), None | Some("none")) {
            bail!("`bias` is {}; only none is supported", fields.get("bias"));
        }
        match fields.get("init_lora_weights") {
            Value::Null | Value::Bool(_) => {}
            start if start == "gaussian" || start == "orthogonal" => {}
            start => {
                return Err(error_with_help(
                    format!("`init_lora_weights` is {start}: it changes the base's weights too"),
                    "merge_and_unload() of peft makes an ordinary model of it",
                ));
            }
        }
        for key in ["use_dora", "lora_bias", "use_qalora", "use_bdlora"] {
            fields.only(key, false)?;
        }
        for key in TOLD {
            fields.get(key);
        }
        let pattern = |key: &str| -> Result<Map<String, Value>> {
            let pattern = fields.get(key).as_object().cloned().unwrap_or_default();
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
            match pattern.keys().find(|name| !name.chars().all(plain)) {
                Some(name) => bail!("`{key}`: `{name}` is no plain name of a module"),
                None => Ok(pattern),
            }
        };
        let config = Self {
            rank: fields.int("r")?,
            alpha: fields.number("lora_alpha")?,
            ranks: pattern("rank_pattern")?,
            alphas: pattern("alpha_pattern")?,
            by_root: fields.flag_or("use_rslora", false)?,
        };
        fields.finish("peft adapter")?;
        Ok(config)
    }

    /// Rank and scale at a module.
    fn at(&self, module: &str) -> (i64, f64) {
        let found = |pattern: &Map<String, Value>| {
            let fits = |key: &str| {
                module.strip_suffix(key).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            pattern.iter().find(|(key, _)| fits(key)).and_then(|(_, value)| value.as_f64())
        };
        let rank = found(&self.ranks).map_or(self.rank, |rank| rank as i64);
        let alpha = found(&self.alphas).unwrap_or(self.alpha);
        let by = if self.by_root { (rank as f64).sqrt() } else { rank as f64 };
        (rank, alpha / by)
    }
}

fn read(path: &Path, config: &AdapterConfig, specs: &[ParamSpec]) -> Result<LowRank> {
    let mut file = WeightFile::open(path).with_context(|| format!("no {WEIGHTS} can be read"))?;
    let parts: BTreeMap<String, &Part> = specs
        .iter()
        .filter(|spec| spec.shape.len() == 2)
        .flat_map(|spec| &spec.parts)
        .map(|part| (module(part), part))
        .collect();
    let names: Vec<String> = file.tensors().map(|(name, _)| name.to_owned()).collect();
    let (mut sides, mut products) = (BTreeMap::new(), BTreeMap::new());
    for name in names {
        let short = name.strip_prefix(PREFIX).unwrap_or(&name).replace(".default.", ".");
        let side = ["A", "B"].into_iter().find_map(|side| {
            Some((short.strip_suffix(&format!(".lora_{side}.weight"))?.to_owned(), side))
        });
        let Some((module, side)) = side.filter(|(module, _)| parts.contains_key(module)) else {
            bail!("tensor `{name}` is no LoRA of a matrix of this model");
        };
        let values = file.read(&name)?;
        if values.isfinite().all().int64_value(&[]) == 0 {
            bail!("tensor `{name}` has values that are not finite");
        }
        let shape = file.tensors().find(|(found, _)| *found == name);
        let shape: Vec<i64> =
            shape.map(|(_, s)| s.shape.iter().map(|n| *n as i64).collect()).unwrap_or_default();
        let values = values.reshape(shape.as_slice());
        if sides.insert((module, side), values).is_some() {
            bail!("tensor `{name}` is there twice");
        }
    }
    for (module, part) in parts {
        let found = ["A", "B"].map(|side| sides.remove(&(module.clone(), side)));
        let [Some(a), Some(b)] = found else {
            if found.iter().any(Option::is_some) {
                bail!("`{module}` has one of the two factors of its LoRA only");
            }
            continue;
        };
        let (rank, scale) = config.at(&module);
        let wanted = [vec![rank, part.shape[1]], vec![part.shape[0], rank]];
        if [a.size(), b.size()] != wanted {
            bail!(
                "`{module}` has factors of {:?} and {:?}, not {:?} and {:?}",
                a.size(),
                b.size(),
                wanted[0],
                wanted[1]
            );
        }
        products.insert(module, Product { a, b: b * scale });
    }
    Ok(LowRank { products })
}
