//! Where things are: pipeline files, the workspace around them, its file, its store.
//! Does not know what a pipeline says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Choices, Failure};
use crate::files;
use crate::pipeline;
use crate::store::Store;
use crate::trust::{VARIABLE, by_environment};
use crate::user::is_own;
use crate::workspace::{self, Workspace};

/// Larger files are no pipelines.
pub const LARGEST: u64 = 2 << 20;

/// Splits `[FILE] NAMES…`: the first word is the file if it looks like one.
///
/// # Errors
/// No file is named and none, or more than one, is found.
pub fn file_and_names(words: &[String]) -> Result<(PathBuf, Vec<String>), Failure> {
    let is_file = |word: &String| {
        let path = Path::new(word);
        path.extension().is_some_and(|e| e == "yaml" || e == "yml") || path.is_file()
    };
    match words.split_first() {
        Some((first, rest)) if is_file(first) => Ok((first.into(), rest.to_vec())),
        _ => Ok((the_only_pipeline()?, words.to_vec())),
    }
}

/// The pipeline files here and in `pipelines/`.
fn pipelines() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        [".", "pipelines"].iter().flat_map(|dir| pipelines_in(Path::new(dir))).collect();
    found.sort();
    found
}

/// The same; there is at least one.
///
/// # Errors
/// There is none.
pub fn all_pipelines() -> Result<Vec<PathBuf>, Failure> {
    match pipelines() {
        none if none.is_empty() => the_only_pipeline().map(|one| vec![one]),
        found => Ok(found),
    }
}

/// The pipeline file that is meant where none is named.
///
/// # Errors
/// There is none, or more than one.
pub fn the_only_pipeline() -> Result<PathBuf, Failure> {
    match pipelines().as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Failure::usage("no pipeline file named, and none found here or in `pipelines/`")
            .help("name one: `preflow run pipelines/NAME.yaml`")),
        many => {
            let names: Vec<String> = many.iter().map(|p| p.display().to_string()).collect();
            Err(Failure::usage("no pipeline file named, and there is more than one")
                .help(format!("name one of {}", names.join(", "))))
        }
    }
}

/// YAML files directly in `dir` that begin like a pipeline.
pub fn pipelines_in(dir: &Path) -> Vec<PathBuf> {
    let items = std::fs::read_dir(dir).into_iter().flatten().flatten();
    items
        .map(|item| item.path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml"))
        .filter(|p| {
            files::read_to_string(p, LARGEST)
                .is_ok_and(|text| text.lines().any(|l| l.starts_with("preflow:")))
        })
        .map(|p| p.strip_prefix(".").map(Path::to_owned).unwrap_or(p))
        .collect()
}

/// The top of the workspace around a directory: the nearest one upwards that holds `preflow.yaml`
/// or a git repository; else the directory itself. Above it, files and directories of others than
/// the user and the owner of the directory (as in a shared `/tmp`) say nothing.
#[must_use]
pub fn workspace_root(dir: &Path) -> PathBuf {
    use std::os::unix::fs::MetadataExt as _;
    let owner = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.uid());
    // Who works in a directory of somebody else is told so where its files are read.
    let of_dir = owner(dir);
    let own = |path: &Path| owner(path).is_some_and(|uid| is_own(uid) || Some(uid) == of_dir);
    for place in dir.ancestors() {
        let here = place == dir;
        if !here && !own(place) {
            break;
        }
        let file = place.join(workspace::FILE);
        if place.join(".git").exists() || file.exists() && (here || own(&file)) {
            return place.to_owned();
        }
    }
    dir.to_owned()
}

/// What the workspace file at `root` says; nothing where there is none.
///
/// # Errors
/// It is wrong, or belongs to somebody else.
pub fn workspace_file(root: &Path) -> Result<Workspace, Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let file = root.join(workspace::FILE);
    match std::fs::metadata(&file) {
        Ok(meta) if !is_own(meta.uid()) && !by_environment() => {
            let text = format!("`{}` belongs to another user (uid {})", file.display(), meta.uid());
            Err(Failure::usage(text).help(format!(
                "work in a clone of your own; where its owner may say what runs and where results \
                 go: {VARIABLE}=1"
            )))
        }
        Err(_) if std::fs::symlink_metadata(&file).is_err() => Ok(Workspace::default()),
        // A link that leads nowhere is told as such.
        _ => Ok(workspace::read(&pipeline::open(&file.to_string_lossy())?)?),
    }
}

/// Where a file lies.
#[derive(Debug, Clone)]
pub struct PipelineLocation {
    /// Directory of the file, absolute.
    pub dir: PathBuf,
    /// Top of the workspace, absolute.
    pub root: PathBuf,
    /// Path of the file within the workspace.
    pub key: String,
}

/// Finds the workspace around a file.
///
/// # Errors
/// The current directory is gone.
pub fn locate(file: &Path) -> Result<PipelineLocation, Failure> {
    let absolute = std::path::absolute(file)
        .map_err(|e| Failure::usage(format!("cannot find `{}`: {e}", file.display())))?;
    let absolute = absolute.canonicalize().unwrap_or(absolute);
    let dir = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    let root = workspace_root(&dir);
    let key = absolute.strip_prefix(&root).unwrap_or(&absolute).display().to_string();
    Ok(PipelineLocation { dir, root, key })
}

/// Opens the store of the workspace at `root`, or the one that the user named.
///
/// # Errors
/// The place cannot hold one.
pub fn open_store(choices: &Choices, root: &Path) -> Result<Arc<Store>, Failure> {
    let place = choices.cache.clone().unwrap_or_else(|| root.join("cache"));
    let place = std::path::absolute(&place).unwrap_or(place);
    Ok(Arc::new(Store::open(&place)?))
}
