//! Where the remote is and what may be done with it, checked without asking anybody.
//! Does not know the file or the variables that say so.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// May entries be sent?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    ReadWrite,
    ReadOnly,
}

impl Mode {
    /// Words for a mode, as people write them.
    pub const WORDS: [&str; 2] = ["read-write", "read-only"];

    /// The mode of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "read-write" => Some(Self::ReadWrite),
            "read-only" => Some(Self::ReadOnly),
            _ => None,
        }
    }
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A bucket of an S3-compatible service, and a prefix in it, which may be empty.
    S3 { bucket: String, prefix: String },
    /// A folder that this machine can reach, absolute.
    Folder(PathBuf),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Folder(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A place that cannot be one. Never repeats what it was given: it may hold a password.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{reason}")]
pub struct BadLocation {
    pub reason: String,
    pub help: &'static str,
}

const FORMS: &str = "s3://BUCKET/PREFIX, file:///FOLDER, or a folder";

impl Location {
    /// Reads `s3://bucket/prefix`, `file:///folder`, or a folder counted from `base`.
    ///
    /// # Errors
    /// It is none of these, or carries credentials.
    pub fn parse(text: &str, base: &Path) -> Result<Self, BadLocation> {
        let bad = |reason: String| BadLocation { reason, help: FORMS };
        if text.is_empty() {
            return Err(bad("a remote has a place".to_owned()));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            if text.contains('\0') {
                return Err(bad("no folder can be called so".to_owned()));
            }
            let path = base.join(text);
            return Ok(Self::folder(&std::path::absolute(&path).unwrap_or(path)));
        };
        if rest.split('/').next().is_some_and(|host| host.contains('@')) || rest.contains('?') {
            return Err(BadLocation {
                reason: "a remote's url must not carry credentials or options".to_owned(),
                help: "credentials come from the environment: AWS_ACCESS_KEY_ID and \
                       AWS_SECRET_ACCESS_KEY",
            });
        }
        match scheme {
            "s3" => s3(rest).ok_or_else(|| bad("this names no bucket".to_owned())),
            "file" if rest.starts_with('/') => Ok(Self::folder(Path::new(rest))),
            "file" => Err(bad("`file://` is followed by an absolute path".to_owned())),
            other => Err(bad(format!("remotes of kind `{}` are not known", other.escape_debug()))),
        }
    }

    /// An absolute folder without `.` and `..`, which no key can hold.
    fn folder(path: &Path) -> Self {
        let mut plain = PathBuf::new();
        for part in path.components() {
            match part {
                Component::ParentDir => {
                    plain.pop();
                }
                Component::CurDir => {}
                part => plain.push(part),
            }
        }
        Self::Folder(plain)
    }
}

fn s3(rest: &str) -> Option<Location> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let letter = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let parts: Vec<&str> = prefix.split('/').filter(|part| !part.is_empty()).collect();
    let odd = |part: &&str| *part == "." || *part == ".." || part.contains(char::is_control);
    if bucket.len() < 3 || !bucket.chars().all(letter) || parts.iter().any(odd) {
        return None;
    }
    Some(Location::S3 { bucket: bucket.to_owned(), prefix: parts.join("/") })
}

/// A remote as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub location: Location,
    pub mode: Mode,
    /// Address of the service, where it is not the one of Amazon.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// A run must not go on without it.
    pub required: bool,
}

impl Config {
    /// A remote at this place, with what is usual for the rest.
    #[must_use]
    pub fn at(location: Location) -> Self {
        Self { location, mode: Mode::default(), endpoint: None, region: None, required: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_counted_from_the_workspace() {
        let folder =
            |text: &str| Location::parse(text, Path::new("/team/space")).map_err(|e| e.reason);
        let at = |path: &str| Ok(Location::Folder(PathBuf::from(path)));
        assert_eq!(folder("shared"), at("/team/space/shared"));
        assert_eq!(folder("../a/./b/../c"), at("/team/a/c"));
        assert_eq!(folder("file:///x/../y"), at("/y"));
        assert_eq!(folder("/../../z"), at("/z"));
    }
}
