//! `preflow init`: a workspace to start from, with pipelines and a little data that run at once.
//! The templates lie in `templates/` and are part of the program.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{Exit, Global, print, schema};
use crate::catalog::Catalog;
use crate::files;
use crate::project::{Failure, locate};
use crate::store::{StoreError, write_atomic};
use crate::text;

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where to; made if it is not there
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// What to start from
    #[arg(long, short, value_enum, default_value = "tiny")]
    pub template: Template,
}

/// What a workspace starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// All of RLHF with a very small model, in about a minute
    Tiny,
    /// A model of others, aligned to the preferences of people
    ImportAndAlign,
    /// An instruct model of others, aligned in several ways with values that fit it
    AlignReal,
    /// Answers that you have already, compared by people
    LabelsOnly,
    /// The tiny pipeline and a sweep over one of its params
    Ablation,
}

/// Where it lies in the workspace, and what is in it.
type File = (&'static str, Cow<'static, [u8]>);

macro_rules! file {
    ($path:literal, $from:literal) => {
        (
            $path,
            Cow::Borrowed(include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $from)) as &[u8]),
        )
    };
}

const TINY: &[File] = &[
    file!("pipelines/tiny.yaml", "templates/tiny/pipelines/tiny.yaml"),
    file!("data/corpus.txt", "templates/tiny/data/corpus.txt"),
    file!("data/unseen.jsonl", "templates/tiny/data/unseen.jsonl"),
    file!("data/demos.jsonl", "datasets/workshop/demos.jsonl"),
    file!("data/prompts.jsonl", "datasets/workshop/prompts.jsonl"),
    file!("data/gold.yaml", "datasets/workshop/gold.yaml"),
];

impl Template {
    fn files(self) -> Vec<File> {
        let own: &[File] = match self {
            Self::Tiny => &[file!("README.md", "templates/tiny/README.md")],
            Self::ImportAndAlign => &[
                file!("README.md", "templates/import-and-align/README.md"),
                file!("pipelines/align.yaml", "templates/import-and-align/pipelines/align.yaml"),
                file!("data/demos.jsonl", "templates/import-and-align/data/demos.jsonl"),
                file!("data/prompts.jsonl", "templates/import-and-align/data/prompts.jsonl"),
            ],
            Self::AlignReal => &[
                file!("README.md", "templates/align-real/README.md"),
                file!("pipelines/real.yaml", "templates/align-real/pipelines/real.yaml"),
                file!("data/demos.jsonl", "templates/align-real/data/demos.jsonl"),
                file!("data/prompts.jsonl", "templates/align-real/data/prompts.jsonl"),
                file!("data/unseen.jsonl", "templates/align-real/data/unseen.jsonl"),
            ],
            Self::LabelsOnly => &[
                file!("README.md", "templates/labels-only/README.md"),
                file!("pipelines/labels.yaml", "templates/labels-only/pipelines/labels.yaml"),
                file!("data/answers.csv", "templates/labels-only/data/answers.csv"),
            ],
            Self::Ablation => &[
                file!("README.md", "templates/ablation/README.md"),
                file!("sweeps/kl.yaml", "templates/ablation/sweeps/kl.yaml"),
            ],
        };
        let shared = matches!(self, Self::Tiny | Self::Ablation).then_some(TINY);
        let text = |text: &'static str| Cow::Borrowed(text.as_bytes());
        let schema = schema::text(&Catalog::builtin()).into_bytes();
        let common: [File; 5] = [
            (
                "preflow.yaml",
                text(
                    "# The top of the workspace: the cache lies beside this file.\npreflow-workspace: 1\n",
                ),
            ),
            (".gitignore", text("/cache/\n/report.html\n")),
            ("pipelines/schema.json", Cow::Owned(schema)),
            file!("AGENTS.md", "templates/AGENTS.md"),
            file!("llms.txt", "templates/llms.txt"),
        ];
        own.iter().chain(shared.into_iter().flatten()).cloned().chain(common).collect()
    }
}

/// Where what git leaves out is listed.
const IGNORE: &str = ".gitignore";

/// Writes what is not there yet; what is there stays as it is. `.gitignore` gets the lines that it
/// lacks.
///
/// # Errors
/// A folder is needed where a file lies, or the disk is full.
pub fn init(args: &InitArgs, global: &Global) -> Result<Exit, Failure> {
    let files = args.template.files();
    for (path, _) in &files {
        let above = Path::new(path).ancestors().skip(1).map(|p| args.dir.join(p));
        if let Some(file) = above.into_iter().find(|p| p.exists() && !p.is_dir()) {
            return Err(Failure::usage(format!("`{}` is a file, not a folder", file.display()))
                .help("name another folder, or move it away"));
        }
    }
    let (mut made, mut kept) = (0_u64, Vec::new());
    for (path, bytes) in &files {
        let whole = args.dir.join(path);
        if std::fs::symlink_metadata(&whole).is_err() {
            write(&whole, bytes)?;
            made += 1;
        } else if *path == IGNORE {
            made += u64::from(append(&whole, bytes)?);
        } else if files::read(&whole, bytes.len() as u64).ok().as_deref() != Some(&**bytes) {
            kept.push(*path);
        }
    }
    if global.quiet {
        return Ok(Exit::Done);
    }
    let dir = args.dir.display();
    let mut text = match made {
        0 => format!(" nothing to add in {dir}\n"),
        n => format!(" {} in {dir}\n", text::counted(n, "file")),
    };
    if !kept.is_empty() {
        text += &format!(" there already, left as it is: {}\n", kept.join(", "));
    }
    text.push('\n');
    if args.dir != Path::new(".") {
        text += &format!(" cd {dir}\n");
    }
    let readme = files.iter().find(|(path, _)| *path == "README.md").map(|(_, bytes)| bytes);
    let readme = readme.map(|bytes| String::from_utf8_lossy(bytes)).unwrap_or_default();
    for command in readme.lines().filter_map(|l| l.strip_prefix("    ")) {
        text += &format!(" {command}\n");
    }
    Ok(print(&text))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    if let Some(dir) = path.parent() {
        fs_err::create_dir_all(dir)?;
    }
    Ok(write_atomic(path, bytes)?)
}

/// Adds the lines that a file lacks. True: there were some.
fn append(path: &Path, wanted: &[u8]) -> Result<bool, StoreError> {
    use std::io::Write as _;
    let there = files::read(path, locate::LARGEST).map_err(|e| files::named(path, &e))?;
    let there = String::from_utf8_lossy(&there);
    let wanted = String::from_utf8_lossy(wanted);
    let lacks = wanted.lines().filter(|line| !there.lines().any(|l| l.trim() == *line));
    let lacks: Vec<&str> = lacks.collect();
    if lacks.is_empty() {
        return Ok(false);
    }
    let before = if there.is_empty() || there.ends_with('\n') { "" } else { "\n" };
    let mut file = files::append_own(path).map_err(|e| files::named(path, &e))?;
    file.write_all(format!("{before}{}\n", lacks.join("\n")).as_bytes())?;
    Ok(true)
}
