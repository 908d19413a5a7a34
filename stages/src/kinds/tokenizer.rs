//! `tokenizer`: learns a vocabulary from text and writes a `tokenizer.json` that Hugging Face's
//! library opens. Knows nothing of models.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};
use preflow::protocol::{InputDoc, OutputDoc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use crate::advice::error_with_help;
use crate::context::Context;
use crate::data::{SPECIAL, Vocabulary};
use crate::kind::{Stage, Summary, input, output};
use crate::preflight::Preflight;

/// Params of `tokenizer`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainTokenizer {
    /// bpe: byte pairs, merged by frequency; byte: the 256 bytes; char: the characters of the
    /// text, other ones as bytes.
    algorithm: Algorithm,
    /// Size of the vocabulary, the five special tokens included. `byte` always has 261; for
    /// `char` it is the most that is allowed.
    #[schemars(range(min = 1), extend("x-unit" = "count"))]
    vocab_size: u64,
}

impl Default for TrainTokenizer {
    fn default() -> Self {
        Self { algorithm: Algorithm::Bpe, vocab_size: 4096 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Algorithm {
    Bpe,
    Byte,
    Char,
}

/// Special tokens and bytes: what every vocabulary holds.
const BASE: usize = SPECIAL.len() + 256;

impl Stage for TrainTokenizer {
    const NAME: &'static str = "tokenizer";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "learn a vocabulary from text";
    const FIGURES: &'static [&'static str] = &["tokenizer/*"];
    const THREADS: u32 = 1;

    fn inputs() -> Vec<InputDoc> {
        vec![input("text", &["dataset/text"], "the text to learn from")]
    }

    fn outputs() -> Vec<OutputDoc> {
        vec![output("tokenizer", "tokenizer", "json", "opens in Hugging Face tokenizers")]
    }

    fn check(&self, look: &mut Preflight) {
        look.tell("vocab_size", self.limit());
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        let texts = cx.texts("text")?.collect::<Result<Vec<String>>>()?;
        if texts.is_empty() {
            return Err(error_with_help(
                "there is no text to learn from",
                "check what `text` names",
            ));
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let limit = self.limit()?;
        let tokenizer = match self.algorithm {
            Algorithm::Byte => byte_pairs(&[], BASE)?,
            Algorithm::Bpe => byte_pairs(&texts, limit)?,
            Algorithm::Char => characters(&texts, limit)?,
        };
        let json = tokenizer.to_string(true).map_err(|e| anyhow!("{e}"))?;
        let path = cx.output("tokenizer")?;
        fs_err::write(&path, json + "\n")?;
        cx.complete("tokenizer", None)?;
        let vocabulary = Vocabulary::open(&path)?;
        let sample: Vec<&str> = texts.iter().take(1000).copied().collect();
        let bytes: usize = sample.iter().map(|t| t.len()).sum();
        let mut tokens = 0;
        for text in &sample {
            tokens += vocabulary.encode(text)?.len();
        }
        let size = vocabulary.size();
        if size < limit && self.algorithm == Algorithm::Bpe {
            cx.warn(format!("the text has no more pairs: {size} tokens instead of {limit}"))?;
        }
        Ok(Summary::from([
            ("tokenizer/vocab".into(), size as f64),
            ("tokenizer/bytes_per_token".into(), bytes as f64 / tokens.max(1) as f64),
        ]))
    }
}

impl TrainTokenizer {
    /// Largest vocabulary, tokens.
    fn limit(&self) -> Result<usize> {
        let limit = self.vocab_size as usize;
        if limit < BASE {
            let help = format!("set vocab_size to {BASE} or more");
            let message = format!(
                "a vocabulary of {limit} is too small: {} special tokens and 256 bytes need {BASE}",
                SPECIAL.len()
            );
            return Err(error_with_help(message, help));
        }
        Ok(limit)
    }
}

/// Byte pairs learnt from `texts` up to `size` tokens in all; ties go to the smaller ids, so equal
/// texts give equal bytes.
fn byte_pairs(texts: &[&str], size: usize) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(size)
        .min_frequency(2)
        .special_tokens(special_tokens())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .show_progress(false)
        .build()
        .into();
    tokenizer.train(&mut trainer, between_special(texts)).map_err(|e| anyhow!("{e}"))?;
    Ok(tokenizer)
}

/// Every character of `texts` is a token; others fall back to bytes.
fn characters(texts: &[&str], limit: usize) -> Result<Tokenizer> {
    let chars: BTreeSet<char> = between_special(texts).flat_map(str::chars).collect();
    let size = BASE + chars.len();
    if size > limit {
        let message = format!(
            "a vocabulary of {limit} is too small: {} characters, 256 bytes and {} special tokens \
             need {size}",
            chars.len(),
            SPECIAL.len()
        );
        return Err(error_with_help(message, format!("set vocab_size to {size} or more")));
    }
    let special = SPECIAL.iter().map(|s| (*s).to_owned());
    let bytes = (0..256).map(|b| format!("<0x{b:02X}>"));
    let tokens = special.chain(bytes).chain(chars.into_iter().map(String::from));
    let ids = tokens.enumerate().map(|(id, token)| (token, id as u32)).collect();
    let model = BPE::builder().vocab_and_merges::<tokenizers::models::bpe::Vocab>(ids, Vec::new());
    let model = model.byte_fallback(true).build().map_err(|e| anyhow!("{e}"))?;
    let mut tokenizer = Tokenizer::new(model);
    let decoder = Sequence::new(vec![ByteFallback::new().into(), Fuse::new().into()]);
    tokenizer.with_decoder(Some(decoder));
    tokenizer.add_special_tokens(special_tokens()).map_err(|e| anyhow!("{e}"))?;
    Ok(tokenizer)
}

fn special_tokens() -> Vec<AddedToken> {
    SPECIAL.iter().map(|s| AddedToken::from(*s, true)).collect()
}

/// The stretches between special tokens, whose spelling is not text to learn from.
fn between_special<'a>(texts: &[&'a str]) -> impl Iterator<Item = &'a str> + Send {
    let mut out: Vec<&str> = texts.to_vec();
    for special in SPECIAL {
        out = out.into_iter().flat_map(|t| t.split(special)).filter(|t| !t.is_empty()).collect();
    }
    out.into_iter()
}
