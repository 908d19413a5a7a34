//! LoRA (Hu et al. 2021): small products beside frozen matrices.
//! Knows nothing of layers; it is told which rows of which matrix each product stands beside.

use std::collections::BTreeMap;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

use super::part::{Init, Part, Stored};
use super::{ModelConfig, ParamSpec, Params, Trunk};
use crate::advice::error_with_help;

/// Low-rank adapters beside the matrices of a frozen model. The saved model has them merged in.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// Rank of the adapters; 0: off, all weights are trained.
    #[schemars(range(max = 1024))]
    pub rank: u32,
    /// Scale of what they add, times the rank.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub alpha: f64,
    /// Matrices that get one: q, k, v and o of attention, gate, up and down of the MLP.
    #[schemars(length(min = 1))]
    pub targets: Vec<Target>,
    /// How A starts, the first of the two factors: kaiming draws it as peft does, uniform up to
    /// 1/√inputs; normal from N(0, 1/rank), which acts several times as strongly at the same lr.
    pub init: Start,
    /// Keep the adapters apart: the output is the weights of the model it started from, which are
    /// stored once, and the adapters beside them. Every kind that reads it adds them in.
    pub keep: bool,
}

/// How the first factor of an adapter starts; the second is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    Kaiming,
    Normal,
}

/// A matrix of every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl Default for Lora {
    fn default() -> Self {
        use Target::{Down, Gate, K, O, Q, Up, V};
        let targets = vec![Q, K, V, O, Gate, Up, Down];
        Self { rank: 0, alpha: 16.0, targets, init: Start::Kaiming, keep: false }
    }
}

impl Lora {
    /// Checks that what is to be kept is there.
    ///
    /// # Errors
    /// When there are no adapters to keep.
    pub fn check(&self) -> Result<()> {
        if self.keep && self.rank == 0 {
            return Err(error_with_help(
                "`lora.keep` keeps adapters, but without a rank there are none",
                "set lora.rank, as in lora: { rank: 8, keep: true }",
            ));
        }
        Ok(())
    }

    /// Number of weights of these adapters on a model.
    pub fn size(&self, c: &ModelConfig) -> u64 {
        let [q, k, v] = c.qkv_widths();
        let of = |target: &Target| match target {
            Target::Q => c.hidden + q,
            Target::K => c.hidden + k,
            Target::V => c.hidden + v,
            Target::O => q + c.hidden,
            Target::Gate if !c.gated => 0,
            Target::Gate | Target::Up | Target::Down => c.hidden + c.intermediate,
        };
        let sides: i64 = self.targets.iter().map(of).sum();
        u64::from(self.rank) * (c.layers * sides) as u64
    }
}

/// The adapters of a trunk.
#[derive(Debug)]
pub struct Adapter {
    pub params: Params,
    /// The pieces of each adapted matrix, by its place among the parameters; from its first row to
    /// its last.
    sites: BTreeMap<usize, Vec<Site>>,
    /// Parameters trained whole in place of those of the model, by its place among them: the head
    /// of a reward model.
    whole: BTreeMap<usize, usize>,
    /// α / rank.
    scale: f64,
}

/// Some rows of a matrix, and the places of their A, `[rank, inputs]`, and B, `[rows, rank]`, if
/// they have an adapter.
#[derive(Debug)]
struct Site {
    rows: i64,
    places: Option<(usize, usize)>,
}

impl Adapter {
    /// The tensor that is trained in place of parameter `place`, if there is one.
    pub fn in_place_of(&self, place: usize) -> Option<&Tensor> {
        self.whole.get(&place).map(|i| &self.params.tensors[*i])
    }

    /// Of every adapted matrix its place and, from its first row to its last, pieces of so many
    /// rows, with A and the scaled B of those that have an adapter.
    #[expect(clippy::type_complexity, reason = "read in one place")]
    pub fn sites(
        &self,
    ) -> impl Iterator<Item = (usize, Vec<(i64, Option<(Tensor, Tensor)>)>)> + use<'_> {
        let t = &self.params.tensors;
        self.sites.iter().map(move |(place, sites)| {
            let factors =
                |(a, b): (usize, usize)| (t[a].detach().copy(), t[b].detach() * self.scale);
            (*place, sites.iter().map(|s| (s.rows, s.places.map(factors))).collect())
        })
    }

    /// What is added to `(x · gain) Wᵀ`, where `W` is the matrix at `place`: `[…, rows]`.
    pub fn delta(
        &self,
        place: usize,
        x: &Tensor,
        gain: Option<&Tensor>,
        kind: Kind,
    ) -> Option<Tensor> {
        let t = &self.params.tensors;
        let pieces = self.sites.get(&place)?.iter().map(|site| match site.places {
            Some((a, b)) => {
                let a = gain.map_or_else(|| t[a].shallow_clone(), |gain| &t[a] * gain);
                let inner = x.linear(&a.to_kind(kind), None::<Tensor>);
                inner.linear(&(&t[b] * self.scale).to_kind(kind), None::<Tensor>)
            }
            None => {
                let mut shape = x.size();
                shape.pop();
                shape.push(site.rows);
                Tensor::zeros(shape, (kind, x.device()))
            }
        });
        let pieces: Vec<Tensor> = pieces.collect();
        Some(if pieces.len() == 1 { pieces[0].shallow_clone() } else { Tensor::cat(&pieces, -1) })
    }
}

impl Trunk {
    /// Freezes the weights and puts adapters beside them: A drawn from `seed`, and B = 0, so that
    /// nothing changes at first. The head of a reward model is trained whole. A rank of 0 leaves
    /// everything as it is.
    pub fn adapt(&mut self, lora: &Lora, seed: u64) {
        if lora.rank == 0 || lora.targets.is_empty() {
            return;
        }
        let c = &self.config;
        let [q, k, v] = c.qkv_widths();
        let up = if c.gated { vec![Target::Gate, Target::Up] } else { vec![Target::Up] };
        let (mut specs, mut sites) = (Vec::new(), BTreeMap::new());
        for (i, block) in self.index.blocks.iter().enumerate() {
            let up: Vec<_> = up.iter().map(|t| (*t, c.intermediate)).collect();
            for (place, parts) in [
                (block.qkv.weight, vec![(Target::Q, q), (Target::K, k), (Target::V, v)]),
                (block.o.weight, vec![(Target::O, c.hidden)]),
                (block.up.weight, up),
                (block.down.weight, vec![(Target::Down, c.hidden)]),
            ] {
                let inputs = self.params.specs[place].shape[1];
                let mut beside = Vec::new();
                for (target, rows) in parts {
                    let places = lora.targets.contains(&target).then(|| {
                        let rank = i64::from(lora.rank);
                        let name = |side: &str| format!("layers.{i}.{target:?}.lora_{side}");
                        let start = match lora.init {
                            // Kaiming's bound at a slope of √5.
                            Start::Kaiming => Init::Uniform((inputs as f64).powf(-0.5)),
                            Start::Normal => Init::Normal(1.0 / rank as f64),
                        };
                        specs.push(one(name("A"), vec![rank, inputs], start));
                        specs.push(one(name("B"), vec![rows, rank], Init::Zeros));
                        (specs.len() - 2, specs.len() - 1)
                    });
                    beside.push(Site { rows, places });
                }
                if beside.iter().any(|s| s.places.is_some()) {
                    sites.insert(place, beside);
                }
            }
        }
        self.params = self.params.shared();
        let head = self.index.head;
        let mut whole = BTreeMap::new();
        if let Some(bias) = head.bias {
            for place in [head.weight, bias] {
                whole.insert(place, specs.len());
                specs.push(ParamSpec { init: Init::Zeros, ..self.params.specs[place].clone() });
            }
        }
        let scale = lora.alpha / f64::from(lora.rank);
        let mut params = Params::init(specs, seed);
        let device = self.params.flat.device();
        if params.flat.device() != device {
            params = Params::from_flat(params.specs, params.flat.to_device(device));
        }
        no_grad(|| {
            for (place, i) in &whole {
                params.tensors[*i].detach().copy_(&self.params.tensors[*place]);
            }
        });
        self.adapter = Some(Adapter { params, sites, whole, scale });
    }

    /// Number of weights of the adapters; 0 without any.
    pub fn adapter_size(&self) -> u64 {
        self.adapter.as_ref().map_or(0, |a| a.params.numel() as u64)
    }

    /// The weights with the adapter added in; nothing without one.
    pub(super) fn merged(&self) -> Option<Params> {
        let adapter = self.adapter.as_ref()?;
        let (out, t) = (self.params.duplicate(), &adapter.params.tensors);
        no_grad(|| {
            for (place, i) in &adapter.whole {
                out.tensors[*place].detach().copy_(&t[*i]);
            }
            for (place, sites) in &adapter.sites {
                let mut start = 0;
                for site in sites {
                    if let Some((a, b)) = site.places {
                        let mut rows = out.tensors[*place].detach().narrow(0, start, site.rows);
                        rows += t[b].matmul(&t[a]) * adapter.scale;
                    }
                    start += site.rows;
                }
            }
        });
        Some(out)
    }
}

fn one(name: String, shape: Vec<i64>, init: Init) -> ParamSpec {
    ParamSpec::new(vec![Part { name, shape, stored: Stored::Plain }], init)
}
