//! One file brought into the store's scratch: gone on with where an earlier try was cut off, and
//! hashed as it comes. Does not know who wants it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode, Url};

use super::client::HubQuestion;
use super::{Hub, HubError};
use crate::identity::Digest;
use crate::store::part::{Part, TransferProgress};
use crate::store::publish::link_or_copy;
use crate::store::{Store, StoreError};
use crate::web;

/// How often a lock that another process holds is tried.
const AGAIN: Duration = Duration::from_millis(100);
/// Cuts in a row without a byte between them.
const FRUITLESS: u32 = 5;

/// A file that is wanted.
#[derive(Debug, Clone)]
pub struct WantedFile {
    /// For messages.
    pub what: String,
    pub url: Url,
    /// Repository and commit; `None`: a file of the web.
    pub repository: Option<(String, String)>,
    /// `None`: nobody says it.
    pub size: Option<u64>,
    pub digest: Digest,
}

impl Hub {
    /// Brings the file to `to`.
    ///
    /// # Errors
    /// It is not there, may not be read, is not what it should be, or the disk is full.
    pub async fn bring(
        &self,
        store: &Arc<Store>,
        file: &WantedFile,
        to: &Path,
        progress: &TransferProgress,
    ) -> Result<(), HubError> {
        let _lock = loop {
            match store.arrival_lock(&file.digest.hex())? {
                Some(lock) => break lock,
                None => tokio::time::sleep(AGAIN).await,
            }
        };
        if self.is_here(store, file, to) {
            progress.moved(file.size.unwrap_or(0));
            progress.file_done();
            return Ok(());
        }
        let longest = file.size.unwrap_or(u64::MAX);
        let open = || Part::open(store.part_path(&file.digest), longest).map_err(StoreError::from);
        let mut part = open()?;
        progress.moved(part.length());
        // What an earlier try left may not be what it seemed: then once more from the start.
        let mut resumed = part.length() > 0;
        let mut fruitless = 0;
        loop {
            let begun = part.length();
            if file.size.is_none_or(|size| begun < size) {
                let came = self.transfer(store, &mut part, file, progress).await;
                fruitless = if part.length() > begun { 0 } else { fruitless + 1 };
                match came {
                    Err(HubError::Away { .. }) if fruitless < FRUITLESS => continue,
                    came => came?,
                }
            }
            let length = part.length();
            if part.finish(&file.digest, to).map_err(StoreError::from)? {
                progress.file_done();
                return Ok(());
            }
            if !resumed {
                let reason = format!("{length} bytes came that do not hash to {}", file.digest);
                return Err(HubError::OtherBytes { what: file.what.clone(), reason });
            }
            resumed = false;
            part = open()?;
        }
    }

    /// Adds what is missing, as far as it comes.
    async fn transfer(
        &self,
        store: &Store,
        part: &mut Part,
        file: &WantedFile,
        progress: &TransferProgress,
    ) -> Result<(), HubError> {
        let asked = HubQuestion {
            what: &file.what,
            repository: file.repository.as_ref().map(|(repository, _)| repository.as_str()),
            revision: file.repository.as_ref().map(|(_, commit)| commit.as_str()),
        };
        let mut answer = self.open(file.url.clone(), &asked, part.length()).await?;
        let host = answer.url().host_str().unwrap_or_default().to_owned();
        match answer.status() {
            // Nothing is behind what has come: its hash says whether that is all.
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(()),
            StatusCode::PARTIAL_CONTENT if starts_at(&answer, part.length()) => {}
            StatusCode::PARTIAL_CONTENT => {
                let reason = "it sends another range than was asked for".to_owned();
                return Err(HubError::Odd { host, reason });
            }
            // The whole file: the server knows no ranges.
            _ => part.restart().map_err(StoreError::from)?,
        }
        if file.size.is_none() {
            progress.expect(answer.content_length().unwrap_or(0));
        }
        let longest = file.size.unwrap_or(u64::MAX);
        loop {
            let chunk = match answer.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(()),
                Err(e) => return Err(HubError::Away { host, reason: web::reason(e) }),
            };
            if chunk.len() as u64 > longest - part.length() {
                let reason = format!("more than {longest} bytes came");
                return Err(HubError::OtherBytes { what: file.what.clone(), reason });
            }
            part.append(&chunk).map_err(|e| full(store, file.size, e))?;
            progress.moved(chunk.len() as u64);
        }
    }

    /// Takes the file from where it was brought before: to another folder of the store, or by the
    /// hub's own tools, which name large files by their hash.
    fn is_here(&self, store: &Store, file: &WantedFile, to: &Path) -> bool {
        let brought = file.size.and_then(|size| store.fetched_file(&file.digest, size));
        if let Some(path) = brought {
            return link_or_copy(&path, to).is_ok();
        }
        let Some(path) = self.blob(file) else { return false };
        // A copy, since others may write to it; hashed after that.
        let same = || store.digest_file(to).is_ok_and(|(found, _)| found == file.digest);
        let taken = fs_err::copy(path, to).is_ok() && same() && read_only(to).is_ok();
        if !taken {
            let _ = fs_err::remove_file(to);
        }
        taken
    }

    fn blob(&self, file: &WantedFile) -> Option<PathBuf> {
        let (repository, _) = file.repository.as_ref()?;
        let (kind, name) = match repository.strip_prefix("datasets/") {
            Some(name) => ("datasets", name),
            None => ("models", repository.as_str()),
        };
        let folder = format!("{kind}--{}", name.replace('/', "--"));
        let path = self.settings.cache.as_ref()?.join(folder).join("blobs").join(file.digest.hex());
        let meta = std::fs::symlink_metadata(&path).ok()?;
        (meta.is_file() && file.size.is_none_or(|size| size == meta.len())).then_some(path)
    }
}

fn read_only(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o444))
}

/// The answer to a question for a range begins where that does.
fn starts_at(answer: &Response, start: u64) -> bool {
    let range = answer.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {start}-")))
}

/// A full disk in its own words.
fn full(store: &Store, size: Option<u64>, error: std::io::Error) -> HubError {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    if matches!(error.kind(), StorageFull | QuotaExceeded) {
        let free = store.free_bytes().unwrap_or(0);
        let path = store.root().to_owned();
        return HubError::Space { path, needed: size.unwrap_or(0), free };
    }
    HubError::Store(error.into())
}
