//! Checkpoints inside a stage: what a training loop needs to go on exactly where it stopped.
//! Knows nothing of kinds; what the state means is the loop's business.
//!
//! One file each: a length and a CBOR header (the loop's state and a table of tensors), the bytes
//! of the tensors, and the SHA-256 of all before it. A file is written aside, synced and renamed;
//! the two newest are kept, and one whose hash does not fit is passed over.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tch::{Device, Kind, Tensor, no_grad};

/// Time between two checkpoints when the pipeline says nothing.
const EVERY: Duration = Duration::from_secs(30);
/// Checkpoints on disk.
const KEPT: usize = 2;
const ENDING: &str = "checkpoint";
const HASH: usize = 32;
/// Largest header that is read, bytes.
const MAX_HEADER: u64 = 1 << 30;

/// Tensors of a loop by name, as views: a checkpoint reads them, a resume writes into them.
pub type StateDict = Vec<(String, Tensor)>;

/// Figures kept so far: step, name, value.
pub type Metrics = Vec<(u64, String, f64)>;

/// Where a stage keeps its checkpoints, and when the next one is due.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    every: Duration,
    last: Instant,
    number: u64,
}

#[derive(Serialize, Deserialize)]
struct Header<S> {
    state: S,
    metrics: Metrics,
    tensors: Vec<(String, String, Vec<i64>)>,
}

impl Checkpoints {
    /// Checkpoints in `folder`, every so many seconds; 0: as often as the loop offers one.
    pub fn new(folder: &Path, seconds: Option<f64>) -> Self {
        let every = seconds.map_or(EVERY, |s| Duration::from_secs_f64(s.clamp(0.0, 1e9)));
        Self { folder: folder.join("checkpoints"), every, last: Instant::now(), number: 0 }
    }

    /// Whether it is time for the next one.
    pub fn due(&self) -> bool {
        self.last.elapsed() >= self.every
    }

    /// Writes a checkpoint and removes those before the last two.
    ///
    /// # Errors
    /// When the file cannot be written; earlier ones are untouched then.
    pub fn write<S: Serialize>(
        &mut self,
        state: S,
        metrics: &Metrics,
        tensors: &StateDict,
    ) -> Result<()> {
        // Also after a failure: a full disk is not tried again at every step.
        self.last = Instant::now();
        fs_err::create_dir_all(&self.folder)?;
        let (aside, path) = (self.folder.join("next"), self.path(self.number + 1));
        let mut out = Hashing::new(fs_err::File::create(&aside)?.into_file());
        let table = tensors
            .iter()
            .map(|(name, t)| Ok((name.clone(), kind_name(t.kind())?.to_owned(), t.size())))
            .collect::<Result<Vec<_>>>()?;
        let mut header = Vec::new();
        ciborium::into_writer(
            &Header { state, metrics: metrics.clone(), tensors: table },
            &mut header,
        )
        .context("the state cannot be written")?;
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for (_, tensor) in tensors {
            out.write_all(&bytes_of(tensor))?;
        }
        out.finish()?.sync_all()?;
        fs_err::rename(&aside, path)?;
        fs_err::File::open(&self.folder)?.sync_all()?;
        self.number += 1;
        for number in self.present()?.into_iter().rev().skip(KEPT) {
            fs_err::remove_file(self.path(number))?;
        }
        Ok(())
    }

    /// The newest checkpoint that is whole, its tensors copied into `tensors`, and what had to be
    /// passed over. Nothing when there is none.
    pub fn read<S: DeserializeOwned>(
        &mut self,
        tensors: &StateDict,
    ) -> (Option<(S, Metrics)>, Vec<String>) {
        let mut passed = Vec::new();
        let present = self.present().unwrap_or_default();
        self.number = present.last().copied().unwrap_or(0);
        for number in present.into_iter().rev() {
            match load(&self.path(number), tensors) {
                Ok(found) => return (Some(found), passed),
                Err(e) => passed.push(format!("checkpoint {number}: {e:#}")),
            }
        }
        (None, passed)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:08}.{ENDING}"))
    }

    /// Numbers of the checkpoints on disk, ascending.
    fn present(&self) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        if self.folder.is_dir() {
            for entry in fs_err::read_dir(&self.folder)? {
                let path = entry?.path();
                if path.extension().is_some_and(|e| e == ENDING) {
                    numbers.extend(path.file_stem().and_then(|s| s.to_str()?.parse::<u64>().ok()));
                }
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// Reads a checkpoint. The tensors are only touched when all of it is sound.
fn load<S: DeserializeOwned>(path: &Path, tensors: &StateDict) -> Result<(S, Metrics)> {
    check_hash(path)?;
    let mut file = BufReader::new(fs_err::File::open(path)?);
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        bail!("the header claims {length} bytes");
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header)?;
    let header: Header<S> = ciborium::from_reader(header.as_slice())
        .map_err(|e| anyhow::anyhow!("it belongs to another build: {e}"))?;
    let wanted: Vec<(String, String, Vec<i64>)> = tensors
        .iter()
        .map(|(name, t)| Ok((name.clone(), kind_name(t.kind())?.to_owned(), t.size())))
        .collect::<Result<_>>()?;
    if header.tensors != wanted {
        bail!("it belongs to another build: its tensors are others");
    }
    let mut loaded = Vec::new();
    for (_, tensor) in tensors {
        let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        file.read_exact(&mut bytes)?;
        loaded.push(Tensor::f_from_data_size(&bytes, &tensor.size(), tensor.kind())?);
    }
    no_grad(|| {
        for ((_, tensor), loaded) in tensors.iter().zip(loaded) {
            tensor.shallow_clone().copy_(&loaded);
        }
    });
    Ok((header.state, header.metrics))
}

/// Compares the last bytes of a file with the hash of all before them.
fn check_hash(path: &Path) -> Result<()> {
    let file = fs_err::File::open(path)?;
    let size = file.metadata()?.len();
    let Some(body) = size.checked_sub(HASH as u64) else { bail!("the file is cut off") };
    let (mut reader, mut hasher) = (BufReader::new(file), Sha256::new());
    let (mut left, mut buffer) = (body, vec![0; 1 << 16]);
    while left > 0 {
        let n = (left as usize).min(buffer.len());
        reader.read_exact(&mut buffer[..n])?;
        hasher.update(&buffer[..n]);
        left -= n as u64;
    }
    let mut found = [0; HASH];
    reader.read_exact(&mut found)?;
    if hasher.finalize().as_slice() != found {
        bail!("the file is damaged");
    }
    Ok(())
}

fn kind_name(kind: Kind) -> Result<&'static str> {
    match kind {
        Kind::Float => Ok("f32"),
        Kind::Double => Ok("f64"),
        Kind::Int64 => Ok("i64"),
        Kind::BFloat16 => Ok("bf16"),
        other => bail!("tensors of type {other:?} are not kept in checkpoints"),
    }
}

/// The values of a tensor in the order of its elements, little endian as the machine.
fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let host = tensor.detach().to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0; host.numel() * host.kind().elt_size_in_bytes()];
    host.copy_data_u8(&mut bytes, host.numel());
    bytes
}

/// Hashes what it writes; the hash comes last.
struct Hashing {
    file: BufWriter<File>,
    hasher: Sha256,
}

impl Hashing {
    fn new(file: File) -> Self {
        Self { file: BufWriter::new(file), hasher: Sha256::new() }
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        Ok(self.file.write_all(bytes)?)
    }

    fn finish(mut self) -> Result<File> {
        self.file.write_all(&self.hasher.finalize())?;
        Ok(self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(values: &[f32]) -> StateDict {
        vec![
            ("x".into(), Tensor::from_slice(values)),
            ("t".into(), Tensor::from_slice(&[values.len() as i64])),
        ]
    }

    #[test]
    fn the_two_newest_are_kept_and_a_damaged_one_is_passed_over() {
        let dir = tempfile::TempDir::new().expect("a folder");
        let mut checkpoints = Checkpoints::new(dir.path(), Some(0.0));
        assert!(checkpoints.due());
        let metrics = vec![(1, "loss".to_owned(), f64::NAN), (2, "loss".to_owned(), 0.1)];
        for step in 1..=4_u64 {
            let tensors = named(&[step as f32, f32::MIN_POSITIVE]);
            checkpoints.write((step, 0.1_f64 + step as f64), &metrics, &tensors).expect("written");
        }
        let files = || std::fs::read_dir(dir.path().join("checkpoints")).expect("there").count();
        assert_eq!(files(), 2);
        let read = |checkpoints: &mut Checkpoints| {
            let tensors = named(&[0.0, 0.0]);
            let (found, passed) = checkpoints.read::<(u64, f64)>(&tensors);
            (found, passed, tensors[0].1.double_value(&[0]), tensors[0].1.double_value(&[1]))
        };
        let mut again = Checkpoints::new(dir.path(), None);
        assert!(!again.due());
        let (found, passed, x, tiny) = read(&mut again);
        let (state, kept) = found.expect("a checkpoint");
        assert_eq!((state, passed.len(), x), ((4, 4.1), 0, 4.0));
        assert_eq!(tiny, f64::from(f32::MIN_POSITIVE));
        assert!(kept[0].2.is_nan() && kept[1].2 == 0.1);

        let newest = dir.path().join("checkpoints/00000004.checkpoint");
        let mut bytes = std::fs::read(&newest).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&newest, &bytes).expect("written");
        let (found, passed, x, _) = read(&mut again);
        assert_eq!((found.expect("the older one").0.0, x), (3, 3.0));
        assert!(passed[0].contains("damaged"), "{passed:?}");
        // The next one is numbered after the damaged one and takes its turn.
        again.write((5_u64, 5.1), &Vec::new(), &named(&[5.0, 0.0])).expect("written");
        assert_eq!(read(&mut again).2, 5.0);

        std::fs::write(&newest, &bytes[..10]).expect("written");
        let wrong = named(&[0.0; 3]);
        let (found, passed) = again.read::<(u64, f64)>(&wrong);
        assert!(found.is_none() && passed.len() == 2, "{passed:?}");
        assert!(passed[0].contains("another build") && passed[1].contains("cut off"), "{passed:?}");
    }
}
