//! Requests as clients send them, refusals in words, and answers as clients get them; a worker that
//! is played by a list of lines.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Request as HttpRequest, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::ServiceExt as _;

use super::desk::Desk;
use super::error::ApiError;
use super::guard::ApiGuard;
use super::request::Request;
use super::routes::{ApiState, router};
use super::{chat, completions};
use crate::protocol::questions::{Ask, PromptDoc, QuestionSpec, Refusal, TokenDoc, Told};

fn merged(base: Value, more: &Value) -> Vec<u8> {
    let mut all = base;
    for (name, value) in more.as_object().expect("a map") {
        all[name] = value.clone();
    }
    serde_json::to_vec(&all).expect("JSON")
}

fn chat_of(more: &Value) -> Result<Request, ApiError> {
    let base = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    chat::read(&merged(base, more))
}

fn completion_of(more: &Value) -> Result<Request, ApiError> {
    completions::read(&merged(json!({ "model": "m", "prompt": "hi" }), more))
}

#[test]
fn a_chat_with_every_field_is_understood() {
    let request = chat_of(&json!({
        "messages": [
            { "role": "system", "content": [{ "type": "text", "text": "Be brief." }] },
            { "role": "user", "content": "hi", "name": "ann" },
        ],
        "stream": true, "stream_options": { "include_usage": true }, "n": 3, "seed": -1,
        "temperature": 0.5, "top_p": 0.9, "stop": ["a", "b"], "max_completion_tokens": 7,
        "logprobs": true, "top_logprobs": 4, "user": "ann", "tools": null, "tool_choice": "none",
        "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "store": false,
        "response_format": { "type": "text" }, "chat_template_kwargs": { "enable_thinking": false },
    }));
    let Request { model, stream, usage, question } = request.expect("understood");
    assert_eq!((model.as_str(), stream, usage), ("m", true, true));
    let [PromptDoc::Conversation { messages, arguments }] = question.prompts.as_slice() else {
        panic!("{question:?}")
    };
    assert_eq!(messages[1]["name"], "ann");
    assert_eq!(arguments["enable_thinking"], false);
    assert_eq!(
        QuestionSpec { prompts: Vec::new(), ..question },
        QuestionSpec {
            id: 0,
            prompts: Vec::new(),
            n: 3,
            max_tokens: Some(7),
            temperature: 0.5,
            top_p: 0.9,
            seed: u64::MAX,
            stop: vec!["a".into(), "b".into()],
            echo: false,
            logprobs: Some(4),
        }
    );
    let plain = chat_of(&json!({ "seed": 5 })).expect("understood").question;
    assert_eq!((plain.n, plain.max_tokens, plain.logprobs), (1, None, None));
    assert_eq!((plain.temperature, plain.top_p, plain.seed), (1.0, 1.0, 5));
    let seeds = [(); 2].map(|()| chat_of(&json!({})).expect("understood").question.seed);
    assert_ne!(seeds[0], seeds[1], "no seed is another one each time");
}

#[test]
fn completions_take_prompts_in_every_form() {
    let text = |text: &str| PromptDoc::Text(text.into());
    let tokens = |ids: &[i64]| PromptDoc::Tokens(ids.to_vec());
    for (prompt, wanted) in [
        (json!("a"), vec![text("a")]),
        (json!(["a", "b"]), vec![text("a"), text("b")]),
        (json!([1, 2]), vec![tokens(&[1, 2])]),
        (json!([[1, 2], [3]]), vec![tokens(&[1, 2]), tokens(&[3])]),
        (json!([]), vec![tokens(&[])]),
        (json!([[], "a"]), vec![tokens(&[]), text("a")]),
    ] {
        let request = completion_of(&json!({ "prompt": prompt })).expect("understood");
        assert_eq!(request.question.prompts, wanted);
    }
    let many = json!({ "prompt": vec!["a"; 2048], "n": 2 });
    assert_eq!(completion_of(&many).expect_err("too many").param.as_deref(), Some("n"));
    for prompt in [json!(1), json!({}), json!([1, "a"]), json!([1.5]), json!([[1, "a"]])] {
        let error = completion_of(&json!({ "prompt": prompt })).expect_err("refused");
        assert_eq!(error.param.as_deref(), Some("prompt"), "{error:?}");
    }
    let usual = completion_of(&json!({})).expect("understood").question;
    assert_eq!((usual.max_tokens, usual.echo, usual.logprobs), (Some(16), false, None));
    let scores = json!({ "echo": true, "max_tokens": 0, "logprobs": 1, "best_of": 1 });
    let scores = completion_of(&scores).expect("understood").question;
    assert_eq!((scores.max_tokens, scores.echo, scores.logprobs), (Some(0), true, Some(1)));
}

#[test]
fn what_is_not_understood_is_refused_at_its_field() {
    let message = |message: Value| json!({ "messages": [message] });
    for (more, param, part) in [
        (json!({ "banana": 1 }), "banana", "not understood"),
        (json!({ "model": 1 }), "model", "`model` is 1, not a name"),
        (json!({ "messages": [] }), "messages", "is empty"),
        (json!({ "messages": "hi" }), "messages", "not a list"),
        (json!({ "messages": null }), "messages", "missing"),
        (message(json!("hi")), "messages[0]", "not an object"),
        (message(json!({ "content": "hi" })), "messages[0].role", "is null"),
        (message(json!({ "role": "tool", "content": "1" })), "messages[0].role", "one of system"),
        (message(json!({ "role": "user" })), "messages[0].content", "is null"),
        (
            message(json!({ "role": "user", "content": [{ "type": "image_url" }] })),
            "messages[0].content",
            "parts of text",
        ),
        (
            message(json!({ "role": "assistant", "content": "a", "tool_calls": [{}] })),
            "messages[0].tool_calls",
            "not understood",
        ),
        (json!({ "temperature": "hot" }), "temperature", "is \"hot\", not a number from 0 to 100"),
        (json!({ "temperature": -1 }), "temperature", "not a number"),
        (json!({ "top_p": 1.5 }), "top_p", "from 0 to 1"),
        (json!({ "n": 0 }), "n", "from 1 to 128"),
        (json!({ "n": 1.5 }), "n", "whole number"),
        (json!({ "max_tokens": 0 }), "max_tokens", "from 1 on"),
        (json!({ "max_tokens": 1, "max_completion_tokens": 2 }), "max_tokens", "two things"),
        (json!({ "seed": "a" }), "seed", "whole number"),
        (json!({ "stop": [1] }), "stop", "a text, or a list"),
        (json!({ "stop": "" }), "stop", "none of them empty"),
        (json!({ "stream": "yes" }), "stream", "true or false"),
        (json!({ "stream_options": {} }), "stream_options", "for streams alone"),
        (
            json!({ "stream": true, "stream_options": { "x": 1 } }),
            "stream_options.x",
            "not understood",
        ),
        (json!({ "logprobs": 5 }), "logprobs", "true or false"),
        (json!({ "top_logprobs": 5 }), "top_logprobs", "needs `logprobs: true`"),
        (json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs", "from 0 to 20"),
        (json!({ "tools": [{}] }), "tools", "not supported"),
        (json!({ "tool_choice": "auto" }), "tool_choice", "not supported"),
        (json!({ "response_format": { "type": "json_object" } }), "response_format", "supported"),
        (json!({ "frequency_penalty": 0.1 }), "frequency_penalty", "not supported"),
        (json!({ "logit_bias": { "1": 5 } }), "logit_bias", "not supported"),
        (json!({ "chat_template_kwargs": [] }), "chat_template_kwargs", "not an object"),
        (json!({ "echo": true }), "echo", "not understood"),
    ] {
        let error = chat_of(&more).expect_err("refused");
        assert_eq!(error.param.as_deref(), Some(param), "{more}: {error:?}");
        assert!(error.message.contains(part), "{more}: {}", error.message);
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
    }
    for (more, param) in [
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "suffix": "end" }), "suffix"),
        (json!({ "best_of": 4 }), "best_of"),
        (json!({ "logprobs": true }), "logprobs"),
        (json!({ "messages": [] }), "messages"),
    ] {
        let error = completion_of(&more).expect_err("refused");
        assert_eq!(error.param.as_deref(), Some(param), "{more}: {error:?}");
    }
    for body in ["", "{", "[]", "\"a\"", "nul", "\u{0}"] {
        assert!(chat::read(body.as_bytes()).expect_err("refused").message.contains("the body"));
    }
}

#[test]
fn only_who_is_meant_is_let_in() {
    let headers = |host: &'static str, more: &[(header::HeaderName, &'static str)]| {
        let mut all = HeaderMap::new();
        all.insert(header::HOST, HeaderValue::from_static(host));
        for (name, value) in more {
            all.insert(name, HeaderValue::from_static(value));
        }
        all
    };
    let key = |value| [(header::AUTHORIZATION, value)];
    let status = |guard: &ApiGuard, method: Method, headers: &HeaderMap| {
        guard.admit(&method, headers).map_or_else(|error| error.status.as_u16(), |()| 200)
    };
    let here = ApiGuard::new(None, false);
    let reached = |host| status(&here, Method::GET, &headers(host, &[]));
    assert_eq!(["127.0.0.1:8767", "[::1]:1", "LocalHost"].map(reached), [200; 3]);
    assert_eq!(
        ["evil.example", "10.0.0.1", "a@localhost", "localhost.evil"].map(reached),
        [403; 4]
    );
    assert_eq!(status(&here, Method::GET, &HeaderMap::new()), 403);
    let post = |kind| status(&here, Method::POST, &headers("localhost", &[kind]));
    assert_eq!(post((header::CONTENT_TYPE, "application/json; charset=utf-8")), 200);
    assert_eq!(post((header::CONTENT_TYPE, "text/plain")), 415);
    assert_eq!(status(&here, Method::POST, &headers("localhost", &[])), 415);

    let closed = ApiGuard::new(Some("secret"), false);
    let with = |value| status(&closed, Method::GET, &headers("localhost", &key(value)));
    assert_eq!(["Bearer secret", "bearer secret"].map(with), [200; 2]);
    assert_eq!(["Bearer secret2", "Bearer", "secret", "Basic secret", ""].map(with), [401; 5]);
    let elsewhere = headers("evil.example", &key("Bearer secret"));
    assert_eq!(status(&closed, Method::GET, &elsewhere), 403, "on this machine alone");

    let open = ApiGuard::new(Some("secret"), true);
    assert_eq!(status(&open, Method::GET, &headers("gpu-box:1", &key("Bearer secret"))), 200);
    assert_eq!(status(&open, Method::GET, &headers("gpu-box:1", &key("Bearer no"))), 401);
}

fn state(desk: Desk) -> Arc<ApiState> {
    Arc::new(ApiState {
        desk,
        guard: ApiGuard::new(None, false),
        model: "m".into(),
        fingerprint: "abc".into(),
        created: 5,
        context: 64,
    })
}

/// A worker that tells each question the same lines.
async fn play(desk: Desk, mut asked: mpsc::UnboundedReceiver<Ask>, lines: Vec<Told>) {
    while let Some(ask) = asked.recv().await {
        let Ask::Question(QuestionSpec { id, .. }) = ask else { continue };
        for told in lines.clone() {
            desk.hear(match told {
                Told::Begun { prompt_tokens, .. } => Told::Begun { question: id, prompt_tokens },
                Told::Piece { answer, text, tokens, .. } => {
                    Told::Piece { question: id, answer, text, tokens }
                }
                Told::Ended { answer, cut, tokens, .. } => {
                    Told::Ended { question: id, answer, cut, tokens }
                }
                Told::Refused { why, message, .. } => Told::Refused { question: id, why, message },
                other => other,
            });
        }
    }
}

/// What a client gets whose question is answered by these lines.
fn answered(lines: Vec<Told>, route: &str, body: &Value) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (desk, asked) = Desk::new();
        tokio::spawn(play(desk.clone(), asked, lines));
        let request = HttpRequest::post(route)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .expect("a request");
        let response = router(state(desk)).oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    })
}

const BEGUN: Told = Told::Begun { question: 0, prompt_tokens: 3 };

fn piece(answer: u32, text: &str, tokens: &[(&str, f64)]) -> Told {
    let doc = |(text, logprob): &(&str, f64)| TokenDoc {
        text: (*text).into(),
        at: 0,
        logprob: Some(*logprob),
        likeliest: vec![("x".into(), -0.25), ((*text).into(), -0.25)],
    };
    let tokens = tokens.iter().map(doc).collect();
    Told::Piece { question: 0, answer, text: text.into(), tokens }
}

fn ended(answer: u32, cut: bool, tokens: u64) -> Told {
    Told::Ended { question: 0, answer, cut, tokens }
}

fn without_id(text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let map = value.as_object_mut().expect("a map");
    let id = map.remove("id").expect("an id");
    assert!(id.as_str().expect("text").contains("cmpl-"));
    assert!(map.remove("created").is_some_and(|created| created.is_i64()));
    value
}

#[test]
fn whole_answers_have_the_form_of_openai() {
    let lines = vec![
        BEGUN,
        piece(1, "no", &[]),
        piece(0, "ye", &[]),
        ended(1, false, 2),
        piece(0, "s", &[]),
        ended(0, true, 5),
    ];
    let messages = json!([{ "role": "user", "content": "a" }]);
    let body = json!({ "model": "m", "messages": messages, "n": 2 });
    let (status, text) = answered(lines, "/v1/chat/completions", &body);
    let choice = |index: u32, content: &str, finish: &str| {
        json!({
            "index": index, "logprobs": null, "finish_reason": finish,
            "message": { "role": "assistant", "content": content, "refusal": null },
        })
    };
    assert_eq!(status, 200);
    assert_eq!(
        without_id(&text),
        json!({
            "object": "chat.completion", "model": "m", "system_fingerprint": "abc",
            "choices": [choice(0, "yes", "length"), choice(1, "no", "stop")],
            "usage": { "prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10 },
        })
    );
    let lines = vec![BEGUN, piece(0, "ab", &[("a", -1.0), ("b", -0.5)]), ended(0, false, 2)];
    let body = json!({ "model": "m", "prompt": "a", "logprobs": 2 });
    let (_, text) = answered(lines.clone(), "/v1/completions", &body);
    let logprobs = json!({
        "tokens": ["a", "b"], "token_logprobs": [-1.0, -0.5], "text_offset": [0, 0],
        // Two tokens of one text: the likeliest counts.
        "top_logprobs": [{ "x": -0.25, "a": -0.25 }, { "x": -0.25, "b": -0.25 }],
    });
    assert_eq!(
        without_id(&text)["choices"],
        json!([{ "index": 0, "text": "ab", "finish_reason": "stop", "logprobs": logprobs }])
    );
    let body = json!({ "model": "m", "messages": messages, "logprobs": true, "top_logprobs": 2 });
    let (_, text) = answered(lines, "/v1/chat/completions", &body);
    let one = |text: &str, logprob: f64| json!({ "token": text, "logprob": logprob, "bytes": text.as_bytes() });
    let mut first = one("a", -1.0);
    first["top_logprobs"] = json!([one("x", -0.25), one("a", -0.25)]);
    assert_eq!(without_id(&text)["choices"][0]["logprobs"]["content"][0], first);
}

#[test]
fn streams_have_the_form_of_openai_and_tell_of_failures() {
    let events = |lines: Vec<Told>, route: &str, body: &Value| -> Vec<String> {
        let (status, text) = answered(lines, route, body);
        assert_eq!(status, 200);
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(str::to_owned).collect()
    };
    let messages = json!([{ "role": "user", "content": "a" }]);
    let body = json!({ "model": "m", "messages": messages, "stream": true,
                       "stream_options": { "include_usage": true } });
    let lines = vec![BEGUN, piece(0, "ye", &[]), piece(0, "s", &[]), ended(0, false, 3)];
    let told = events(lines.clone(), "/v1/chat/completions", &body);
    let chunks: Vec<Value> = told[..told.len() - 1].iter().map(|event| without_id(event)).collect();
    let delta = |chunk: &Value| chunk["choices"][0]["delta"].clone();
    assert_eq!(told.last().map(String::as_str), Some("[DONE]"));
    assert_eq!(delta(&chunks[0]), json!({ "role": "assistant", "content": "" }));
    assert_eq!(delta(&chunks[1]), json!({ "content": "ye" }));
    assert_eq!(delta(&chunks[3]), json!({}));
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
    assert!(chunks[..4].iter().all(|chunk| chunk["usage"].is_null()));
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk"));
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6 });
    assert_eq!((&chunks[4]["usage"], &chunks[4]["choices"]), (&usage, &json!([])));

    let body = json!({ "model": "m", "prompt": "a", "stream": true });
    let told = events(lines, "/v1/completions", &body);
    let texts: Vec<Value> =
        told[..3].iter().map(|event| without_id(event)["choices"][0]["text"].clone()).collect();
    assert_eq!((texts, told.len()), (vec![json!("ye"), json!("s"), json!("")], 4));
    assert!(!told[0].contains("usage"), "nobody asked");

    let fault = Told::Refused { question: 0, why: Refusal::Fault, message: "out of memory".into() };
    let told = events(vec![BEGUN, piece(0, "ye", &[]), fault.clone()], "/v1/completions", &body);
    let last: Value = serde_json::from_str(told.last().expect("an event")).expect("JSON");
    assert_eq!(last["error"]["message"], "out of memory");
    assert_eq!((last["error"]["type"].as_str(), told.len()), (Some("server_error"), 2));

    let whole = json!({ "model": "m", "prompt": "a" });
    assert_eq!(answered(vec![fault], "/v1/completions", &whole).0, 500);
    let other = json!({ "model": "other", "prompt": "a" });
    assert_eq!(answered(Vec::new(), "/v1/completions", &other).0, 404);
    assert_eq!(answered(Vec::new(), "/v1/embeddings", &whole).0, 404);
    assert_eq!(answered(Vec::new(), "/v1/models", &whole).0, 405);
}

#[test]
fn who_goes_away_is_forgotten_and_too_many_are_turned_away() {
    let question = || completion_of(&json!({})).expect("understood").question;
    let (desk, mut asked) = Desk::new();
    let first = desk.ask(question()).expect("room");
    drop(first);
    let told: Vec<Ask> = std::iter::from_fn(|| asked.try_recv().ok()).collect();
    assert!(
        matches!(told.as_slice(), [Ask::Question(q), Ask::Forget { question: 1 }] if q.id == 1)
    );
    let many: Vec<_> = (0..256).map(|_| desk.ask(question()).expect("room")).collect();
    let error = desk.ask(question()).expect_err("too many");
    assert_eq!(
        (error.status, error.body()["error"]["type"].as_str()),
        (StatusCode::TOO_MANY_REQUESTS, Some("rate_limit_error"))
    );
    assert!(!desk.lose_all("it died"), "nothing was answered");
    drop(many);
    assert_eq!(
        std::iter::from_fn(|| asked.try_recv().ok()).count(),
        256,
        "none is forgotten twice"
    );
    let last = desk.ask(question()).expect("room");
    desk.hear(Told::Ended { question: 258, answer: 0, cut: false, tokens: 1 });
    assert!(desk.lose_all("it died"));
    drop(last);
}
