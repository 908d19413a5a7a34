//! What would make an artifact: the pre-image, its canonical bytes, its hash, and how two differ.
//! Knows nothing of paths, devices or the clock.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// SHA-256 of an artifact's bytes: what it *is*. Written `sha256:…`; for a file it is what
/// `sha256sum` prints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Hash of an [`Identity`]: the key of an entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(Digest);

/// Everything that decides a stage's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub kind: String,
    pub version: u32,
    pub params: Map<String, Value>,
    pub inputs: BTreeMap<String, InputIdentity>,
    /// Input ports that read source files by their endings (`csv`, `jsonl`): the endings, in order.
    /// Empty endings are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endings: BTreeMap<String, Vec<String>>,
    /// Output ports that the pipeline file named, with their types; empty for fixed ports.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
}

/// What is connected to an input port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputIdentity {
    /// The content alone: what produced it has no say.
    #[serde(rename = "one")]
    One(Digest),
    /// On a port that takes many, names reach the result, so they count.
    #[serde(rename = "many")]
    Many(Vec<(String, Digest)>),
}

/// One difference between two identities, by the field that a person wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// A param: dotted path, old and new value; `None` where it was or is absent.
    Param { name: String, old: Option<Value>, new: Option<Value> },
    /// The kind itself, or its version.
    Kind { old: String, new: String },
    /// The content at an input port. `members`: which files of a folder or pattern differ, where
    /// that is known.
    Input {
        port: InputPlace,
        old: Option<String>,
        new: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        members: Vec<(String, MemberChange)>,
    },
    /// A declared output.
    Output { port: String, old: Option<String>, new: Option<String> },
}

/// An input port; on a port that takes many, the name of one of them. Written `port`, `port: name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct InputPlace {
    pub port: String,
    pub name: Option<String>,
}

/// How a file of a folder or pattern differs from what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberChange {
    Changed,
    New,
    Gone,
}

/// An identity that cannot be hashed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdentityError {
    #[error("`{0}` is not a digest: expected `sha256:` and 64 hexadecimal digits")]
    NotADigest(String),
}

impl Digest {
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    #[must_use]
    pub fn from_raw(raw: [u8; 32]) -> Self {
        Self(raw)
    }

    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.0
    }

    fn from_hex(digits: &str) -> Option<Self> {
        let mut raw = [0; 32];
        // The length first: the decoder would skip a leading `0x`.
        (digits.len() == 64).then(|| const_hex::decode_to_slice(digits, &mut raw).ok())??;
        Some(Self(raw))
    }

    /// 64 lowercase hexadecimal digits, no prefix.
    #[must_use]
    pub fn hex(&self) -> String {
        self.with_hex(str::to_owned)
    }

    /// Calls `use_it` with the 64 digits, which stay on the stack.
    fn with_hex<T>(&self, use_it: impl FnOnce(&str) -> T) -> T {
        let mut digits = [0; 64];
        const_hex::encode_to_slice(self.0, &mut digits).expect("invariant: two digits a byte");
        use_it(str::from_utf8(&digits).expect("invariant: digits are ASCII"))
    }

    /// The first eight digits: enough to tell two apart on a screen.
    #[must_use]
    pub fn short(&self) -> String {
        const_hex::encode(&self.0[..4])
    }
}

impl Fingerprint {
    #[must_use]
    pub fn from_raw(raw: [u8; 32]) -> Self {
        Self(Digest(raw))
    }

    #[must_use]
    pub fn raw(&self) -> &[u8] {
        self.0.raw()
    }

    #[must_use]
    pub fn hex(&self) -> String {
        self.0.hex()
    }

    #[must_use]
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl Identity {
    /// SHA-256 of the canonical bytes.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Digest::of(&self.canonical_bytes()))
    }

    /// Canonical JSON of `["preflow.identity/1", identity]`: keys sorted, floats shortest.
    #[must_use]
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let Identity { kind, version, params, inputs, endings, outputs } = self;
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(b"[\"preflow.identity/1\",{");
        // In the order of their names.
        if !endings.is_empty() {
            write_field("endings", endings, &mut out);
        }
        write_field("inputs", inputs, &mut out);
        write_field("kind", kind, &mut out);
        if !outputs.is_empty() {
            write_field("outputs", outputs, &mut out);
        }
        write_json("params", &mut out);
        out.push(b':');
        write_object(params, &mut out);
        out.push(b',');
        write_field("version", version, &mut out);
        out.pop();
        out.extend_from_slice(b"}]");
        out
    }

    /// The content at one place of its inputs.
    #[must_use]
    pub fn input(&self, place: &InputPlace) -> Option<Digest> {
        match (self.inputs.get(&place.port)?, &place.name) {
            (InputIdentity::One(digest), None) => Some(*digest),
            (InputIdentity::Many(all), Some(name)) => {
                all.iter().find(|(n, _)| n == name).map(|(_, digest)| *digest)
            }
            _ => None,
        }
    }

    /// Digests of everything that is connected.
    pub fn input_digests(&self) -> impl Iterator<Item = Digest> {
        self.inputs.values().flat_map(|input| match input {
            InputIdentity::One(digest) => vec![*digest],
            InputIdentity::Many(all) => all.iter().map(|(_, d)| *d).collect(),
        })
    }

    /// What differs, old to new, in the order of the struct. The walk covers the same fields as
    /// the hash: two identities with no change have one fingerprint.
    #[must_use]
    pub fn changes_from(&self, old: &Identity) -> Vec<Change> {
        let mut changes = Vec::new();
        if (&self.kind, self.version) != (&old.kind, old.version) {
            changes.push(Change::Kind {
                old: format!("{}@{}", old.kind, old.version),
                new: format!("{}@{}", self.kind, self.version),
            });
        }
        diff_maps("", &old.params, &self.params, &mut changes);
        for port in keys(&old.inputs, &self.inputs) {
            diff_input(port, old.inputs.get(port), self.inputs.get(port), &mut changes);
        }
        for port in keys(&old.endings, &self.endings) {
            let (old, new) = (old.endings.get(port), self.endings.get(port));
            if old != new {
                let value = |e: Option<&Vec<String>>| e.map(|e| Value::from(e.join(", ")));
                let name = format!("file ending of {port}");
                changes.push(Change::Param { name, old: value(old), new: value(new) });
            }
        }
        for port in keys(&old.outputs, &self.outputs) {
            let (old, new) = (old.outputs.get(port), self.outputs.get(port));
            if old != new {
                changes.push(Change::Output {
                    port: port.clone(),
                    old: old.cloned(),
                    new: new.cloned(),
                });
            }
        }
        changes
    }
}

fn keys<'a, K: Ord, V>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> Vec<&'a K> {
    let mut keys: Vec<&K> = a.keys().chain(b.keys()).collect();
    keys.sort();
    keys.dedup();
    keys
}

fn diff_maps(at: &str, old: &Map<String, Value>, new: &Map<String, Value>, out: &mut Vec<Change>) {
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let name = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        match (old.get(key), new.get(key)) {
            (a, b) if a == b => {}
            (Some(Value::Object(a)), Some(Value::Object(b))) => diff_maps(&name, a, b, out),
            (a, b) => out.push(Change::Param { name, old: a.cloned(), new: b.cloned() }),
        }
    }
}

fn diff_input(
    port: &str,
    old: Option<&InputIdentity>,
    new: Option<&InputIdentity>,
    out: &mut Vec<Change>,
) {
    let (a, b) = (by_place(port, old), by_place(port, new));
    let before = out.len();
    for place in keys(&a, &b) {
        let (old, new) = (a.get(place).map(Digest::short), b.get(place).map(Digest::short));
        if old != new {
            out.push(Change::Input { port: place.clone(), old, new, members: Vec::new() });
        }
    }
    // The same names with the same content in another order, or listed instead of single.
    if out.len() == before && old != new {
        out.push(Change::Input {
            port: InputPlace { port: port.to_owned(), name: None },
            old: Some("order".to_owned()),
            new: Some("another order".to_owned()),
            members: Vec::new(),
        });
    }
}

fn by_place(port: &str, input: Option<&InputIdentity>) -> BTreeMap<InputPlace, Digest> {
    let place = |name: Option<&String>| InputPlace { port: port.to_owned(), name: name.cloned() };
    match input {
        None => BTreeMap::new(),
        Some(InputIdentity::One(digest)) => BTreeMap::from([(place(None), *digest)]),
        Some(InputIdentity::Many(all)) => {
            all.iter().map(|(name, digest)| (place(Some(name)), *digest)).collect()
        }
    }
}

/// Writes JSON with sorted keys and without spaces. `serde_json` prints the shortest float that
/// reads back equal and cannot hold NaN, so equal values have equal bytes.
fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_canonical(item, out);
            }
            out.push(b']');
        }
        Value::Object(map) => write_object(map, out),
        scalar => write_json(scalar, out),
    }
}

fn write_object(map: &Map<String, Value>, out: &mut Vec<u8>) {
    let mut fields: Vec<(&String, &Value)> = map.iter().collect();
    fields.sort_by_key(|(key, _)| *key);
    out.push(b'{');
    for (i, (key, value)) in fields.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_json(key, out);
        out.push(b':');
        write_canonical(value, out);
    }
    out.push(b'}');
}

/// A field and a comma. Maps in `value` must be sorted already.
fn write_field(name: &str, value: &impl Serialize, out: &mut Vec<u8>) {
    write_json(name, out);
    out.push(b':');
    write_json(value, out);
    out.push(b',');
}

fn write_json(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("invariant: writing JSON to memory cannot fail");
}

impl fmt::Display for InputPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}: {name}", self.port),
            None => f.write_str(&self.port),
        }
    }
}

impl From<InputPlace> for String {
    fn from(place: InputPlace) -> Self {
        place.to_string()
    }
}

/// Ports are words, so the first colon ends the port.
impl From<String> for InputPlace {
    fn from(text: String) -> Self {
        match text.split_once(": ") {
            Some((port, name)) => Self { port: port.to_owned(), name: Some(name.to_owned()) },
            None => Self { port: text, name: None },
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.with_hex(|digits| f.write_str(digits))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.with_hex(|digits| f.write_str(digits))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("sha256:");
        let digest = digits.and_then(Self::from_hex);
        digest.ok_or_else(|| IdentityError::NotADigest(text.to_owned()))
    }
}

impl FromStr for Fingerprint {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digest = Digest::from_hex(text);
        digest.map(Self).ok_or_else(|| IdentityError::NotADigest(format!("sha256:{text}")))
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a string")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                d.deserialize_str(Text)
            }
        }
    };
}

as_text!(Digest);
as_text!(Fingerprint);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity(params: Value, input: &[u8]) -> Identity {
        let Value::Object(params) = params else { panic!("params are an object") };
        Identity {
            kind: "sft".into(),
            version: 1,
            params,
            inputs: BTreeMap::from([("model".into(), InputIdentity::One(Digest::of(input)))]),
            endings: BTreeMap::new(),
            outputs: BTreeMap::new(),
        }
    }

    #[test]
    fn a_digest_is_what_sha256sum_prints() {
        assert_eq!(
            Digest::of(b"abc").to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn canonical_bytes_are_pinned() {
        let id = identity(json!({"b": 1, "a": {"y": 0.5, "x": 1e-5}}), b"");
        assert_eq!(
            String::from_utf8(id.canonical_bytes()).expect("utf-8"),
            concat!(
                r#"["preflow.identity/1",{"inputs":{"model":{"one":"sha256:"#,
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                r#""}},"kind":"sft","params":{"a":{"x":0.00001,"y":0.5},"b":1},"version":1}]"#
            )
        );
    }

    #[test]
    fn canonical_bytes_are_json_with_sorted_keys() {
        let params = json!({"z": [1, {"b": null, "a": "ü\n"}], "é": true, "A": -0.0, "a": 1e300});
        let mut id = identity(params, b"a");
        let plain = |id: &Identity| {
            let value = serde_json::to_value(("preflow.identity/1", id)).expect("JSON");
            let mut out = Vec::new();
            write_canonical(&value, &mut out);
            String::from_utf8(out).expect("utf-8")
        };
        let written = |id: &Identity| String::from_utf8(id.canonical_bytes()).expect("utf-8");
        assert_eq!(written(&id), plain(&id));
        let many = vec![("b".into(), Digest::of(b"b")), ("a\"".into(), Digest::of(b"a"))];
        id.inputs.insert("data".into(), InputIdentity::Many(many));
        id.endings.insert("data".into(), vec!["csv".into(), "jsonl".into()]);
        id.outputs.insert("out".into(), "file".into());
        assert_eq!(written(&id), plain(&id));
    }

    #[test]
    fn the_explanation_covers_what_the_hash_covers() {
        let base = identity(json!({"lr": 0.1, "nested": {"k": 1}}), b"a");
        let mut variants = vec![
            identity(json!({"lr": 0.2, "nested": {"k": 1}}), b"a"),
            identity(json!({"lr": 0.1, "nested": {"k": 2}}), b"a"),
            identity(json!({"lr": 0.1, "nested": {}}), b"a"),
            identity(json!({"lr": 0.1, "nested": {"k": 1}}), b"b"),
        ];
        let mut other = base.clone();
        other.version = 2;
        variants.push(other.clone());
        other = base.clone();
        other.outputs.insert("out".into(), "file".into());
        variants.push(other.clone());
        other = base.clone();
        other.endings.insert("model".into(), vec!["csv".into()]);
        variants.push(other.clone());
        other = base.clone();
        other
            .inputs
            .insert("model".into(), InputIdentity::Many(vec![("model".into(), Digest::of(b"a"))]));
        variants.push(other);
        for variant in variants {
            assert_ne!(variant.fingerprint(), base.fingerprint(), "{variant:?}");
            assert!(!variant.changes_from(&base).is_empty(), "{variant:?}");
        }
        assert_eq!(base.changes_from(&base), vec![]);
    }

    #[test]
    fn what_changed_at_a_port_is_kept_in_words_that_are_read_back() {
        let many = |b: &[u8]| {
            let all = vec![("x.o".to_owned(), Digest::of(b"a")), ("y.o".to_owned(), Digest::of(b))];
            let mut id = identity(json!({}), b"");
            id.inputs.insert("data".into(), InputIdentity::Many(all));
            id
        };
        let (then, now) = (many(b"b"), many(b"c"));
        let changes = now.changes_from(&then);
        let text = serde_json::to_string(&changes).expect("JSON");
        let (old, new) = (Digest::of(b"b"), Digest::of(b"c"));
        assert_eq!(
            text,
            format!(
                r#"[{{"change":"input","port":"data: y.o","old":"{}","new":"{}"}}]"#,
                old.short(),
                new.short()
            )
        );
        let read: Vec<Change> = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read, changes);
        let [Change::Input { port, .. }] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!((then.input(port), now.input(port)), (Some(old), Some(new)));
    }
}
