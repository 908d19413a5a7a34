//! What a repository of a hub holds at one commit: names, sizes and hashes of its files.
//! Does not know how it was asked for.

use serde::{Deserialize, Serialize};

use crate::identity::Digest;

/// Files of a repository, as they are at a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// 40 hexadecimal digits.
    pub commit: String,
    pub files: Vec<ListedFile>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedFile {
    /// From the top of the repository.
    pub path: String,
    pub size: u64,
    /// Its git hash (of a large file that of its pointer), 40 hexadecimal digits.
    pub blob: String,
    /// Of large files the hub says it; of others it is known once they are here.
    pub digest: Option<Digest>,
}

/// The revision is a commit, which never moves.
#[must_use]
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
}

/// A file that a model is read from, where nothing else is said: in the repository's top, its
/// config, tokenizer and template, and weights under the names that transformers gives them.
#[must_use]
pub fn model_files(path: &str) -> bool {
    let weights = (path.starts_with("model") || path == "adapter_model.safetensors")
        && path.ends_with(".safetensors");
    let said = path.ends_with(".json") || path.ends_with(".jinja");
    !path.contains('/') && (weights || said)
}

impl Listing {
    /// Reads what the hub's API answers to a question for a revision with `blobs`.
    ///
    /// # Errors
    /// What is not as it should be.
    pub fn read(answer: &[u8]) -> Result<Self, String> {
        let answer: Answer = serde_json::from_slice(answer).map_err(|e| e.to_string())?;
        if !is_commit(&answer.sha) {
            return Err("it names no commit".into());
        }
        let files = answer.siblings.into_iter().map(|file| {
            let Sibling { rfilename: path, size, blob_id: blob, lfs } = file;
            if !is_inside(&path) {
                return Err(format!("a file cannot be called {path:?}"));
            }
            let (Some(size), Some(blob)) = (size, blob) else {
                return Err(format!("it does not say how long `{path}` is"));
            };
            let digest = lfs.map(|lfs| {
                format!("sha256:{}", lfs.sha256).parse::<Digest>().map_err(|e| e.to_string())
            });
            Ok(ListedFile { path, size, blob, digest: digest.transpose()? })
        });
        Ok(Self { commit: answer.sha, files: files.collect::<Result<_, _>>()? })
    }
}

/// Names become paths here: nothing in them may lead anywhere else.
fn is_inside(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.len() <= 1024
        && path.split('/').all(plain)
        && !path.chars().any(|c| c.is_control() || c == '\\')
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}
