//! Answers in the form of OpenAI: objects, and the chunks of a stream.
//! Does not know where they come from.

use serde_json::{Map, Value, json};

use crate::protocol::questions::TokenDoc;

/// Which route an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiRoute {
    Chat,
    Completions,
}

/// An answer that is whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WholeAnswer {
    pub text: String,
    pub tokens: Vec<TokenDoc>,
    /// It has as many tokens as it may have.
    pub cut: bool,
}

/// Numbers of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

/// What all objects about one request have in common.
#[derive(Debug, Clone)]
pub struct Writer {
    pub route: ApiRoute,
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    pub model: String,
    /// Names the weights.
    pub fingerprint: String,
    /// Tokens are told too.
    pub tokens: bool,
    /// Chunks say that numbers of tokens follow.
    pub usage: bool,
}

impl ApiRoute {
    /// The field that holds prompts.
    pub fn prompts(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Completions => "prompt",
        }
    }

    /// How ids of its answers begin.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Chat => "chatcmpl",
            Self::Completions => "cmpl",
        }
    }
}

impl Writer {
    /// The answer to a request that is no stream.
    pub fn whole(&self, choices: &[WholeAnswer], usage: Usage) -> Value {
        let object = match self.route {
            ApiRoute::Chat => "chat.completion",
            ApiRoute::Completions => "text_completion",
        };
        let one = |(index, choice): (usize, &WholeAnswer)| {
            let logprobs = self.logprobs(&choice.tokens);
            let finish_reason = finish(choice.cut);
            match self.route {
                ApiRoute::Chat => json!({
                    "index": index, "logprobs": logprobs, "finish_reason": finish_reason,
                    "message": { "role": "assistant", "content": choice.text, "refusal": null },
                }),
                ApiRoute::Completions => json!({
                    "index": index, "logprobs": logprobs, "finish_reason": finish_reason,
                    "text": choice.text,
                }),
            }
        };
        let choices: Vec<Value> = choices.iter().enumerate().map(one).collect();
        self.object(object, &choices, Some(written(usage)))
    }

    /// The chunk that begins an answer.
    pub fn first(&self, index: usize) -> Option<Value> {
        let delta = json!({ "role": "assistant", "content": "" });
        (self.route == ApiRoute::Chat)
            .then(|| self.chunk(json!({ "index": index, "delta": delta, "finish_reason": null })))
    }

    /// A chunk with a piece of an answer.
    pub fn piece(&self, index: usize, text: &str, tokens: &[TokenDoc]) -> Value {
        let logprobs = self.logprobs(tokens);
        self.chunk(match self.route {
            ApiRoute::Chat => json!({
                "index": index, "delta": { "content": text }, "logprobs": logprobs,
                "finish_reason": null,
            }),
            ApiRoute::Completions => json!({
                "index": index, "text": text, "logprobs": logprobs, "finish_reason": null,
            }),
        })
    }

    /// The chunk that ends an answer.
    pub fn end(&self, index: usize, cut: bool) -> Value {
        let finish_reason = finish(cut);
        self.chunk(match self.route {
            ApiRoute::Chat => json!({
                "index": index, "delta": {}, "logprobs": null, "finish_reason": finish_reason,
            }),
            ApiRoute::Completions => json!({
                "index": index, "text": "", "logprobs": null, "finish_reason": finish_reason,
            }),
        })
    }

    /// The chunk that ends a stream.
    pub fn usage(&self, usage: Usage) -> Value {
        self.object(self.chunks(), &[], Some(written(usage)))
    }

    fn chunk(&self, choice: Value) -> Value {
        self.object(self.chunks(), &[choice], self.usage.then_some(Value::Null))
    }

    fn chunks(&self) -> &'static str {
        match self.route {
            ApiRoute::Chat => "chat.completion.chunk",
            ApiRoute::Completions => "text_completion",
        }
    }

    fn object(&self, object: &str, choices: &[Value], usage: Option<Value>) -> Value {
        let mut all = json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model,
            "system_fingerprint": self.fingerprint, "choices": choices,
        });
        if let Some(usage) = usage {
            all["usage"] = usage;
        }
        all
    }

    fn logprobs(&self, tokens: &[TokenDoc]) -> Value {
        match self.route {
            _ if !self.tokens => Value::Null,
            ApiRoute::Chat => {
                json!({ "content": tokens.iter().map(of_chat).collect::<Vec<_>>(), "refusal": null })
            }
            ApiRoute::Completions => of_completion(tokens),
        }
    }
}

fn finish(cut: bool) -> &'static str {
    if cut { "length" } else { "stop" }
}

fn written(usage: Usage) -> Value {
    let Usage { prompt_tokens, completion_tokens } = usage;
    json!({
        "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    })
}

/// A token of a chat's answer.
fn of_chat(token: &TokenDoc) -> Value {
    let one = |text: &str, logprob: Option<f64>| json!({ "token": text, "logprob": logprob, "bytes": text.as_bytes() });
    let mut all = one(&token.text, token.logprob);
    let likeliest = token.likeliest.iter().map(|(text, logprob)| one(text, Some(*logprob)));
    all["top_logprobs"] = likeliest.collect();
    all
}

/// The tokens of a completion: four lists of one length.
fn of_completion(tokens: &[TokenDoc]) -> Value {
    let top = |token: &TokenDoc| {
        let own = token.logprob.map(|logprob| (token.text.clone(), logprob));
        let Some(own) = own else { return Value::Null };
        let mut map = Map::new();
        // Several tokens may have one text: the likeliest counts.
        for (text, logprob) in token.likeliest.iter().cloned().chain([own]) {
            map.entry(text).or_insert(logprob.into());
        }
        Value::Object(map)
    };
    json!({
        "tokens": tokens.iter().map(|token| token.text.as_str()).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
        "text_offset": tokens.iter().map(|token| token.at).collect::<Vec<_>>(),
    })
}
