//! Prompts as tokens, and whether there is room for answers to them.
//! Knows nothing of how answers are drawn.

use preflow::conversation::Message;
use preflow::protocol::questions::{PromptDoc, QuestionSpec, Refusal};

use super::{Model, Unfit};
use crate::data::{Content, Prompt, TemplateValues};

/// A prompt as the model sees it.
pub struct TokenizedPrompt {
    pub tokens: Vec<i64>,
    /// How many of its tokens stand before its text, as the one that begins every text does.
    pub lead: usize,
    /// Its text, where that is known.
    pub text: Option<String>,
}

/// The prompts of a question, and the most tokens that may answer each.
pub fn read_all(
    model: &Model,
    question: &QuestionSpec,
) -> Result<(Vec<TokenizedPrompt>, usize), Unfit> {
    let prompts: Vec<TokenizedPrompt> =
        question.prompts.iter().map(|prompt| read(model, prompt)).collect::<Result<_, _>>()?;
    let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or_default();
    let (context, asked) = (model.context(), question.max_tokens.map(|n| n as usize));
    let room = context.saturating_sub(longest);
    let too_long = |answer: String| Unfit {
        why: Refusal::TooLong,
        message: format!(
            "the model's context has {context} tokens; the prompt has {longest}, and {answer}"
        ),
    };
    match asked {
        Some(asked) if longest + asked > context => {
            Err(too_long(format!("{asked} are asked for as its answer")))
        }
        Some(asked) => Ok((prompts, asked)),
        None if room == 0 => Err(too_long("nothing is left for its answer".into())),
        None => Ok((prompts, room)),
    }
}

fn read(model: &Model, prompt: &PromptDoc) -> Result<TokenizedPrompt, Unfit> {
    let unfit = |message: String| Unfit { why: Refusal::Unfit, message };
    let vocabulary = &model.vocabulary;
    let read = match prompt {
        PromptDoc::Conversation { messages, arguments } => {
            let content = Content::from_json(&messages.to_string()).map_err(unfit)?;
            let last = match &content {
                Content::Messages(list) => list.last(),
                Content::Text(_) => None,
            };
            if last.is_some_and(Message::is_answer) {
                let why = "the last message is the assistant's: nothing is left to answer";
                return Err(unfit(why.into()));
            }
            let arguments = (!arguments.is_empty()).then(|| {
                serde_json::to_string(arguments).expect("invariant: a map of JSON is JSON")
            });
            if arguments.is_some() && !vocabulary.has_template() {
                return Err(unfit("the model has no chat template that takes arguments".into()));
            }
            let prompt = Prompt { content, values: TemplateValues { tools: None, arguments } };
            TokenizedPrompt { tokens: vocabulary.prompt(&prompt)?, lead: 0, text: None }
        }
        PromptDoc::Text(text) => {
            let tokens = vocabulary.opening(text)?;
            let lead = tokens.len() - vocabulary.encode(text)?.len();
            TokenizedPrompt { tokens, lead, text: Some(text.clone()) }
        }
        PromptDoc::Tokens(tokens) => {
            let vocab = model.policy.trunk.config.vocab;
            let known = |id: &i64| *id < vocab && vocabulary.token(*id).is_some();
            if let Some(id) = tokens.iter().find(|id| !known(id)) {
                return Err(unfit(format!("the model has no token {id}")));
            }
            TokenizedPrompt { tokens: tokens.clone(), lead: 0, text: None }
        }
    };
    if read.tokens.is_empty() {
        return Err(unfit(
            "a prompt is empty, and the model has no token that begins texts".into(),
        ));
    }
    Ok(read)
}
