//! Views: `views/<pipeline>/<stage>/<port>`, links with readable names to objects.
//! Nothing reads them; they may be deleted at any time.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::digest::{Signature, now};
use super::{Store, StoreError, derived};
use crate::identity::Digest;

/// One link: `stage/name` → object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub stage: String,
    /// Port with its file ending.
    pub name: String,
    pub digest: Digest,
}

impl Store {
    /// Makes the links of one pipeline, leaving right ones alone. Returns how many changed.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn refresh_views(&self, pipeline: &str, views: &[View]) -> Result<usize, StoreError> {
        let top = self.root.join("views").join(pipeline);
        let scratch = self.root.join("scratch-v1");
        if views.len() < WORTHWHILE {
            return refresh(&scratch, &top, views);
        }
        // Reading a link takes longer than to see that nobody touched its folder since all of them
        // were right.
        let name = derived::name("views", pipeline.as_bytes());
        let start = now();
        let stamps = halves(views, |part| stamp(&top, part, start));
        let stamps: Option<Vec<Vec<u8>>> = stamps.into_iter().collect();
        let stamp = stamps.map(|stamps| Digest::of(&stamps.concat()));
        if stamp.is_some_and(|stamp| self.derived(&name, &stamp).is_some()) {
            return Ok(0);
        }
        let mut changed = 0;
        for part in halves(views, |part| refresh(&scratch, &top, part)) {
            changed += part?;
        }
        if let (0, Some(stamp)) = (changed, stamp) {
            self.keep_derived(&name, &stamp, &[]);
        }
        Ok(changed)
    }

    /// Path of a view, for messages.
    #[must_use]
    pub fn view_path(&self, pipeline: &str, stage: &str, name: &str) -> PathBuf {
        self.root.join("views").join(pipeline).join(stage).join(name)
    }
}

/// With fewer links than this a second thread costs more than it saves.
const WORTHWHILE: usize = 32;

/// Does both halves, the second in a thread of its own.
fn halves<'a, T: Send>(views: &'a [View], one: impl Fn(&'a [View]) -> T + Sync) -> [T; 2] {
    let (first, second) = views.split_at(views.len() / 2);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| one(second));
        let first = one(first);
        [first, second.join().unwrap_or_else(|fault| std::panic::resume_unwind(fault))]
    })
}

/// The wanted links, and how their folders look: changes with both. `None`: a folder is missing,
/// or so young that a change would not show.
fn stamp(top: &Path, views: &[View], at: i128) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(views.len() * 128);
    for (i, view) in views.iter().enumerate() {
        if i == 0 || views[i - 1].stage != view.stage {
            let meta = std::fs::symlink_metadata(top.join(&view.stage)).ok()?;
            let signature = Signature::of(&meta);
            if !meta.is_dir() || signature.is_racy(at) {
                return None;
            }
            bytes.extend_from_slice(&signature.to_bytes());
        }
        // Names hold no slash.
        for part in [view.stage.as_bytes(), b"/", view.name.as_bytes(), b"/", view.digest.raw()] {
            bytes.extend_from_slice(part);
        }
    }
    Some(bytes)
}

fn refresh(scratch: &Path, top: &Path, views: &[View]) -> Result<usize, StoreError> {
    let mut changed = 0;
    for view in views {
        let hex = view.digest.hex();
        let target = Path::new("../../..").join("objects-v1").join(&hex[..2]).join(&hex);
        let link = top.join(&view.stage).join(&view.name);
        if std::fs::read_link(&link).is_ok_and(|t| t == target) {
            continue;
        }
        replace_link(scratch, &link, &target)?;
        changed += 1;
    }
    Ok(changed)
}

/// Renamed over what is there: other runs may be at the same link.
fn replace_link(scratch: &Path, link: &Path, target: &Path) -> Result<(), StoreError> {
    let folder = link.parent().expect("invariant: a view has a parent");
    fs::create_dir_all(folder)?;
    // Nobody else says where names are made: `views/PIPELINE/STAGE`.
    for place in folder.ancestors().take(2) {
        if fs::symlink_metadata(place)?.is_symlink() {
            return Err(StoreError::NoFolder { path: place.to_owned(), what: "a link" });
        }
    }
    let made = tempfile::Builder::new()
        .prefix("view-")
        .make_in(scratch, |path| std::os::unix::fs::symlink(target, path))?;
    made.into_temp_path().persist(link).map_err(|e| e.error)?;
    Ok(())
}
