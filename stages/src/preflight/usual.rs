//! Values that are usual for models of others, where a pipeline's own go far beyond them.
//! Knows nothing of what any kind does with them.

use std::path::Path;

use serde_json::Value;

use super::Preflight;

/// Fewer weights than this are a toy, for which larger steps are right.
const TOY: u64 = 20_000_000;
/// Answers of instruct models are seldom shorter, tokens.
const SHORT: u64 = 48;

/// What a model learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lesson {
    Demonstrations,
    Preferences,
    Scores,
    OwnResponses,
}

impl Lesson {
    /// Learning rates that are usual when all weights are trained, and who says so.
    fn usual(self) -> ([f64; 2], &'static str) {
        match self {
            Self::Demonstrations => ([1e-5, 5e-5], "TRL's default is 2e-5"),
            Self::Preferences => {
                ([5e-7, 5e-6], "TRL's default is 1e-6; Rafailov et al. 2023 take 1e-6")
            }
            Self::Scores => ([3e-6, 1e-4], "Ouyang et al. 2022 take 9e-6; TRL's default is 1e-4"),
            Self::OwnResponses => {
                ([5e-7, 5e-6], "TRL's default is 1e-6; Huang et al. 2024 take 3e-6")
            }
        }
    }
}

/// Adapters take steps larger by this.
const ADAPTERS: f64 = 10.0;

impl Preflight<'_> {
    /// Warns of a learning rate that is far from what is usual for the model at `port`, where that
    /// is somebody's real model. `adapters`: only adapters are trained.
    pub fn usual_rate(
        &mut self,
        port: &str,
        field: &str,
        rate: f64,
        adapters: bool,
        lesson: Lesson,
    ) {
        let Some(model) = self.imported(port) else { return };
        let (full, source) = lesson.usual();
        let [low, high] = full.map(|rate| if adapters { ADAPTERS * rate } else { rate });
        let (what, words) = match adapters {
            true => ("adapters of", format!("{source}, for all weights; adapters take ten times")),
            false => ("all weights of", source.to_owned()),
        };
        let harm = if rate > 2.0 * high {
            "likely ruins it"
        } else if adapters && rate < low / 5.0 {
            "hardly moves them"
        } else {
            return;
        };
        let message = format!("{field} {rate:e} for {what} {model} {harm}");
        let help = format!("{low:e} to {high:e} is usual ({words}); evaluation tells");
        self.warn(field, message, Some(help));
    }

    /// Warns of `max_tokens` that cut most answers of a real model at `port`.
    pub fn usual_length(&mut self, port: &str, max_tokens: u64) {
        if max_tokens >= SHORT {
            return;
        }
        let Some(model) = self.imported(port) else { return };
        let message = format!("max_tokens {max_tokens} cuts most answers of {model}");
        let help = "128 to 512 is usual; the figure tokens/eos_rate tells how many end";
        self.warn("max_tokens", message, Some(help.into()));
    }

    /// The model of others that what is connected to `port` started from, in words; `None` where
    /// it was trained here, is a toy, or nothing is known of it.
    fn imported(&self, port: &str) -> Option<String> {
        let input = self.inputs(port).first()?;
        let source = self.origin(input, "import_model")?.inputs.get("source")?.first()?;
        let weights = source.paths.first().and_then(|folder| weights(Path::new(folder)));
        if weights.is_some_and(|n| n < TOY) {
            return None;
        }
        let size = weights.map_or(String::new(), |n| format!(" ({} M weights)", n / 1_000_000));
        Some(format!("the imported model `{}`{size}", source.name))
    }
}

/// Number of weights of a folder of transformers, by the size of its files.
fn weights(folder: &Path) -> Option<u64> {
    let text = fs_err::read_to_string(folder.join("config.json")).ok()?;
    let config: Value = serde_json::from_str(&text).ok()?;
    let kind = config["dtype"].as_str().or(config["torch_dtype"].as_str()).unwrap_or("float32");
    let bytes = if kind.ends_with("16") { 2 } else { 4 };
    let size = |path: std::path::PathBuf| {
        let weights = path.extension().is_some_and(|e| e == "safetensors");
        weights.then(|| fs_err::metadata(path).map(|m| m.len()).unwrap_or_default())
    };
    let files = fs_err::read_dir(folder).ok()?.flatten();
    let total: u64 = files.filter_map(|file| size(file.path())).sum();
    (total > 0).then_some(total / bytes)
}
