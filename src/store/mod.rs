//! The store: artifacts by digest, and the record of what made what. The only writer under
//! `cache/`. Knows nothing of stages or processes.
//!
//! | place | holds |
//! |---|---|
//! | `objects-v1/aa/<digest>` | artifacts, read-only: a file, or a directory |
//! | `entries-v1/aa/<fingerprint>.json` | one [`Entry`] each; on disk implies its objects are |
//! | `scratch-v1/<fingerprint>.*` | lock, outputs and work of a stage being made |
//! | `scratch-v1/fetch-<digest>.part` | files on their way from elsewhere |
//! | `uploads-v1/<fingerprint>` | entries that wait to be sent elsewhere |
//! | `quarantine/` | damaged objects, kept for diagnosis |
//! | `runs/<id>/` | journals and logs |
//! | `heads-v1/<key>.json` | which entries a pipeline used last, and how its stages failed |
//! | `views/<pipeline>/<stage>/` | names for people; nothing reads them |
//! | `derived-v1/` | digests, lists of files, plans, what workers said; may be deleted |

pub mod arrive;
pub mod derived;
pub mod digest;
pub mod entry;
pub mod fetched;
pub mod gc;
pub mod heads;
pub mod memo;
pub mod object;
pub mod part;
pub mod publish;
pub mod reading;
pub mod slot;
pub mod snapshot;
pub mod source;
pub mod summed;
pub mod verify;
pub mod views;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use fs_err as fs;

pub use entry::{CachedEntry, Entry, EntryOutput, Provenance};
pub use memo::Memo;
pub use object::Health;
pub use slot::{Lookup, Scratch, Sealed, Slot};
pub use source::{SourceDigest, SourceFiles};

use crate::files;
use crate::identity::{Digest, Fingerprint};

/// Every folder of a store.
const FOLDERS: [&str; 11] = [
    "objects-v1",
    "entries-v1",
    "scratch-v1",
    "uploads-v1",
    "quarantine",
    "runs",
    "heads-v1",
    "views",
    "derived-v1",
    "answers-v1",
    "label",
];

/// What can go wrong in the store. I/O errors carry path and act (`fs_err`).
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("`{0}` does not exist")]
    SourceMissing(PathBuf),
    #[error("`{0}` is a link to `{1}`, which does not exist")]
    SourceDangling(PathBuf, PathBuf),
    #[error("no file matches `{0}`")]
    SourceNoMatch(String),
    #[error("`{0}` is not a valid pattern: {1}")]
    SourcePattern(String, String),
    #[error("`{0}` is empty")]
    SourceEmpty(PathBuf),
    #[error("`{path}` is {what}; only files and directories can be read")]
    NotAFile { path: PathBuf, what: &'static str },
    #[error("`{path}` changed while it was read")]
    ChangedWhileRead { path: PathBuf },
    #[error("output `{port}` changed after its stage had ended; the result is not kept")]
    OutputChanged { port: String },
    #[error("output `{port}` was not made")]
    OutputMissing { port: String },
    #[error("output `{port}` holds `{path}`, {what}; only plain files and directories are kept")]
    OutputKind { port: String, path: PathBuf, what: &'static str },
    #[error("entry `{path}` cannot be read: {reason}")]
    BadEntry { path: PathBuf, reason: String },
    #[error("`{path}` cannot be read: {reason}")]
    BadHeads { path: PathBuf, reason: String },
    #[error("the store at `{path}` cannot be written: {source}")]
    ReadOnly { path: PathBuf, source: io::Error },
    #[error("`{path}` was written by another version of preflow: {reason}")]
    Format { path: PathBuf, reason: String },
    #[error("`{path}` is {what}: nothing is read, written or removed through it")]
    NoFolder { path: PathBuf, what: &'static str },
    #[error("files in `{path}` cannot be locked: {source}")]
    NoLocks { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Doubt(String),
}

impl StoreError {
    /// The disk, not the pipeline, is to blame: full, read-only, failing.
    #[must_use]
    pub fn is_storage(&self) -> bool {
        match self {
            Self::ReadOnly { .. }
            | Self::BadEntry { .. }
            | Self::BadHeads { .. }
            | Self::NoFolder { .. }
            | Self::Format { .. }
            | Self::NoLocks { .. } => true,
            Self::Io(e) => {
                matches!(
                    e.kind(),
                    io::ErrorKind::StorageFull
                        | io::ErrorKind::FileTooLarge
                        | io::ErrorKind::QuotaExceeded
                        | io::ErrorKind::ReadOnlyFilesystem
                        | io::ErrorKind::PermissionDenied
                ) || e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
            }
            _ => false,
        }
    }
}

/// A store on disk. Cheap to open; makes its directories on the first write.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Read when first needed.
    memo: OnceLock<Mutex<Memo>>,
    lock_pool: Mutex<slot::LockPool>,
    /// Entries that were read before; filled once, or never.
    recent: OnceLock<HashMap<Fingerprint, CachedEntry>>,
}

impl Store {
    /// Opens the store under `root`, which need not exist yet, and may be a link. Its folders may
    /// not: somebody else, perhaps a repository that carries them, says where they lead.
    ///
    /// # Errors
    /// `root` or a folder in it exists and is not a directory.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        if root.exists() && !root.is_dir() {
            return Err(StoreError::NotAFile { path: root.to_owned(), what: "not a directory" });
        }
        let store = Self {
            root: root.to_owned(),
            memo: OnceLock::new(),
            lock_pool: Mutex::default(),
            recent: OnceLock::new(),
        };
        store.refuse_links()?;
        Ok(store)
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn refuse_links(&self) -> Result<(), StoreError> {
        for name in FOLDERS {
            let path = self.root.join(name);
            match std::fs::symlink_metadata(&path) {
                Ok(meta) if !meta.is_dir() => {
                    return Err(StoreError::NoFolder { path, what: files::describe(&meta) });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the directories, and a `.gitignore` when the store is new.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] when nothing can be written here.
    pub fn prepare_for_writing(&self) -> Result<(), StoreError> {
        let make = || -> io::Result<File> {
            fs::create_dir_all(&self.root)?;
            for dir in ["objects-v1", "entries-v1", "scratch-v1", "heads-v1", "runs"] {
                fs::create_dir_all(self.root.join(dir))?;
            }
            let ignore = self.root.join(".gitignore");
            if !ignore.exists() {
                #[expect(clippy::disallowed_methods, reason = "losing this file loses nothing")]
                fs::write(&ignore, "*\n!README.md\n")?;
            }
            // A probe: directories may exist on a read-only disk.
            tempfile::tempfile_in(self.root.join("scratch-v1"))
        };
        let probe =
            make().map_err(|source| StoreError::ReadOnly { path: self.root.clone(), source })?;
        // Before a stage runs for hours whose result nobody could publish.
        probe.lock().map_err(|e| self.no_locks(e))
    }

    fn no_locks(&self, source: io::Error) -> StoreError {
        StoreError::NoLocks { path: self.root.clone(), source }
    }

    /// Whether files can have second names here; where they cannot, objects are copied.
    ///
    /// # Errors
    /// Why not.
    pub fn probe_hard_links(&self) -> io::Result<()> {
        let folder = tempfile::tempdir_in(self.root.join("scratch-v1"))?;
        let file = folder.path().join("file");
        fs::File::create(&file)?;
        std::fs::hard_link(file, folder.path().join("link"))
    }

    /// Whether names for people can be made here: not every file system knows symbolic links.
    ///
    /// # Errors
    /// Why not.
    pub fn probe_views(&self) -> io::Result<()> {
        let folder = tempfile::tempdir_in(self.root.join("scratch-v1"))?;
        std::os::unix::fs::symlink("nowhere", folder.path().join("link"))
    }

    /// Where the object with that digest lies, or would.
    #[must_use]
    pub fn object_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("objects-v1").join(&hex[..2]).join(hex)
    }

    /// The bytes of an object that is a file.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub fn object_bytes(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        files::read_own(&self.object_path(digest), u64::MAX)
    }

    pub(crate) fn entry_path(&self, fingerprint: &Fingerprint) -> PathBuf {
        let hex = fingerprint.hex();
        self.root.join("entries-v1").join(&hex[..2]).join(format!("{hex}.json"))
    }

    pub(crate) fn scratch_path(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.root.join("scratch-v1").join(fingerprint.hex())
    }

    /// Where workers keep what outside services answered stages of a kind. Nothing depends on it.
    #[must_use]
    pub fn answers_path(&self, kind: &str) -> PathBuf {
        self.root.join("answers-v1").join(kind)
    }

    /// Directory of one run's journal and logs.
    #[must_use]
    pub fn run_path(&self, run: &str) -> PathBuf {
        self.root.join("runs").join(run)
    }

    /// Bytes that can still be written where the store lies; `None` when nobody can tell.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.root).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Keeps the garbage collector away while a run lives; freed by death.
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub fn shared_lease(&self) -> Result<File, StoreError> {
        fs::create_dir_all(&self.root)?;
        let file = self.lease_file()?;
        file.lock_shared().map_err(|e| self.no_locks(e))?;
        Ok(file)
    }

    /// Whether a run, or whatever else holds a lease, is alive.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        let file = files::open_own(&self.root.join("lease.lock"));
        file.is_ok_and(|file| matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
    }

    fn lease_file(&self) -> Result<File, StoreError> {
        let path = self.root.join("lease.lock");
        files::create_own(&path).map_err(|e| files::named(&path, &e).into())
    }

    pub(crate) fn memo(&self) -> std::sync::MutexGuard<'_, Memo> {
        let memo = self.memo.get_or_init(|| Mutex::new(self.load_memo()));
        memo.lock().expect("invariant: no thread panics while it holds the memo")
    }
}

/// Writes `bytes` to a new file beside `path`, syncs it, renames it over `path`, syncs the
/// directory.
///
/// # Errors
/// Any step fails; then `path` is as it was.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = named_temp_file(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    File::open(dir)?.sync_all()
}

/// Makes the folder of entries or objects whose names begin alike; a link in its place would say
/// where they go.
fn make_shard(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path)?;
    if fs::symlink_metadata(path)?.is_symlink() {
        return Err(StoreError::NoFolder { path: path.to_owned(), what: "a link" });
    }
    Ok(())
}

/// A temporary file that, renamed, others may read as the umask allows.
pub(crate) fn named_temp_file(dir: &Path) -> io::Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o666);
    tempfile::Builder::new().permissions(mode).tempfile_in(dir)
}
