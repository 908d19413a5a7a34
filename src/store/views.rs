//! Views: `views/<pipeline>/<stage>/<port>`, links with readable names to objects.
//! Nothing reads them; they may be deleted at any time.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{Store, StoreError};
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
        if views.len() < WORTHWHILE {
            return refresh(&top, views);
        }
        let (first, second) = views.split_at(views.len() / 2);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| refresh(&top, second));
            let first = refresh(&top, first)?;
            let second = second.join().unwrap_or_else(|fault| std::panic::resume_unwind(fault))?;
            Ok(first + second)
        })
    }

    /// Path of a view, for messages.
    #[must_use]
    pub fn view_path(&self, pipeline: &str, stage: &str, name: &str) -> PathBuf {
        self.root.join("views").join(pipeline).join(stage).join(name)
    }
}

/// With fewer links than this a second thread costs more than it saves.
const WORTHWHILE: usize = 64;

fn refresh(top: &Path, views: &[View]) -> Result<usize, StoreError> {
    let mut changed = 0;
    for view in views {
        let hex = view.digest.hex();
        let target = Path::new("../../..").join("objects-v1").join(&hex[..2]).join(&hex);
        let link = top.join(&view.stage).join(&view.name);
        if std::fs::read_link(&link).is_ok_and(|t| t == target) {
            continue;
        }
        replace_link(&link, &target)?;
        changed += 1;
    }
    Ok(changed)
}

fn replace_link(link: &Path, target: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(link.parent().expect("invariant: a view has a parent"))?;
    match std::fs::remove_file(link) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    Ok(fs_err::os::unix::fs::symlink(target, link)?)
}
