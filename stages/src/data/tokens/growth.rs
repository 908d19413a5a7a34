//! How much longer a tokenizer can make a text before it is cut into tokens: a file may ask for
//! more than any memory holds. Does not run it.

use anyhow::{Result, bail};
use serde_json::Value;

/// No tokenizer of a model that is known makes a text this many times as long.
const MOST: f64 = 1000.0;

/// Refuses a `tokenizer.json` whose normalizer or decoder can make texts absurdly long.
///
/// # Errors
/// It can.
pub fn check(bytes: &[u8]) -> Result<()> {
    // What is no JSON is told by who reads it.
    let Ok(file) = serde_json::from_slice::<Value>(bytes) else { return Ok(()) };
    for part in ["normalizer", "decoder"] {
        let growth = growth(&file[part]);
        if growth > MOST {
            bail!(
                "its {part} can make a text {growth:.1e} times as long, more than {MOST}; such a \
                 tokenizer is of no use"
            );
        }
    }
    Ok(())
}

/// An upper bound of bytes out per byte in.
fn growth(part: &Value) -> f64 {
    let length = |value: &Value| value.as_str().map_or(0, str::len);
    #[expect(clippy::cast_precision_loss, reason = "a bound")]
    let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
    match part["type"].as_str() {
        Some("Sequence") => {
            let all = part["normalizers"].as_array().or_else(|| part["decoders"].as_array());
            all.into_iter().flatten().map(growth).product()
        }
        // Where a regular expression matches is not known: it may match nothing everywhere.
        Some("Replace") => {
            let content = length(&part["content"]);
            match &part["pattern"]["String"] {
                Value::String(pattern) => share(content, pattern.len()).max(1.0),
                _ => share(content, 1) + 1.0,
            }
        }
        Some("Prepend") => share(length(&part["prepend"]), 1) + 1.0,
        // Unicode's own bounds: at most eighteen code points for one, of four bytes each.
        Some("NFKC" | "NFKD" | "Precompiled") => 72.0,
        Some("NFC" | "NFD" | "Lowercase" | "BertNormalizer") => 12.0,
        Some("ByteLevel") => 2.0,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(normalizer: &Value, decoder: &Value) -> Result<()> {
        let file = json!({ "normalizer": normalizer, "decoder": decoder });
        check(&serde_json::to_vec(&file).expect("JSON"))
    }

    #[test]
    fn tokenizers_of_models_pass_and_bombs_do_not() {
        let replace = |pattern: Value, content: &str| json!({ "type": "Replace", "pattern": pattern, "content": content });
        let sequence = |all: Vec<Value>| json!({ "type": "Sequence", "normalizers": all });
        let blank = replace(json!({ "String": " " }), "▁");
        let llama = sequence(vec![json!({ "type": "Prepend", "prepend": "▁" }), blank.clone()]);
        let t5 = sequence(vec![json!({ "type": "Precompiled" }), blank.clone()]);
        let bert = json!({ "type": "BertNormalizer", "lowercase": true });
        let nfc = json!({ "type": "NFC" });
        let byte_level = json!({ "type": "ByteLevel" });
        for normalizer in [&llama, &t5, &bert, &nfc, &Value::Null] {
            checked(normalizer, &byte_level).expect("a model's");
        }
        let double = replace(json!({ "String": "a" }), "aa");
        checked(&sequence(vec![double.clone(); 9]), &Value::Null).expect("512 times");
        let bomb = checked(&sequence(vec![double.clone(); 40]), &Value::Null);
        assert!(
            bomb.expect_err("a bomb").to_string().contains("normalizer can make a text 1.1e12")
        );
        let decoders = json!({ "type": "Sequence", "decoders": vec![double; 40] });
        assert!(checked(&Value::Null, &decoders).is_err());
        let nested = sequence(vec![sequence(vec![blank; 4]), sequence(vec![llama; 3])]);
        assert!(checked(&nested, &Value::Null).is_err());
        let regex = replace(json!({ "Regex": "" }), &"x".repeat(2000));
        assert!(checked(&regex, &Value::Null).is_err());
        let long = replace(json!({ "String": "a" }), &"x".repeat(2000));
        assert!(checked(&long, &Value::Null).is_err());
    }
}
