//! Lists, settings and names, without a hub.

use std::collections::HashMap;

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn a_list_says_names_sizes_and_hashes() {
    let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let answer = serde_json::json!({ "sha": COMMIT, "tags": ["x"], "siblings": [
        { "rfilename": "config.json", "size": 3, "blobId": "aa" },
        { "rfilename": "model.safetensors", "size": 9, "blobId": "bb",
          "lfs": { "sha256": sha, "size": 9, "pointerSize": 130 } },
    ] });
    let listing = Listing::read(answer.to_string().as_bytes()).expect("a list");
    assert_eq!(listing.commit, COMMIT);
    let files: Vec<_> =
        listing.files.iter().map(|f| (f.path.as_str(), f.size, f.digest.is_some())).collect();
    assert_eq!(files, [("config.json", 3, false), ("model.safetensors", 9, true)]);
    assert_eq!(listing.files[1].digest.map(|d| d.hex()).as_deref(), Some(sha));
}

#[test]
fn a_list_that_leads_elsewhere_or_says_too_little_is_refused() {
    let one = |file: serde_json::Value| {
        let answer = serde_json::json!({ "sha": COMMIT, "siblings": [file] });
        Listing::read(answer.to_string().as_bytes()).expect_err("refused")
    };
    for path in ["../x", "/etc/passwd", "a//b", "a/./b", "a\\b", "", "a\nb", "a/.."] {
        let file = serde_json::json!({ "rfilename": path, "size": 1, "blobId": "aa" });
        assert!(one(file).starts_with("a file cannot be called"), "{path:?}");
    }
    let file = serde_json::json!({ "rfilename": "a", "blobId": "aa" });
    assert_eq!(one(file), "it does not say how long `a` is");
    let lfs = serde_json::json!({ "sha256": "12" });
    let file = serde_json::json!({ "rfilename": "a", "size": 1, "blobId": "aa", "lfs": lfs });
    assert!(one(file).contains("not a digest"));
    assert_eq!(Listing::read(br#"{"sha": "main"}"#), Err("it names no commit".to_owned()));
    assert!(Listing::read(b"<html>").is_err());
}

#[test]
fn a_model_is_read_from_few_of_a_repositorys_files() {
    for path in [
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "adapter_model.safetensors",
    ] {
        assert!(model_files(path), "{path}");
    }
    for path in [
        "README.md",
        "pytorch_model.bin",
        "consolidated.safetensors",
        "onnx/config.json",
        "model.gguf",
        "flax_model.msgpack",
        ".gitattributes",
    ] {
        assert!(!model_files(path), "{path}");
    }
}

#[test]
fn the_variables_of_the_hubs_tools_are_heard() {
    let home = tempfile::tempdir().expect("a folder");
    let of = |pairs: &[(&str, &str)]| {
        let pairs: HashMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        HubSettings::of(move |name| pairs.get(name).cloned())
    };
    let plain = of(&[("HOME", "/nowhere")]).expect("settings");
    assert_eq!(plain.endpoint, "https://huggingface.co");
    assert!(plain.token.is_none() && !plain.offline);
    assert_eq!(plain.cache, Some("/nowhere/.cache/huggingface/hub".into()));
    let said = [("HF_ENDPOINT", "https://hub.example/"), ("HF_TOKEN", " t \n"), ("HF_HOME", "/h")];
    let said = of(&said).expect("settings");
    assert_eq!((said.endpoint.as_str(), said.token.as_deref()), ("https://hub.example", Some("t")));
    assert_eq!(said.cache, Some("/h/hub".into()));
    assert!(!format!("{said:?}").contains("\"t\""), "a token is never shown");
    for (word, offline) in [("1", true), ("ON", true), ("true", true), ("0", false), ("", false)] {
        assert_eq!(of(&[("HF_HUB_OFFLINE", word)]).expect("settings").offline, offline, "{word}");
    }
    // A token over a wire that others read is none.
    assert!(matches!(of(&[("HF_ENDPOINT", "http://hub.example")]), Err(HubError::Endpoint(_))));
    assert!(of(&[("HF_ENDPOINT", "http://127.0.0.1:8080")]).is_ok());
    assert!(matches!(of(&[("HF_ENDPOINT", "hub")]), Err(HubError::Endpoint(_))));
    #[expect(clippy::disallowed_methods, reason = "a test owns its folder")]
    fs_err::write(home.path().join("token"), "kept\n").expect("written");
    let path = home.path().to_string_lossy().into_owned();
    assert_eq!(of(&[("HF_HOME", &path)]).expect("settings").token.as_deref(), Some("kept"));
}

#[test]
fn only_whole_hashes_are_commits() {
    assert!(is_commit(COMMIT));
    for other in ["main", &COMMIT[1..], &COMMIT.to_uppercase(), &format!("{COMMIT}0")] {
        assert!(!is_commit(other), "{other}");
    }
}
