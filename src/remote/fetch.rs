//! Down: an entry and the files it names, in parallel, going on where an earlier try was cut off.
//! Believes nothing that does not hash to its name. Does not know who wants the entry.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::client::{Inner, REQUESTS, Read, Remote};
use super::error::RemoteError;
use super::record::{EntryRecord, LONGEST};
use super::{Expected, Fetched, TransferProgress};
use crate::identity::{Digest, Fingerprint};
use crate::store::arrive::{Arrival, ArrivalLock};
use crate::store::part::Part;
use crate::store::publish::link_or_copy;
use crate::store::{Entry, EntryOutput, Health, Store, StoreError};

/// Bytes of one request. What a killed transfer loses is at most this times the requests.
pub(super) const RANGE: u64 = 2 << 20;

/// How often a lock that another process holds is tried.
const AGAIN: Duration = Duration::from_millis(100);

impl Remote {
    /// Brings an entry and all its files. `None`: it is not there, or not whole. Where the store
    /// holds it by now, nothing is moved.
    ///
    /// # Errors
    /// The remote fails or lies, its entry is not as it is expected, the disk is full or failing.
    pub async fn fetch(
        &self,
        store: &Arc<Store>,
        fingerprint: &Fingerprint,
        expected: &Expected,
        progress: &Arc<TransferProgress>,
    ) -> Result<Option<(Entry, Fetched)>, RemoteError> {
        let inner = &self.0;
        let key = inner.entry_key(fingerprint);
        let Some(bytes) = inner.get(&key, LONGEST).await? else { return Ok(None) };
        let record = EntryRecord::read(&bytes, fingerprint)
            .map_err(|reason| RemoteError::Record { fingerprint: *fingerprint, reason })?;
        drop(bytes);
        expected.check(&record.entry, fingerprint)?;
        blocking(store, |store| Ok(store.prepare_for_writing()?)).await?;
        let _lock = locked(store, fingerprint.hex()).await?;
        let wanted = *fingerprint;
        let there = blocking(store, move |store| sound(store, &wanted)).await?;
        if let Some(entry) = there {
            if !expected.names_bytes() || entry.outputs == record.entry.outputs {
                return Ok(Some((entry, Fetched::default())));
            }
            // Made here, otherwise than it is wanted: what is wanted takes its place.
            blocking(store, move |store| Ok(store.remove_entry(&wanted)?)).await?;
        }
        self.bring_all(store, record, progress).await
    }

    async fn bring_all(
        &self,
        store: &Arc<Store>,
        record: EntryRecord,
        progress: &Arc<TransferProgress>,
    ) -> Result<Option<(Entry, Fetched)>, RemoteError> {
        let record = Arc::new(record);
        let known = Arc::clone(&record);
        let missing = blocking(store, move |store| missing(store, &known)).await?;
        progress.expect(missing.values().sum());
        let folder = blocking(store, |store| Ok(store.arrival_folder()?)).await?;
        let place = folder.path().to_owned();
        let mut brought = stream::iter(missing.clone())
            .map(|(digest, size)| self.bring(store, digest, size, &place, progress))
            .buffer_unordered(REQUESTS);
        let mut fetched = Fetched::default();
        let mut files = BTreeMap::new();
        while let Some(came) = brought.try_next().await? {
            let Some((digest, path, bytes)) = came else { return Ok(None) };
            fetched.files += u64::from(bytes > 0);
            fetched.bytes += bytes;
            files.insert(digest, path);
        }
        drop(brought);
        let needed = missing.values().sum();
        let arrival = Arrival {
            entry: record.entry.clone(),
            inputs: record.inputs.iter().map(|input| (input.digest, input.size)).collect(),
            files,
        };
        let inner = Arc::clone(&self.0);
        let entry = blocking(store, move |store| {
            let entry =
                store.arrive(&arrival, folder.path()).map_err(|e| full(store, needed, e))?;
            remember(&inner, store, &entry);
            arrival.files.keys().for_each(|digest| store.forget_part(digest));
            drop(folder);
            store.settle_arrival(&entry)?;
            Ok(entry)
        })
        .await?;
        Ok(Some((entry, fetched)))
    }

    /// Brings one file into the folder. `None`: it is not there.
    async fn bring(
        &self,
        store: &Arc<Store>,
        digest: Digest,
        size: u64,
        folder: &Path,
        progress: &Arc<TransferProgress>,
    ) -> Result<Option<(Digest, PathBuf, u64)>, RemoteError> {
        let _lock = locked(store, digest.hex()).await?;
        let to = folder.join(digest.hex());
        if let Some(known) = self.0.where_brought(&digest) {
            let placed = to.clone();
            if blocking(store, move |store| Ok(link_known(store, &known, &digest, &placed))).await?
            {
                progress.moved(size);
                return Ok(Some((digest, to, 0)));
            }
        }
        let mut moved = 0;
        loop {
            let path = store.part_path(&digest);
            let part =
                blocking(store, move |_| Ok(Part::open(path, size).map_err(StoreError::from)?))
                    .await?;
            let begun = part.length();
            if moved == 0 {
                progress.moved(begun);
            }
            let part = match self.transfer(store, part, digest, size, progress).await {
                Ok(Some(part)) => part,
                // What came is of no use, or nothing did.
                gone @ (Ok(None) | Err(RemoteError::OtherBytes { .. })) => {
                    let _ = fs_err::remove_file(store.part_path(&digest));
                    return gone.map(|_| None);
                }
                Err(e) => return Err(e),
            };
            moved += part.length() - begun;
            let placed = to.clone();
            let whole = blocking(store, move |_| {
                Ok(part.finish(&digest, &placed).map_err(StoreError::from)?)
            });
            if whole.await? {
                progress.file_done();
                return Ok(Some((digest, to, moved)));
            }
            if begun == 0 {
                return Err(RemoteError::OtherBytes {
                    what: format!("file {}", digest.short()),
                    reason: "they do not hash to its name".to_owned(),
                });
            }
            // What an earlier try left was not what it seemed: once more from the start.
        }
    }

    /// Appends what is missing, in order; requests run ahead of the writing.
    async fn transfer(
        &self,
        store: &Arc<Store>,
        mut part: Part,
        digest: Digest,
        size: u64,
        progress: &Arc<TransferProgress>,
    ) -> Result<Option<Part>, RemoteError> {
        let inner = &self.0;
        let key = inner.file_key(&digest);
        let starts = (part.length()..size).step_by(usize::try_from(RANGE).unwrap_or(usize::MAX));
        let ranges = starts.map(|start| start..(start + RANGE).min(size));
        let answers = stream::iter(ranges)
            // Permits are taken in order, so the first range is never kept waiting by later ones.
            .then(|range| {
                let requests = Arc::clone(&inner.requests);
                async move {
                    let permit = requests.acquire_owned().await;
                    (range, permit.expect("invariant: never closed"))
                }
            })
            .map(|(range, permit)| {
                let key = &key;
                async move {
                    let asked = (size > RANGE).then(|| range.clone());
                    let read = inner.read(key, asked, range.end - range.start).await?;
                    Ok::<_, RemoteError>((range, read, permit))
                }
            })
            .buffered(REQUESTS);
        let mut answers = std::pin::pin!(answers);
        while let Some((range, read, _permit)) = answers.try_next().await? {
            let Some(Read { bytes, size: whole, cut }) = read else { return Ok(None) };
            let expected = range.end - range.start;
            let short = (bytes.len() as u64) < expected;
            if whole == size || cut.is_some() {
                let count = bytes.len() as u64;
                part = blocking(store, move |store| {
                    let needed = size - part.length();
                    part.append(&bytes).map_err(|e| full(store, needed, e.into()))?;
                    Ok(part)
                })
                .await?;
                progress.moved(count);
            }
            if let Some(error) = cut {
                return Err(error);
            }
            if whole != size || short {
                return Err(RemoteError::OtherBytes {
                    what: format!("file {}", digest.short()),
                    reason: format!("it has {whole} bytes there, not {size}"),
                });
            }
        }
        Ok(Some(part))
    }
}

/// The entry, where the store holds it and all it made.
fn sound(store: &Store, fingerprint: &Fingerprint) -> Result<Option<Entry>, RemoteError> {
    match store.entry(fingerprint) {
        Ok(Some(entry)) if store.health(&entry)?.is_none() => Ok(Some(entry)),
        _ => Ok(None),
    }
}

/// Remembers where the files of an entry lie now.
fn remember(inner: &Inner, store: &Store, entry: &Entry) {
    let mut brought = inner.brought.lock().expect("invariant: nobody panics with it");
    for output in entry.outputs.values() {
        let path = store.object_path(&output.digest);
        match &output.tree {
            None => drop(brought.insert(output.digest, path)),
            Some(files) => {
                brought.extend(files.iter().map(|file| (file.digest, path.join(&file.path))));
            }
        }
    }
}

/// Gives a file that was brought before a further name, if it is still what it was.
fn link_known(store: &Store, known: &Path, digest: &Digest, to: &Path) -> bool {
    let sound = matches!(store.digest_file(known), Ok((found, _)) if found == *digest);
    sound && link_or_copy(known, to).is_ok()
}

/// Files that the store does not hold, with their sizes; enough space for them is there.
fn missing(store: &Store, record: &EntryRecord) -> Result<BTreeMap<Digest, u64>, RemoteError> {
    let mut missing = BTreeMap::new();
    let mut want = |digest: Digest, size: u64| -> Result<(), StoreError> {
        let alone = EntryOutput { digest, bytes: size, tree: None };
        if size > 0 && store.check(&alone, false)? != Health::Good {
            missing.insert(digest, size);
        }
        Ok(())
    };
    for output in record.entry.outputs.values() {
        match &output.tree {
            None => want(output.digest, output.bytes)?,
            Some(_) if store.check(output, false)? == Health::Good => {}
            Some(files) => files.iter().try_for_each(|file| want(file.digest, file.size))?,
        }
    }
    record.inputs.iter().try_for_each(|input| want(input.digest, input.size))?;
    let here =
        |digest: &Digest| std::fs::metadata(store.part_path(digest)).map_or(0, |meta| meta.len());
    let needed = missing.iter().map(|(digest, size)| size.saturating_sub(here(digest))).sum();
    match store.free_bytes() {
        Some(free) if free < needed => {
            Err(RemoteError::Space { path: store.root().to_owned(), needed, free })
        }
        _ => Ok(missing),
    }
}

/// A full disk in its own words.
pub(super) fn full(store: &Store, needed: u64, error: StoreError) -> RemoteError {
    match &error {
        StoreError::Io(e)
            if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            let free = store.free_bytes().unwrap_or(0);
            RemoteError::Space { path: store.root().to_owned(), needed, free }
        }
        _ => error.into(),
    }
}

/// Takes the right to bring something, when whoever has it is done.
async fn locked(store: &Arc<Store>, what: String) -> Result<ArrivalLock, RemoteError> {
    loop {
        let name = what.clone();
        let lock = blocking(store, move |store| Ok(store.arrival_lock(&name)?)).await?;
        match lock {
            Some(lock) => return Ok(lock),
            None => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// Work on the disk, aside.
pub(super) async fn blocking<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Store) -> Result<T, RemoteError> + Send + 'static,
) -> Result<T, RemoteError> {
    let store = Arc::clone(store);
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    done.expect("invariant: work on the disk does not panic")
}
