//! Up: the files of an entry, then its record. A file that is there is not sent again, and one
//! that is damaged here is never sent. Does not know why an entry is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{MultipartUpload, ObjectStoreExt as _};
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use super::client::{Inner, REQUESTS, Remote, payload};
use super::error::RemoteError;
use super::fetch::blocking;
use super::record::{EntryRecord, KeptInput, LONGEST, RECORD_FORMAT};
use super::{Sent, TransferProgress};
use crate::files;
use crate::identity::{Digest, Fingerprint};
use crate::store::{Entry, Store};

/// Larger files are sent in parts of at least this many bytes.
const PART: u64 = 8 << 20;
/// An S3 service takes ten thousand parts.
const PARTS: u64 = 9000;

/// One file to be sent, and the object it belongs to.
#[derive(Clone)]
struct Outgoing {
    digest: Digest,
    size: u64,
    path: PathBuf,
    object: Digest,
}

/// What became of a file.
enum Moved {
    Sent(u64),
    /// It was there.
    There,
    /// Another entry of this command had it.
    Before,
}

impl Remote {
    /// Sends an entry and its files, and forgets that it was queued.
    ///
    /// # Errors
    /// The remote fails, refuses, or holds an entry that made something else; the entry is not in
    /// the store or damaged there.
    pub async fn send(
        &self,
        store: &Arc<Store>,
        fingerprint: &Fingerprint,
        progress: &Arc<TransferProgress>,
    ) -> Result<Sent, RemoteError> {
        self.send_as(store, fingerprint, false, progress).await
    }

    /// The same; `again` sends every file and the record, whatever lies there.
    ///
    /// # Errors
    /// See [`Remote::send`].
    pub async fn send_as(
        &self,
        store: &Arc<Store>,
        fingerprint: &Fingerprint,
        again: bool,
        progress: &Arc<TransferProgress>,
    ) -> Result<Sent, RemoteError> {
        self.0.denied_if_read_only()?;
        let wanted = *fingerprint;
        let inner = Arc::clone(&self.0);
        let (record, files) = blocking(store, move |store| gather(&inner, store, &wanted)).await?;
        let held = if again { None } else { self.held(fingerprint).await? };
        if let Some(held) = &held
            && let Err(e) = same_outputs(&record.entry, held)
        {
            // It will not be taken later either.
            blocking(store, move |store| Ok(store.unqueue_upload(&wanted)?)).await?;
            return Err(e);
        }
        let mut sent = Sent::default();
        let mut sending = stream::iter(files)
            .map(|file| self.send_file(store, file, again, progress))
            .buffer_unordered(REQUESTS);
        while let Some(moved) = sending.try_next().await? {
            match moved {
                Moved::Sent(bytes) => {
                    sent.files += 1;
                    sent.bytes += bytes;
                }
                Moved::There => sent.already += 1,
                Moved::Before => {}
            }
        }
        drop(sending);
        if held.is_none() {
            let key = self.0.entry_key(fingerprint);
            let bytes = Bytes::from(record.to_bytes());
            let permit = self.0.requests.acquire().await.expect("invariant: never closed");
            self.0.put(&key, bytes).await?;
            drop(permit);
            // It may be the record of somebody who sent the same at the same time.
            let Some(held) = self.held(fingerprint).await? else {
                return Err(RemoteError::OtherBytes {
                    what: format!("entry {}", fingerprint.short()),
                    reason: "its record cannot be read after sending".to_owned(),
                });
            };
            same_outputs(&record.entry, &held)?;
        }
        blocking(store, move |store| Ok(store.unqueue_upload(&wanted)?)).await?;
        Ok(sent)
    }

    /// The entry that lies there, if it can be used.
    async fn held(&self, fingerprint: &Fingerprint) -> Result<Option<Entry>, RemoteError> {
        let bytes = match self.0.get(&self.0.entry_key(fingerprint), LONGEST).await {
            Err(RemoteError::OtherBytes { .. }) => None,
            other => other?,
        };
        if bytes.as_ref().is_some_and(|bytes| EntryRecord::is_newer(bytes)) {
            let reason = "a newer preflow wrote it".to_owned();
            return Err(RemoteError::Record { fingerprint: *fingerprint, reason });
        }
        Ok(bytes.and_then(|b| EntryRecord::read(&b, fingerprint).ok()).map(|record| record.entry))
    }

    /// Sends one file, if it is not there.
    async fn send_file(
        &self,
        store: &Arc<Store>,
        file: Outgoing,
        again: bool,
        progress: &Arc<TransferProgress>,
    ) -> Result<Moved, RemoteError> {
        let inner = &self.0;
        let there = inner.is_there(&file.digest);
        // Entries share files: what one sends, others wait for.
        let mut there = there.lock().await;
        if *there {
            return Ok(Moved::Before);
        }
        let key = inner.file_key(&file.digest);
        let permit = inner.requests.acquire().await.expect("invariant: never closed");
        if !again && inner.size(&key).await? == Some(file.size) {
            *there = true;
            return Ok(Moved::There);
        }
        progress.expect(file.size);
        if file.size <= PART {
            let outgoing = file.clone();
            let bytes = blocking(store, move |store| read_whole(store, &outgoing)).await?;
            inner.put(&key, bytes).await?;
            progress.moved(file.size);
            drop(permit);
        } else {
            // Its parts take permits of their own.
            drop(permit);
            self.send_in_parts(store, &file, progress).await?;
        }
        inner.arrived(&key, file.size).await?;
        *there = true;
        progress.file_done();
        Ok(Moved::Sent(file.size))
    }

    async fn send_in_parts(
        &self,
        store: &Arc<Store>,
        file: &Outgoing,
        progress: &Arc<TransferProgress>,
    ) -> Result<(), RemoteError> {
        let inner = &self.0;
        let key = inner.file_key(&file.digest);
        let upload = inner.store.put_multipart(&key).await;
        let mut upload = upload.map_err(|e| inner.explain(&e))?;
        let done = self.send_parts(store, file, &mut *upload, progress).await;
        let done = match done {
            Ok(()) => upload.complete().await.map(|_| ()).map_err(|e| inner.explain(&e)),
            Err(e) => Err(e),
        };
        if done.is_err() {
            // What is left there costs space, so it is tried; the error that led here counts.
            let _ = upload.abort().await;
        }
        done
    }

    /// All parts, hashed as they are read: only a file that was right becomes visible there.
    async fn send_parts(
        &self,
        store: &Arc<Store>,
        file: &Outgoing,
        upload: &mut dyn MultipartUpload,
        progress: &Arc<TransferProgress>,
    ) -> Result<(), RemoteError> {
        let size = PART.max(file.size.div_ceil(PARTS));
        let mut parts = JoinSet::new();
        let (mut hash, mut left) = (Sha256::new(), file.size);
        let path = file.path.clone();
        let mut source = blocking(store, move |_| open(&path)).await?;
        while left > 0 {
            let permit = Arc::clone(&self.0.requests).acquire_owned().await;
            let permit = permit.expect("invariant: never closed");
            let count = size.min(left);
            let work = move |_: &Store| {
                let bytes = read_part(&mut source, count)?;
                hash.update(&bytes);
                Ok((source, hash, bytes))
            };
            let bytes;
            (source, hash, bytes) = blocking(store, work).await?;
            if bytes.len() as u64 != count {
                break;
            }
            left -= count;
            let part = upload.put_part(payload(bytes));
            let progress = Arc::clone(progress);
            parts.spawn(async move {
                part.await?;
                drop(permit);
                progress.moved(count);
                Ok::<(), object_store::Error>(())
            });
            while let Some(done) = parts.try_join_next() {
                self.joined(done)?;
            }
        }
        while let Some(done) = parts.join_next().await {
            self.joined(done)?;
        }
        if left > 0 || Digest::from_raw(hash.finalize().into()) != file.digest {
            let file = file.clone();
            return blocking(store, move |store| Err(damaged(store, &file))).await;
        }
        Ok(())
    }

    fn joined(
        &self,
        done: Result<Result<(), object_store::Error>, tokio::task::JoinError>,
    ) -> Result<(), RemoteError> {
        let done = done.expect("invariant: sending does not panic");
        done.map_err(|e| self.0.explain(&e))
    }
}

impl Inner {
    /// Makes sure that what was sent is there: some services say yes too early.
    async fn arrived(&self, key: &object_store::path::Path, size: u64) -> Result<(), RemoteError> {
        match self.size(key).await? {
            Some(there) if there == size => Ok(()),
            there => Err(RemoteError::OtherBytes {
                what: key.filename().unwrap_or_default().to_owned(),
                reason: format!("{} of {size} bytes after sending", there.unwrap_or(0)),
            }),
        }
    }
}

/// The record of an entry, and its files.
fn gather(
    inner: &Inner,
    store: &Store,
    fingerprint: &Fingerprint,
) -> Result<(EntryRecord, Vec<Outgoing>), RemoteError> {
    let absent = RemoteError::NotInStore { fingerprint: *fingerprint };
    let Some(entry) = store.entry(fingerprint)? else {
        store.unqueue_upload(fingerprint)?;
        return Err(absent);
    };
    let mut files: BTreeMap<Digest, Outgoing> = BTreeMap::new();
    let mut add = |digest: Digest, size: u64, path: PathBuf, object: Digest| {
        files.insert(digest, Outgoing { digest, size, path, object });
    };
    for output in entry.outputs.values() {
        let path = store.object_path(&output.digest);
        match &output.tree {
            None => add(output.digest, output.bytes, path, output.digest),
            Some(tree) => tree.iter().for_each(|file| {
                add(file.digest, file.size, path.join(&file.path), output.digest);
            }),
        }
    }
    let inputs = kept_inputs(inner, store, &entry)?;
    for input in &inputs {
        add(input.digest, input.size, store.object_path(&input.digest), input.digest);
    }
    files.retain(|_, file| file.size > 0);
    Ok((EntryRecord { format: RECORD_FORMAT, entry, inputs }, files.into_values().collect()))
}

/// Objects that the entry's stage read and that no entry made.
fn kept_inputs(inner: &Inner, store: &Store, entry: &Entry) -> Result<Vec<KeptInput>, RemoteError> {
    let mut kept = Vec::new();
    let digests: BTreeSet<Digest> = entry.identity.input_digests().collect();
    for digest in digests {
        let meta = std::fs::symlink_metadata(store.object_path(&digest));
        if let Ok(meta) = meta
            && meta.is_file()
            && !is_made(inner, store, &digest)?
        {
            kept.push(KeptInput { digest, size: meta.len() });
        }
    }
    Ok(kept)
}

/// Some entry of the store made it. What entries made does not change, so each is read once.
fn is_made(inner: &Inner, store: &Store, digest: &Digest) -> Result<bool, RemoteError> {
    let mut made = inner.made.lock().expect("invariant: nobody panics with it");
    if made.1.contains(digest) {
        return Ok(true);
    }
    for fingerprint in store.fingerprints()? {
        if made.0.insert(fingerprint)
            && let Ok(Some(entry)) = store.entry(&fingerprint)
        {
            made.1.extend(entry.outputs.values().map(|output| output.digest));
        }
    }
    Ok(made.1.contains(digest))
}

fn same_outputs(ours: &Entry, theirs: &Entry) -> Result<(), RemoteError> {
    if ours.outputs == theirs.outputs {
        return Ok(());
    }
    let by = if theirs.made.run.is_empty() { "another run" } else { theirs.made.run.as_str() };
    Err(RemoteError::OtherBytes {
        what: format!("entry {} ({})", ours.fingerprint.short(), ours.identity.kind),
        reason: format!("what {by} made stays; the stage does not make the same twice"),
    })
}

fn open(path: &std::path::Path) -> Result<File, RemoteError> {
    let file = files::open_own(path).map_err(|e| files::named(path, &e));
    Ok(file.map_err(crate::store::StoreError::from)?)
}

fn read_part(file: &mut File, count: u64) -> Result<Bytes, RemoteError> {
    let mut bytes = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    let read = io::Read::by_ref(file).take(count).read_to_end(&mut bytes);
    read.map_err(crate::store::StoreError::from)?;
    Ok(bytes.into())
}

/// The bytes of a small file, if they are what they should be.
fn read_whole(store: &Store, file: &Outgoing) -> Result<Bytes, RemoteError> {
    let bytes = match open(&file.path) {
        Ok(mut source) => read_part(&mut source, file.size + 1)?,
        Err(_) => return Err(damaged(store, file)),
    };
    if bytes.len() as u64 == file.size && Digest::of(&bytes) == file.digest {
        return Ok(bytes);
    }
    Err(damaged(store, file))
}

/// Moves the object aside, so that it is a miss from now on.
fn damaged(store: &Store, file: &Outgoing) -> RemoteError {
    if std::fs::symlink_metadata(store.object_path(&file.object)).is_ok()
        && let Err(e) = store.quarantine(&file.object, None)
    {
        return e.into();
    }
    RemoteError::Damaged { what: format!("object {}", file.object.short()) }
}
