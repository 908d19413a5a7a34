//! Text to token ids and back, and the templates that turn prompts and conversations into rows.
//! Knows nothing of models.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Map, Value};
use tokenizers::Tokenizer;

mod answer;
mod growth;
mod incremental;
mod turns;

pub use incremental::Incremental;
pub use turns::check_turns;

use super::chat::{ChatTemplate, check_template};
use super::examples::Row;
use super::{Message, TemplateValues};
use crate::advice::error_with_help;

/// Fills a row up; never seen by attention or loss.
pub const PAD: i64 = 0;
/// Starts a document.
pub const BOS: i64 = 1;
/// Ends a document or an answer.
pub const EOS: i64 = 2;
/// Starts the turn of a person.
pub const USER: i64 = 3;
/// Starts the turn of the model.
pub const BOT: i64 = 4;

/// The special tokens in the order of their ids.
pub const SPECIAL: [&str; 5] = ["<pad>", "<bos>", "<eos>", "<user>", "<bot>"];

/// The file of a tokenizer in a model folder.
const TOKENIZER: &str = "tokenizer.json";
/// Says that the tokenizer was not made here: its special tokens and, in older folders, its
/// template.
const SETTINGS: &str = "tokenizer_config.json";
/// Where the settings keep arguments of the template.
const ARGUMENTS: &str = "chat_template_kwargs";
/// The template of a conversation.
const TEMPLATE: &str = "chat_template.jinja";

/// A tokenizer, the bytes it came from, and how it lays out turns.
///
/// One made by the kind `tokenizer` has its special tokens at the ids above and the template
/// `<bos><user>{prompt}<bot>{completion}<eos>`, without blanks between the parts. One that was
/// imported has special tokens of its own, and a chat template or none: then a row is the prompt,
/// the completion and the end token. Special tokens that stand in a text are read as such.
pub struct Vocabulary {
    tokenizer: Tokenizer,
    bytes: Vec<u8>,
    /// Files that belong to it, name and bytes.
    companions: Vec<(&'static str, Vec<u8>)>,
    turns: Turns,
    special: Special,
    /// A text has other tokens when it stands after another one.
    glues: bool,
}

/// The special tokens of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Special {
    /// Starts a document.
    pub bos: Option<i64>,
    /// Tokens that end an answer, the usual one first.
    pub eos: Vec<i64>,
    /// Fills rows up.
    pub pad: i64,
}

/// A chat template, or arguments of one, in place of what came with the tokenizer.
#[derive(Debug, Clone, Default)]
pub struct TemplateChange {
    /// The template in Jinja.
    pub source: Option<String>,
    /// Arguments of every rendering; each replaces that of its name.
    pub arguments: Map<String, Value>,
}

/// How turns are laid out.
#[derive(Debug)]
enum Turns {
    Own,
    Template(Box<ChatTemplate>),
    Plain,
}

impl Vocabulary {
    /// Opens a `tokenizer.json`. In a model folder the files beside it say whether it was
    /// imported.
    ///
    /// # Errors
    /// When the file is no tokenizer, lacks the special tokens at their ids, or the files beside
    /// it do not fit.
    pub fn open(path: &Path) -> Result<Self> {
        let context = || format!("cannot use {}", path.display());
        let bytes = fs_err::read(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let named = path.file_name().is_some_and(|name| name == TOKENIZER);
        if !named || !folder.join(SETTINGS).is_file() {
            return Self::from_bytes(bytes).with_context(context);
        }
        let config: Value = serde_json::from_slice(&fs_err::read(folder.join("config.json"))?)
            .with_context(context)?;
        let special = Special {
            bos: config["bos_token_id"].as_i64(),
            eos: token_ids(&config["eos_token_id"]),
            pad: config["pad_token_id"].as_i64().unwrap_or(PAD),
        };
        Self::imported(folder, special).with_context(context)
    }

    /// Reads the bytes of a `tokenizer.json` of the kind `tokenizer`.
    ///
    /// # Errors
    /// As [`Vocabulary::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        growth::check(&bytes)?;
        let tokenizer = Tokenizer::from_bytes(&bytes).map_err(|e| anyhow!("{e}"))?;
        if tokenizer.token_to_id(SPECIAL[0]).is_some()
            && tokenizer.token_to_id(SPECIAL[0]) == tokenizer.token_to_id(SPECIAL[2])
        {
            bail!("<pad> and <eos> are one token: a model trained so never learns to stop");
        }
        for (id, token) in SPECIAL.iter().enumerate() {
            match tokenizer.token_to_id(token) {
                Some(found) if found as usize == id => {}
                Some(found) => bail!("token `{token}` has id {found}, not {id}"),
                None => bail!("token `{token}` is missing"),
            }
        }
        let special = Special { bos: Some(BOS), eos: vec![EOS], pad: PAD };
        let (turns, glues) = (Turns::Own, false);
        Ok(Self { tokenizer, bytes, companions: Vec::new(), turns, special, glues })
    }

    /// The tokenizer in a folder of Hugging Face, for a model with these special tokens.
    ///
    /// # Errors
    /// When a file is missing or cannot be read, or the template is not usable.
    pub fn imported(folder: &Path, special: Special) -> Result<Self> {
        let bytes = fs_err::read(folder.join(TOKENIZER))?;
        growth::check(&bytes)?;
        let tokenizer = Tokenizer::from_bytes(&bytes).map_err(|e| anyhow!("{e}"))?;
        let mut companions = Vec::new();
        for name in [SETTINGS, TEMPLATE] {
            if folder.join(name).is_file() {
                companions.push((name, fs_err::read(folder.join(name))?));
            }
        }
        if !folder.join(SETTINGS).is_file() {
            // Its presence says that the tokenizer was imported.
            companions.push((SETTINGS, b"{}\n".to_vec()));
        }
        Self::assemble(tokenizer, bytes, companions, special)
    }

    /// The same tokenizer with another template, or with other arguments of it.
    ///
    /// # Errors
    /// The template is not usable; or there is none, or there are fixed marks of turns instead.
    pub fn with_template(self, change: &TemplateChange) -> Result<Self> {
        let TemplateChange { source, arguments } = change;
        if source.is_none() && arguments.is_empty() {
            return Ok(self);
        }
        if self.is_own() {
            bail!(
                "a tokenizer of the kind `tokenizer` lays turns out by itself, without a template"
            );
        }
        if source.is_none() && !self.has_template() {
            return Err(error_with_help(
                "the model has no chat template that could take arguments",
                "give it one: `chat_template: FILE`",
            ));
        }
        let mut companions = self.companions;
        if let Some(source) = source {
            check_template(source)?;
            companions.retain(|(name, _)| *name != TEMPLATE);
            companions.push((TEMPLATE, source.clone().into_bytes()));
        }
        for (_, bytes) in companions.iter_mut().filter(|(name, _)| *name == SETTINGS) {
            let mut settings: Value =
                serde_json::from_slice(bytes).with_context(|| format!("{SETTINGS} is not JSON"))?;
            let Some(fields) = settings.as_object_mut() else { bail!("{SETTINGS} is no map") };
            if source.is_some() {
                fields.remove("chat_template");
            }
            if !arguments.is_empty() {
                let known = fields.entry(ARGUMENTS).or_insert_with(|| Map::new().into());
                let Some(known) = known.as_object_mut() else {
                    bail!("`{ARGUMENTS}` of {SETTINGS} is no map")
                };
                known.extend(arguments.clone());
            }
            *bytes = (serde_json::to_string_pretty(&settings)? + "\n").into_bytes();
        }
        Self::assemble(self.tokenizer, self.bytes, companions, self.special)
    }

    fn assemble(
        tokenizer: Tokenizer,
        bytes: Vec<u8>,
        companions: Vec<(&'static str, Vec<u8>)>,
        special: Special,
    ) -> Result<Self> {
        let file = |name: &str| companions.iter().find(|(n, _)| *n == name).map(|(_, b)| b);
        let settings: Value = match file(SETTINGS) {
            Some(bytes) => {
                serde_json::from_slice(bytes).with_context(|| format!("{SETTINGS} is not JSON"))?
            }
            None => Value::Null,
        };
        let template = match file(TEMPLATE) {
            Some(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            None => template_of(&settings["chat_template"]),
        };
        let turns = match template {
            Some(source) => {
                let mut template = ChatTemplate::new(&source, special_names(&settings))?;
                let arguments = &settings[ARGUMENTS];
                template.arguments = arguments.is_object().then(|| arguments.to_string());
                Turns::Template(Box::new(template))
            }
            None => Turns::Plain,
        };
        let end = special_names(&settings).into_iter().find(|(name, _)| name == "eos_token");
        let mut made = Self { tokenizer, bytes, companions, turns, special, glues: false };
        made.glues = made.puts_blanks_before();
        made.end_first(end.and_then(|(_, token)| made.id(&token)));
        made.end_of_turn_first()?;
        Ok(made)
    }

    /// Moves the token with which the template ends an answer to the front of the end tokens.
    fn end_of_turn_first(&mut self) -> Result<()> {
        if !self.has_template() {
            return Ok(());
        }
        let probe = [Message::new("user", "a"), Message::new("assistant", "b")];
        // A template may refuse so short a conversation; then the usual end token stands.
        let Ok(row) = self.conversation(&probe, &TemplateValues::default(), 0) else {
            return Ok(());
        };
        let last = row.mask.iter().rposition(|learned| *learned);
        self.end_first(last.map(|i| row.tokens[i]));
        Ok(())
    }

    /// Makes `token` the one that ends completions, if it is an end token at all.
    fn end_first(&mut self, token: Option<i64>) {
        if let Some(place) = self.special.eos.iter().position(|e| Some(*e) == token) {
            self.special.eos.swap(0, place);
        }
    }

    /// What is wrong with the chat template, if anything is.
    pub fn trouble_with_template(&self) -> Option<String> {
        let Turns::Template(_) = &self.turns else { return None };
        let probe = [Message::new("user", "a"), Message::new("assistant", "b")];
        let row = match self.conversation(&probe, &TemplateValues::default(), 0) {
            Ok(row) => row,
            Err(e) => return Some(format!("a question and its answer cannot be rendered: {e:#}")),
        };
        let mut learned = row.tokens.iter().zip(&row.mask).filter(|(_, learned)| **learned);
        let ends = learned.next_back().is_some_and(|(token, _)| self.special.eos.contains(token));
        (!ends).then(|| {
            "the chat template ends no answer with an end token: what is learned from \
             conversations never stops by itself"
                .to_owned()
        })
    }

    /// Special tokens that the chat template does not use, in the order of their ids.
    pub fn idle_special(&self) -> Vec<i64> {
        let template = match &self.turns {
            Turns::Template(template) => template.source(),
            _ => "",
        };
        let added = self.tokenizer.get_added_tokens_decoder();
        let idle = added.iter().filter(|(_, t)| t.special && !template.contains(&t.content));
        let mut ids: Vec<i64> = idle.map(|(id, _)| i64::from(*id)).collect();
        ids.sort_unstable();
        ids
    }

    /// Fills rows with `id`, and says so in the settings of the tokenizer.
    ///
    /// # Errors
    /// When the settings are no JSON.
    pub fn fill_with(&mut self, id: i64) -> Result<()> {
        self.special.pad = id;
        let token = self.token(id);
        for (name, bytes) in &mut self.companions {
            if *name != SETTINGS {
                continue;
            }
            let mut settings: Value = serde_json::from_slice(bytes)?;
            let named =
                settings["pad_token"].as_str().or(settings["pad_token"]["content"].as_str());
            if let Some(token) = token.as_deref().filter(|token| named != Some(token)) {
                settings["pad_token"] = token.into();
                *bytes = (serde_json::to_string_pretty(&settings)? + "\n").into_bytes();
            }
        }
        Ok(())
    }

    /// The bytes of the file, to compare two.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes the tokenizer and what belongs to it into a model folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        fs_err::write(folder.join(TOKENIZER), &self.bytes)?;
        for (name, bytes) in &self.companions {
            fs_err::write(folder.join(name), bytes)?;
        }
        Ok(())
    }

    /// Whether it was made by the kind `tokenizer`.
    pub fn is_own(&self) -> bool {
        matches!(self.turns, Turns::Own)
    }

    /// Whether a chat template lays turns out.
    pub fn has_template(&self) -> bool {
        matches!(self.turns, Turns::Template(_))
    }

    /// The special tokens.
    pub fn special(&self) -> &Special {
        &self.special
    }

    /// Number of tokens.
    pub fn size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<i64> {
        self.tokenizer.token_to_id(token).map(i64::from)
    }

    /// The text of one token as the vocabulary spells it.
    pub fn token(&self, id: i64) -> Option<String> {
        self.tokenizer.id_to_token(u32::try_from(id).ok()?)
    }

    /// The ids of a text, with nothing added.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|e| anyhow!("{e}"))?;
        Ok(encoding.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// The text of ids, special tokens included; end tokens and padding leave no trace.
    ///
    /// # Errors
    /// When an id is unknown.
    pub fn decode(&self, ids: &[i64]) -> Result<String> {
        let ids: Vec<u32> =
            ids.iter().filter(|id| !self.is_silent(**id)).map(|id| *id as u32).collect();
        self.tokenizer.decode(&ids, false).map_err(|e| anyhow!("{e}"))
    }

    /// Whether a token stands for nothing. The padding of an imported model may be an ordinary
    /// token, which answers may contain.
    fn is_silent(&self, id: i64) -> bool {
        let special = |id: i64| {
            let added = self.tokenizer.get_added_tokens_decoder();
            u32::try_from(id).is_ok_and(|id| added.get(&id).is_some_and(|t| t.special))
        };
        self.special.eos.contains(&id) || (id == self.special.pad && (self.is_own() || special(id)))
    }

    /// `{completion}`, and the end token when it is finished.
    ///
    /// # Errors
    /// As [`Vocabulary::encode`].
    pub fn completion(&self, completion: &str, finished: bool) -> Result<Vec<i64>> {
        let mut ids = self.encode(completion)?;
        if finished {
            ids.extend(self.special.eos.first());
        }
        Ok(ids)
    }

    /// The tokens of two texts one after the other, parted where the second begins. A token that
    /// belongs to both goes to the second.
    fn continued(&self, before: &str, text: &str) -> Result<(Vec<i64>, Vec<i64>)> {
        let (alone, mut whole) = (self.encode(before)?, self.encode(&format!("{before}{text}"))?);
        let shared = alone.iter().zip(&whole).take_while(|(a, b)| a == b).count();
        let rest = whole.split_off(shared);
        Ok((whole, rest))
    }

    /// Whether a text has other tokens after a line feed than alone: tokenizers of the Llama 2 and
    /// Mistral kind put a blank before every text that they are given.
    fn puts_blanks_before(&self) -> bool {
        let apart = |word: &str| {
            let (alone, after) = (self.encode(word), self.continued("\n", word));
            matches!((alone, after), (Ok(alone), Ok((_, after))) if alone != after)
        };
        ["a", "The", "0"].into_iter().all(apart)
    }

    /// `<bos>{text}`: a text that goes on.
    ///
    /// # Errors
    /// As [`Vocabulary::encode`].
    pub fn opening(&self, text: &str) -> Result<Vec<i64>> {
        let mut ids: Vec<i64> = self.start().into_iter().collect();
        ids.extend(self.encode(text)?);
        Ok(ids)
    }

    /// `<bos>{text}<eos>`.
    ///
    /// # Errors
    /// As [`Vocabulary::encode`].
    pub fn document(&self, text: &str) -> Result<Vec<i64>> {
        let mut ids = self.opening(text)?;
        ids.extend(self.special.eos.first());
        Ok(ids)
    }

    /// What stands before a text: only what the tokenizer itself would put there, so a model
    /// without one gets none.
    fn start(&self) -> Option<i64> {
        if self.is_own() {
            return Some(BOS);
        }
        let empty = self.tokenizer.encode_fast("", true).ok()?;
        let bos = self.special.bos?;
        (empty.get_ids().first().copied().map(i64::from) == Some(bos)).then_some(bos)
    }
}

/// The ids of `eos_token_id`, which is one number or a list.
pub fn token_ids(value: &Value) -> Vec<i64> {
    match value.as_array() {
        Some(list) => list.iter().filter_map(Value::as_i64).collect(),
        None => value.as_i64().into_iter().collect(),
    }
}

/// The template in `tokenizer_config.json`: a text, or a list of named ones.
fn template_of(value: &Value) -> Option<String> {
    let named = |list: &Vec<Value>| {
        let default = list.iter().find(|t| t["name"] == "default");
        default.and_then(|t| t["template"].as_str().map(str::to_owned))
    };
    value.as_str().map(str::to_owned).or_else(|| value.as_array().and_then(named))
}

/// Tokens such as `bos_token`: a text, or an object with its `content`.
fn special_names(settings: &Value) -> Vec<(String, String)> {
    let of = |name: &str| {
        let value = &settings[name];
        value.as_str().or(value["content"].as_str()).map(|t| (name.to_owned(), t.to_owned()))
    };
    ["bos_token", "eos_token", "pad_token", "unk_token"].into_iter().filter_map(of).collect()
}
