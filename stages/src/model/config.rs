//! The shape of a decoder, as data: what differs between the architectures that are supported.
//! Knows nothing of weights or of the files that spell it; see `config_json` for those.

use anyhow::{Result, bail};

use crate::data::{BOS, EOS, PAD};

/// An architecture of transformers: decides the names in files, not the arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Gpt2,
    GptNeox,
}

/// How a token's place reaches attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Positions {
    /// Rotary positions (Su et al. 2021) on the first `fraction` of every head.
    Rotary { theta: f64, fraction: f64, scaling: RopeScaling },
    /// A learned vector a position, added to the embedding.
    Learned,
}

/// How rotary frequencies are stretched for a context longer than the one trained on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    None,
    /// All frequencies divided by `factor`.
    Linear {
        factor: f64,
    },
    /// Llama 3: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_context: i64,
    },
}

/// What stands before each linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// `x / √(mean(x²) + eps) · gain` (Zhang and Sennrich 2019).
    Rms,
    /// Mean and variance, with gain and bias (Ba et al. 2016).
    Layer,
}

/// The nonlinearity of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// `x · Φ(x)`.
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
}

/// Which linear layers have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Biases {
    pub qkv: bool,
    pub o: bool,
    pub mlp: bool,
}

/// Shape of a model. [`ModelConfig::default`] is a Llama without sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub family: Family,
    pub vocab: i64,
    pub hidden: i64,
    pub layers: i64,
    pub heads: i64,
    /// Heads of keys and values, each shared by `heads / kv_heads` queries.
    pub kv_heads: i64,
    /// Width of one attention head.
    pub head_dim: i64,
    pub intermediate: i64,
    pub context: i64,
    pub positions: Positions,
    pub norm: Norm,
    pub norm_eps: f64,
    pub activation: Activation,
    /// The MLP multiplies what it activates with a second projection (SwiGLU).
    pub gated: bool,
    pub biases: Biases,
    /// Queries and keys pass a norm of their own before the rotation.
    pub qk_norm: bool,
    /// Attention and MLP read the same input, and both are added to it.
    pub parallel: bool,
    /// The output layer is the embedding.
    pub tie_embeddings: bool,
    /// Starts a document; `None`: nothing does.
    pub bos: Option<i64>,
    /// Tokens that end an answer, the usual one first.
    pub eos: Vec<i64>,
    /// Fills rows up; masked, so any valid id that ends nothing will do.
    pub pad: i64,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            family: Family::Llama,
            vocab: 0,
            hidden: 0,
            layers: 0,
            heads: 0,
            kv_heads: 0,
            head_dim: 0,
            intermediate: 0,
            context: 0,
            positions: Positions::rotary(10_000.0),
            norm: Norm::Rms,
            norm_eps: 1e-6,
            activation: Activation::Silu,
            gated: true,
            biases: Biases::default(),
            qk_norm: false,
            parallel: false,
            tie_embeddings: false,
            bos: Some(BOS),
            eos: vec![EOS],
            pad: PAD,
        }
    }
}

impl Positions {
    /// Rotary positions over whole heads, not stretched.
    pub fn rotary(theta: f64) -> Self {
        Self::Rotary { theta, fraction: 1.0, scaling: RopeScaling::None }
    }
}

impl ModelConfig {
    /// Width of all queries together.
    pub fn query_width(&self) -> i64 {
        self.heads * self.head_dim
    }

    /// Widths of all queries, all keys and all values.
    pub fn qkv_widths(&self) -> [i64; 3] {
        let kv = self.kv_heads * self.head_dim;
        [self.query_width(), kv, kv]
    }

    /// Dimensions of a head that are rotated; 0 without rotary positions.
    pub fn rotary_dim(&self) -> i64 {
        match self.positions {
            Positions::Rotary { fraction, .. } => (self.head_dim as f64 * fraction) as i64,
            Positions::Learned => 0,
        }
    }

    /// Whether `token` ends an answer.
    pub fn ends(&self, token: i64) -> bool {
        self.eos.contains(&token)
    }

    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// Names the two sizes that do not.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("vocab", self.vocab, 1 << 20),
            ("hidden", self.hidden, 1 << 16),
            ("layers", self.layers, 1 << 10),
            ("heads", self.heads, 1 << 10),
            ("kv_heads", self.kv_heads, 1 << 10),
            ("head_dim", self.head_dim, 1 << 10),
            ("intermediate", self.intermediate, 1 << 18),
            ("context", self.context, 1 << 20),
        ];
        for (name, size, limit) in sizes {
            if !(1..=limit).contains(&size) {
                bail!("model.{name} must lie between 1 and {limit}, not {size}");
            }
        }
        if self.heads % self.kv_heads != 0 {
            bail!("heads {} must be a multiple of kv_heads {}", self.heads, self.kv_heads);
        }
        if let Positions::Rotary { theta, fraction, .. } = self.positions {
            if self.rotary_dim() < 2 || self.rotary_dim() % 2 != 0 || fraction > 1.0 {
                bail!("{fraction} of head_dim {} is no even number to rotate", self.head_dim);
            }
            if !theta.is_finite() || theta <= 0.0 {
                bail!("rope_theta must be a positive number, not {theta}");
            }
        }
        let ids = self.bos.iter().chain(&self.eos).chain([&self.pad]);
        for id in ids {
            if !(0..self.vocab).contains(id) {
                bail!("token {id} is not among the {} of the vocabulary", self.vocab);
            }
        }
        if self.eos == [self.pad] {
            bail!(
                "token {0} is both the padding (pad) and the end (eos): a model trained so never \
                 learns to stop",
                self.pad
            );
        }
        Ok(())
    }
}
