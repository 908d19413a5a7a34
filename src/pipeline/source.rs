//! Sources as a pipeline file writes them: files here, a repository of a hub, one file of the web.
//! Does not know whether any of it exists.

use super::Spanned;
use super::node::{Key, Node, NodeValue};
use super::params::PipelineParams;
use super::shape::{check_name, expected, unknown_key};
use crate::diagnostic::{Diagnostic, Span, named};

/// An artifact nobody makes.
#[derive(Debug, Clone)]
pub struct Source {
    pub name: Key,
    pub place: SourcePlace,
    /// What `as` says; absent: an untyped file, or of a hub's model that.
    pub port_type: Option<Spanned>,
}

/// Where the files of a source are.
#[derive(Debug, Clone)]
pub enum SourcePlace {
    /// A file, a folder or a pattern, relative to the file that it is written in.
    Path(Spanned),
    /// Files of a repository.
    Hub {
        /// `ORG/NAME`, or `datasets/ORG/NAME`.
        repository: Spanned,
        /// Branch, tag or commit; absent: `main`.
        revision: Option<Spanned>,
        /// One file of it or a pattern; absent: those that a model is read from.
        files: Option<Spanned>,
    },
    /// One file, known by its hash.
    Url { url: Spanned, sha256: Spanned },
}

impl SourcePlace {
    /// What the file says of it, key by key.
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, &Spanned)> {
        match self {
            Self::Path(path) => vec![("path", path)],
            Self::Hub { repository, revision, files } => {
                let others = [("revision", revision.as_ref()), ("files", files.as_ref())];
                let others = others.into_iter().filter_map(|(key, text)| Some((key, text?)));
                std::iter::once(("hub", repository)).chain(others).collect()
            }
            Self::Url { url, sha256 } => vec![("url", url), ("sha256", sha256)],
        }
    }
}

const KEYS: [&str; 7] = ["path", "as", "hub", "revision", "files", "url", "sha256"];
const SHAPE: &str = "a source has `path` (a file here), `hub` with `revision` and `files` (a \
                     repository of a hub) or `url` with `sha256` (a file of the web), and `as`";

/// The texts of a source, by their keys, each with the place of its key.
#[derive(Default)]
struct Fields(Vec<(String, Span, Spanned)>);

impl Fields {
    fn take(&mut self, key: &str) -> Option<Spanned> {
        let at = self.0.iter().position(|(name, ..)| name == key)?;
        Some(self.0.remove(at).2)
    }
}

/// One source. Whatever is wrong goes to `problems`.
pub fn source(
    name: Key,
    mut node: Node,
    params: &mut PipelineParams,
    problems: &mut Vec<Diagnostic>,
) -> Option<Source> {
    check_name(&name.name, "source", &name.span, problems);
    params.expand(&mut node, problems);
    let NodeValue::Map(entries) = node.value else {
        problems.push(
            expected(&format!("source `{}`", named(&name.name)), "a map", &node)
                .help("NAME: { path: FILE, as: TYPE }"),
        );
        return None;
    };
    let before = problems.len();
    let mut fields = Fields::default();
    for (key, value) in entries {
        if !KEYS.contains(&key.name.as_str()) {
            let place = format!("source `{}`", named(&name.name));
            problems.push(unknown_key(&key.name, &place, &key.span, &KEYS).help(SHAPE));
            continue;
        }
        match value.value {
            NodeValue::String(text) => {
                fields.0.push((key.name, key.span, Spanned { text, span: value.span }));
            }
            _ => {
                let mut problem = expected(&key.name, "text", &value);
                if ["revision", "sha256"].contains(&key.name.as_str()) {
                    problem = problem.help("put it in quotes");
                }
                problems.push(problem);
            }
        }
    }
    let port_type = fields.take("as");
    let (path, hub, url) = (fields.take("path"), fields.take("hub"), fields.take("url"));
    let place = match (path, hub, url) {
        (Some(path), None, None) => {
            check_path(&path, problems);
            Some(SourcePlace::Path(path))
        }
        (None, Some(repository), None) => {
            let (revision, files) = (fields.take("revision"), fields.take("files"));
            check_repository(&repository, problems);
            check_revision(revision.as_ref(), problems);
            check_files(&repository, files.as_ref(), problems);
            Some(SourcePlace::Hub { repository, revision, files })
        }
        (None, None, Some(url)) => {
            check_url(&url, problems);
            let sha256 = digest(&url, fields.take("sha256"), problems);
            sha256.map(|sha256| SourcePlace::Url { url, sha256 })
        }
        (None, None, None) => {
            if problems.len() == before {
                let problem = format!("source `{}` has no `path`", named(&name.name));
                problems.push(Diagnostic::new(problem, Some(name.span.clone())).help(SHAPE));
            }
            return None;
        }
        _ => {
            let problem = format!("source `{}` names several places", named(&name.name));
            problems.push(Diagnostic::new(problem, Some(name.span.clone())).help(SHAPE));
            return None;
        }
    };
    for (key, span, _) in fields.0 {
        let of = if key == "sha256" { "url" } else { "hub" };
        let problem = format!("`{key}` belongs to a source with `{of}`");
        problems.push(Diagnostic::new(problem, Some(span)).help(SHAPE));
    }
    (problems.len() == before).then_some(Source { name, place: place?, port_type })
}

fn wrong(what: &str, why: impl Into<String>, text: &Spanned) -> Diagnostic {
    Diagnostic::new(what, Some(text.span.clone())).label(why)
}

fn check_path(path: &Spanned, problems: &mut Vec<Diagnostic>) {
    let what = "a source needs a file";
    if path.text.contains("://") {
        let help = "`url:` with `sha256:` names a file of the web, `hub: ORG/NAME` a repository";
        problems.push(wrong(what, "an address, not a file", path).help(help));
    } else if path.text.is_empty() || path.text.chars().any(char::is_control) {
        problems.push(wrong(what, "not a file name", path));
    } else if path.text.starts_with('~') {
        let why = "`~` is not expanded: paths are relative to the pipeline file";
        problems.push(wrong(what, why, path));
    }
}

/// A part of a repository's name, as the hub allows it.
fn is_part(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=96).contains(&part.len())
        && part.chars().all(plain)
        && !part.starts_with(['-', '.'])
        && !part.ends_with(['-', '.'])
        && !part.contains("..")
}

fn check_repository(repository: &Spanned, problems: &mut Vec<Diagnostic>) {
    let text = repository.text.as_str();
    let parts: Vec<&str> = text.strip_prefix("datasets/").unwrap_or(text).split('/').collect();
    if parts.len() <= 2 && parts.iter().all(|part| is_part(part)) {
        return;
    }
    let help = if text.contains("://") {
        "the name alone, without the address; HF_ENDPOINT says which hub"
    } else if text.contains('@') {
        "a branch, tag or commit stands in `revision:`"
    } else {
        "`hub: ORG/NAME` for a model, `hub: datasets/ORG/NAME` for a dataset"
    };
    let what = "`hub` needs the name of a repository";
    problems.push(wrong(what, "not a name", repository).help(help));
}

fn check_revision(revision: Option<&Spanned>, problems: &mut Vec<Diagnostic>) {
    let Some(revision) = revision else { return };
    let text = revision.text.as_str();
    let plain = |c: char| c.is_ascii_graphic() && !"?#%*[\\^~: ".contains(c);
    if text.is_empty() || text.len() > 255 || !text.chars().all(plain) || text.contains("..") {
        let help = "`main`, a tag such as `v1.0`, or a commit of 40 hexadecimal digits";
        problems.push(
            wrong("`revision` needs a branch, a tag or a commit", "none of them", revision)
                .help(help),
        );
    }
}

fn check_files(repository: &Spanned, files: Option<&Spanned>, problems: &mut Vec<Diagnostic>) {
    let Some(files) = files else {
        if repository.text.starts_with("datasets/") {
            let help = "`files: data/train-*.parquet`, one file or a pattern: a repository may hold \
                        several splits";
            problems.push(
                wrong("which files of the dataset?", "`files` is missing", repository).help(help),
            );
        }
        return;
    };
    let parts: Vec<&str> = files.text.split('/').collect();
    let odd = |part: &&str| part.is_empty() || [".", ".."].contains(part) || part.contains('\\');
    if parts.iter().any(odd) || files.text.chars().any(char::is_control) {
        let help = "`data/train-*.parquet`: as the repository names it, from its top";
        problems.push(wrong("`files` needs a file or a pattern", "neither", files).help(help));
    } else if let Err(error) = glob::Pattern::new(&files.text) {
        problems.push(wrong("`files` is no pattern", error.msg, files));
    }
}

/// Whether an address may be asked: encrypted, or on this machine.
fn check_url(url: &Spanned, problems: &mut Vec<Diagnostic>) {
    let what = "`url` needs an address";
    let parsed = url.text.parse::<http::Uri>().ok();
    let host = parsed.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?)));
    let Some((scheme, host)) = host.filter(|_| !url.text.contains('#')) else {
        problems.push(wrong(what, "not an address", url).help("https://HOST/FILE"));
        return;
    };
    let here = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
    let file = parsed.as_ref().and_then(|uri| uri.path().rsplit('/').next());
    if scheme != "https" && !(scheme == "http" && here) {
        problems.push(wrong(what, "not https", url).help("only https keeps what is asked private"));
    } else if parsed.as_ref().is_some_and(|uri| uri.authority().is_some_and(has_user)) {
        problems.push(wrong(what, "it holds a name or a password", url).help(
            "an address in a pipeline file is read by everyone who reads the file; leave them out",
        ));
    } else if file.is_none_or(|file| !is_file_name(file)) {
        let help = "the last part of the address names the file, its ending says how it is read";
        problems.push(wrong(what, "it names no file", url).help(help));
    }
}

fn has_user(authority: &http::uri::Authority) -> bool {
    authority.as_str().contains('@')
}

fn is_file_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}

fn digest(url: &Spanned, text: Option<Spanned>, problems: &mut Vec<Diagnostic>) -> Option<Spanned> {
    let Some(text) = text else {
        let help = "`sha256sum FILE` prints it; what comes is compared with it";
        problems.push(wrong("`url` needs `sha256`", "without one", url).help(help));
        return None;
    };
    let hex = text.text.strip_prefix("sha256:").unwrap_or(&text.text).to_ascii_lowercase();
    if hex.len() != 64 || !hex.chars().all(|c| c.is_ascii_hexdigit()) {
        problems.push(wrong("`sha256` needs 64 hexadecimal digits", "not a hash", &text));
        return None;
    }
    Some(Spanned { text: hex, span: text.span })
}
