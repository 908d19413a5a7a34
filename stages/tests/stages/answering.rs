//! A model that stays: what it answers, in which turns, and what it refuses.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use preflow::protocol::questions::{Ask, PromptDoc, QuestionSpec, Refusal, TokenDoc, Told};
use preflow::protocol::{Execution, PROTOCOL};
use preflow_stages::answering::AnsweringModel;
use preflow_stages::data::{Example, Incremental, Vocabulary};
use preflow_stages::model::{ModelConfig, Packed, Policy, Trunk};
use serde_json::{Value, json};
use tch::Device;

use crate::harness::*;

const CONTEXT: i64 = 600;

/// A policy of bytes with random weights in `policy`.
fn policy(shop: &Workshop) -> (Policy, Vocabulary) {
    let vocabulary = byte_vocabulary(shop);
    let vocab = vocabulary.size() as i64;
    let config = ModelConfig { vocab, context: CONTEXT, ..tiny_config() };
    let policy = Policy { trunk: Trunk::init(config, false, 3) };
    tch::no_grad(|| {
        let n = policy.trunk.params.decaying();
        let _ = policy.trunk.params.flat.narrow(0, 0, n).g_mul_scalar_(6.0);
    });
    policy.save(&shop.path("policy"), &vocabulary).expect("saved");
    (policy, vocabulary)
}

fn model(shop: &Workshop) -> AnsweringModel {
    tch::set_num_threads(1);
    AnsweringModel::open(&shop.path("policy"), Device::Cpu).expect("opens")
}

fn question(id: u64, prompts: &[&str]) -> QuestionSpec {
    QuestionSpec {
        id,
        prompts: prompts.iter().map(|text| PromptDoc::Text((*text).to_owned())).collect(),
        n: 1,
        max_tokens: Some(12),
        temperature: 0.0,
        top_p: 1.0,
        seed: 5,
        stop: Vec::new(),
        echo: false,
        logprobs: None,
    }
}

fn said(text: &str) -> PromptDoc {
    let messages = json!([{ "role": "user", "content": text }]);
    PromptDoc::Conversation { messages, arguments: serde_json::Map::new() }
}

/// All that is told until nothing more is asked.
fn all(model: &mut AnsweringModel) -> Vec<Told> {
    let mut told = Vec::new();
    while !model.is_idle() {
        model.step(&mut |one| told.push(one));
    }
    told
}

fn ask(model: &mut AnsweringModel, question: &QuestionSpec) -> Vec<Told> {
    let mut told = Vec::new();
    model.take(question.clone(), &mut |one| told.push(one));
    told.extend(all(model));
    told
}

#[derive(Debug, Default, Clone, PartialEq)]
struct Answer {
    pieces: Vec<String>,
    tokens: Vec<TokenDoc>,
    /// Whether it was cut, and its tokens.
    end: Option<(bool, u64)>,
}

impl Answer {
    fn text(&self) -> String {
        self.pieces.concat()
    }
}

fn answers(told: &[Told], id: u64) -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::new();
    let mut at = |answer: u32| -> usize {
        let place = answer as usize;
        answers.resize_with(answers.len().max(place + 1), Answer::default);
        place
    };
    let mut found = Vec::new();
    for one in told {
        match one {
            Told::Piece { question, answer, .. } | Told::Ended { question, answer, .. }
                if *question == id =>
            {
                found.push((at(*answer), one.clone()));
            }
            _ => {}
        }
    }
    for (place, one) in found {
        let answer = &mut answers[place];
        assert_eq!(answer.end, None, "nothing comes behind the end: {one:?}");
        match one {
            Told::Piece { text, tokens, .. } => {
                answer.pieces.push(text);
                answer.tokens.extend(tokens);
            }
            Told::Ended { cut, tokens, .. } => answer.end = Some((cut, tokens)),
            _ => {}
        }
    }
    answers
}

fn texts(told: &[Told], id: u64) -> Vec<String> {
    answers(told, id).iter().map(Answer::text).collect()
}

fn refusal(told: &[Told]) -> (Refusal, &str) {
    match told {
        [Told::Refused { why, message, .. }] => (*why, message),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn answers_are_those_of_the_kind_sample() {
    let shop = Workshop::new();
    policy(&shop);
    let mut model = model(&shop);
    let prompts = ["ab", "a longer one"];
    let rows = prompts.map(|prompt| json!({ "prompt": prompt }).to_string() + "\n");
    shop.write("prompts.jsonl", rows.concat());
    for (name, temperature, top_p) in [("greedy", 0.0, 1.0), ("warm", 0.9, 0.8)] {
        let params = json!({"n": 3, "max_tokens": 20, "seed": 5, "temperature": temperature,
                            "top_p": top_p});
        let inputs: &[(&str, &[&str])] = &[("model", &["policy"]), ("prompts", &["prompts.jsonl"])];
        shop.run(name, "sample", params, inputs).summary();
        let table = shop.table(&format!("{name}.answers.parquet"));
        let drawn = table.texts("completion").expect("text");
        let asked = QuestionSpec {
            prompts: prompts.iter().map(|text| said(text)).collect(),
            n: 3,
            max_tokens: Some(20),
            temperature,
            top_p,
            ..question(1, &[])
        };
        let told = ask(&mut model, &asked);
        let trimmed: Vec<String> =
            texts(&told, 1).iter().map(|text| text.trim().to_owned()).collect();
        assert_eq!(trimmed, drawn, "{name}");
    }
}

/// Log-probabilities of each token of a row but its first, by arithmetic of its own.
fn by_hand(policy: &Policy, row: &[i64]) -> Vec<Vec<f64>> {
    let example = Example { prompt: row[..1].to_vec(), completion: row[1..].to_vec() };
    let packed = Packed::new(&[&example], Device::Cpu);
    let logits = tch::no_grad(|| packed.logits(policy));
    let vocab = logits.size()[1] as usize;
    let rows = numbers(&logits);
    let log_softmax = |x: &[f64]| {
        let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|x| (x - most).exp()).sum();
        x.iter().map(|x| x - most - sum.ln()).collect()
    };
    rows.chunks_exact(vocab).map(log_softmax).collect()
}

#[test]
fn an_echo_says_how_likely_each_token_of_the_prompt_is() {
    let shop = Workshop::new();
    let (policy, vocabulary) = policy(&shop);
    let mut model = model(&shop);
    let prompts = ["to be", "or not, that is the question", "é"];
    let by_text = QuestionSpec {
        echo: true,
        logprobs: Some(3),
        max_tokens: Some(1),
        ..question(1, &prompts)
    };
    let rows: Vec<Vec<i64>> =
        prompts.iter().map(|text| vocabulary.opening(text).expect("ids")).collect();
    let ids = rows.iter().map(|row| PromptDoc::Tokens(row.clone())).collect();
    let by_ids = QuestionSpec { prompts: ids, max_tokens: Some(0), ..by_text.clone() };
    let (one, other) = (ask(&mut model, &by_text), ask(&mut model, &by_ids));
    let (one, other) = (answers(&one, 1), answers(&other, 1));
    for ((row, text), (one, other)) in rows.iter().zip(prompts).zip(one.iter().zip(&other)) {
        assert_eq!(one.tokens.len(), row.len() + 1);
        assert_eq!(other.tokens.len(), row.len());
        assert!(one.text().starts_with(text), "{one:?}");
        assert_eq!(other.text(), format!("<bos>{text}"));
        assert_eq!((one.end, other.end), (Some((true, 1)), Some((true, 0))));
        assert_eq!((one.tokens[0].logprob, &one.tokens[0].text[..]), (None, "<bos>"));
        for (place, hand) in by_hand(&policy, row).iter().enumerate() {
            let (token, again) = (&one.tokens[place + 1], &other.tokens[place + 1]);
            let logprob = token.logprob.expect("a number");
            assert!((logprob - hand[row[place + 1] as usize]).abs() < 1e-4, "{token:?}");
            assert!((logprob - again.logprob.expect("a number")).abs() < 1e-5);
            let mut best = hand.clone();
            best.sort_by(|a, b| b.total_cmp(a));
            close(&token.likeliest.iter().map(|l| l.1).collect::<Vec<_>>(), &best[..3], 1e-4);
            let own = token.likeliest.iter().find(|(text, _)| *text == token.text);
            assert!(own.is_none_or(|own| own.1 == logprob), "{token:?}");
        }
    }
    let at: Vec<u64> = one[0].tokens.iter().map(|token| token.at).collect();
    assert_eq!(at, [0, 0, 1, 2, 3, 4, 5], "the first token has no text");
    let drawn = one[0].tokens.last().expect("drawn");
    assert_eq!(drawn.logprob, Some(drawn.likeliest[0].1), "the likeliest, to the bit");
}

#[test]
fn a_long_answer_is_as_likely_when_it_is_drawn_as_when_it_is_read() {
    let shop = Workshop::new();
    let (policy, vocabulary) = policy(&shop);
    let mut model = model(&shop);
    // Ends are rare enough here that one of these is longer than the cache is at first.
    let asked = QuestionSpec {
        prompts: vec![said("go on")],
        n: 8,
        temperature: 1.0,
        max_tokens: Some(400),
        logprobs: Some(0),
        ..question(1, &[])
    };
    let told = ask(&mut model, &asked);
    let answers = answers(&told, 1);
    let longest = answers.iter().max_by_key(|answer| answer.tokens.len()).expect("eight");
    assert!(longest.tokens.len() > 300, "{}", longest.tokens.len());
    let prompt = vocabulary.prompt(&preflow_stages::data::Prompt::text("go on")).expect("ids");
    let spelled = |token: &TokenDoc| {
        let all = 0..vocabulary.size() as i64;
        all.into_iter().find(|id| vocabulary.alone(*id).expect("text") == token.text)
    };
    let ids: Vec<i64> = longest.tokens.iter().map(|t| spelled(t).expect("a token")).collect();
    let row = [prompt.clone(), ids.clone()].concat();
    let hand = by_hand(&policy, &row);
    for (i, token) in longest.tokens.iter().enumerate() {
        let hand = hand[prompt.len() - 1 + i][ids[i] as usize];
        assert!((token.logprob.expect("a number") - hand).abs() < 1e-3, "at {i}");
    }
    let kept: Vec<i64> = ids.iter().copied().filter(|id| *id != 2).collect();
    assert_eq!(longest.text(), vocabulary.decode(&kept).expect("text"));
}

#[test]
fn pieces_join_to_the_whole_text_and_characters_are_never_cut() {
    let shop = Workshop::new();
    let (_, vocabulary) = policy(&shop);
    let text = "naïve 👩‍👧 “quoted” 日本 ".repeat(20);
    let mut ids = vocabulary.encode(&text).expect("ids");
    // Half a character, and bytes that are none.
    ids.extend([ids[2], 200, 201, 202]);
    let mut growing = Incremental::default();
    let mut pieces: Vec<String> =
        ids.iter().map(|id| growing.push(&vocabulary, *id).expect("known")).collect();
    let joined = pieces.concat();
    assert!(!joined[..text.len()].contains('\u{FFFD}') && joined.starts_with(&text));
    pieces.push(growing.finish(&vocabulary).expect("known"));
    assert_eq!(pieces.concat(), vocabulary.decode(&ids).expect("text"));
}

/// A model of others, imported into `NAME.model`.
fn imported(shop: &Workshop, name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name);
    let source = source.to_str().expect("UTF-8");
    shop.run(name, "import_model", json!({}), &[("source", &[source])]).summary();
    shop.path(&format!("{name}.model"))
}

#[test]
fn tokenizers_of_others_are_read_token_by_token_too() {
    let shop = Workshop::new();
    for name in ["llama", "mistral", "qwen2", "gpt2"] {
        let folder = imported(&shop, name);
        let vocabulary = Vocabulary::open(&folder.join("tokenizer.json")).expect("opens");
        let text = "Is it red? Yes, it is: naïve 👩‍👧 日本. ".repeat(9);
        let ids = vocabulary.encode(&text).expect("ids");
        let mut growing = Incremental::default();
        let pieces = ids.iter().map(|id| growing.push(&vocabulary, *id).expect("known"));
        let joined = pieces.collect::<String>() + &growing.finish(&vocabulary).expect("known");
        assert_eq!(joined, vocabulary.decode(&ids).expect("text"), "{name}");
        let word = vocabulary.encode("a b").expect("ids");
        let alone: Vec<String> =
            word.iter().map(|id| vocabulary.alone(*id).expect("text")).collect();
        assert!(alone.concat().ends_with(" b"), "{name}: {alone:?}");
    }
}

#[test]
fn a_chat_goes_through_the_template_of_the_model() {
    let shop = Workshop::new();
    let folder = imported(&shop, "qwen2");
    let messages = json!([
        { "role": "system", "content": "Be kind." },
        { "role": "user", "content": "Is it red?" },
    ]);
    shop.write("prompts.jsonl", json!({ "prompt": messages }).to_string() + "\n");
    let params = json!({"n": 2, "max_tokens": 10, "seed": 5, "temperature": 1.0});
    let inputs: &[(&str, &[&str])] =
        &[("model", &["qwen2.model"]), ("prompts", &["prompts.jsonl"])];
    shop.run("drawn", "sample", params, inputs).summary();
    let drawn = shop.table("drawn.answers.parquet").transcripts("completion").expect("answers");
    tch::set_num_threads(1);
    let mut model = AnsweringModel::open(&folder, Device::Cpu).expect("opens");
    let conversation = |messages: &Value, arguments: Value| PromptDoc::Conversation {
        messages: messages.clone(),
        arguments: arguments.as_object().expect("a map").clone(),
    };
    let asked = |prompt: PromptDoc| QuestionSpec {
        prompts: vec![prompt],
        n: 2,
        max_tokens: Some(10),
        temperature: 1.0,
        ..question(1, &[])
    };
    let told = ask(&mut model, &asked(conversation(&messages, json!({}))));
    let trimmed: Vec<String> = texts(&told, 1).iter().map(|text| text.trim().to_owned()).collect();
    assert_eq!(trimmed, drawn);
    let told = ask(&mut model, &asked(conversation(&messages, json!({ "unheard_of": 1 }))));
    assert_eq!(texts(&told, 1).len(), 2, "what a template does not read changes nothing");
}

#[test]
fn an_answer_ends_before_a_text_that_stops_it() {
    let shop = Workshop::new();
    policy(&shop);
    let mut model = model(&shop);
    let whole = QuestionSpec { max_tokens: Some(60), temperature: 0.7, ..question(1, &["stop"]) };
    let text = texts(&ask(&mut model, &whole), 1).remove(0);
    let chars: Vec<char> = text.chars().collect();
    let sound = |at: &usize| chars[*at..at + 3].iter().all(|c| *c != '\u{FFFD}');
    let at = (10..chars.len() - 3).find(sound).expect("three characters in a row");
    let stop: String = chars[at..at + 3].iter().collect();
    let before = text.split(&stop).next().expect("a part").to_owned();
    let stopped = QuestionSpec {
        stop: vec!["never there".into(), stop.clone()],
        logprobs: Some(0),
        ..whole.clone()
    };
    let told = ask(&mut model, &stopped);
    let answer = answers(&told, 1).remove(0);
    assert_eq!(answer.text(), before);
    assert_eq!(answer.end.map(|end| end.0), Some(false), "it is not cut");
    assert!(answer.tokens.iter().all(|token| token.at < before.chars().count() as u64));
    let mut drawn = String::new();
    for piece in &answer.pieces {
        drawn.push_str(piece);
        assert!(before.starts_with(&drawn), "nothing is taken back: {drawn}");
    }
    let at_once = QuestionSpec { stop: vec![chars[0].to_string()], ..whole };
    assert_eq!(texts(&ask(&mut model, &at_once), 1), [""], "nothing at all");
}

#[test]
fn questions_take_turns_and_know_nothing_of_each_other() {
    let shop = Workshop::new();
    policy(&shop);
    let mut model = model(&shop);
    let long = QuestionSpec { n: 2, max_tokens: Some(200), ..question(1, &["long"]) };
    let long = QuestionSpec { temperature: 1.0, logprobs: Some(2), ..long };
    let short = QuestionSpec { max_tokens: Some(4), ..question(2, &["short"]) };
    let alone = ask(&mut model, &long);
    let mut told = Vec::new();
    model.take(long.clone(), &mut |one| told.push(one));
    for _ in 0..3 {
        model.step(&mut |one| told.push(one));
    }
    model.take(short, &mut |one| told.push(one));
    told.extend(all(&mut model));
    let place = |id: u64| {
        let ended = |one: &Told| matches!(one, Told::Ended { question, .. } if *question == id);
        told.iter().rposition(ended).expect("ended")
    };
    assert!(place(2) < place(1), "the short one does not wait");
    assert_eq!(answers(&told, 1), answers(&alone, 1), "to the bit");

    let mut told = Vec::new();
    for id in 3..40 {
        model.take(question(id, &["one of many"]), &mut |one| told.push(one));
    }
    told.extend(all(&mut model));
    let all: Vec<String> = (3..40).flat_map(|id| texts(&told, id)).collect();
    assert!(all.len() == 37 && all.iter().all(|text| *text == all[0]), "{all:?}");

    model.take(long, &mut |_| {});
    model.step(&mut |_| {});
    model.forget(1);
    assert!(model.is_idle());
}

#[test]
fn what_cannot_be_answered_is_refused_in_words() {
    let shop = Workshop::new();
    policy(&shop);
    let mut model = model(&shop);
    let mut refused = |question: QuestionSpec| {
        let told = ask(&mut model, &question);
        let (why, message) = refusal(&told);
        (why, message.to_owned())
    };
    let long = QuestionSpec { max_tokens: Some(590), ..question(1, &["some words"]) };
    assert_eq!(
        refused(long),
        (
            Refusal::TooLong,
            "the model's context has 600 tokens; the prompt has 11, and 590 are asked for as its \
             answer"
                .into()
        )
    );
    let full = QuestionSpec { max_tokens: None, ..question(1, &["x".repeat(599).as_str()]) };
    assert_eq!(refused(full).0, Refusal::TooLong);
    let one = |prompt: PromptDoc| QuestionSpec { prompts: vec![prompt], ..question(1, &[]) };
    for (prompt, part) in [
        (PromptDoc::Tokens(vec![1, 9999]), "no token 9999"),
        (PromptDoc::Tokens(vec![-1]), "no token -1"),
        (PromptDoc::Tokens(vec![]), "a prompt is empty"),
        (
            PromptDoc::Conversation {
                messages: json!([{ "role": "assistant", "content": "yes" }]),
                arguments: serde_json::Map::new(),
            },
            "nothing is left to answer",
        ),
        (
            PromptDoc::Conversation {
                messages: json!([{ "role": "user", "content": "yes" }]),
                arguments: serde_json::Map::from_iter([("enable_thinking".into(), json!(true))]),
            },
            "no chat template",
        ),
    ] {
        let (why, message) = refused(one(prompt));
        assert!(why == Refusal::Unfit && message.contains(part), "{message}");
    }
}

/// What the worker's process says to lines on its standard input, and its exit code.
fn process(lines: &[String]) -> (Vec<Told>, Option<i32>) {
    let mut command = Command::new(WORKER);
    command.arg("answer").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    for line in lines {
        writeln!(stdin, "{line}").expect("written");
    }
    let mut told = Vec::new();
    for line in out.lines() {
        let line = line.expect("UTF-8");
        told.push(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}")));
        if matches!(told.last(), Some(Told::Ended { .. })) {
            break;
        }
    }
    drop(stdin);
    (told, child.wait().expect("ended").code())
}

#[test]
fn the_process_answers_until_its_input_ends() {
    let shop = Workshop::new();
    policy(&shop);
    let open = |protocol: u32, folder: &str| {
        let model = shop.path(folder).to_str().expect("UTF-8").to_owned();
        let execution = Execution { threads: Some(1), ..Execution::default() };
        serde_json::to_string(&Ask::Open { protocol, model, execution }).expect("JSON")
    };
    let asked = serde_json::to_string(&Ask::Question(question(7, &["x"]))).expect("JSON");
    let (told, code) = process(&[open(PROTOCOL, "policy"), "no JSON".into(), asked.clone()]);
    assert!(matches!(told[0], Told::Ready { context: 600 }), "{told:?}");
    assert!(matches!(told[1], Told::Begun { question: 7, prompt_tokens: 2 }), "{told:?}");
    let mut here = model(&shop);
    assert_eq!(texts(&told, 7), texts(&ask(&mut here, &question(7, &["x"])), 7));
    assert_eq!(code, Some(143), "nobody asks any more");
    for (first, part) in [
        (open(PROTOCOL, "nowhere"), "cannot open the model"),
        (open(99, "policy"), "speak protocol 99"),
        (asked, "names no model"),
    ] {
        let (told, code) = process(&[first]);
        assert_eq!(code, Some(1), "{told:?}");
        let [Told::Failed { message, .. }] = told.as_slice() else { panic!("{told:?}") };
        assert!(message.contains(part), "{message}");
    }
}
