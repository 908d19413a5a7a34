//! All that a kind may touch: its inputs, outputs, scratch, device, and the event stream.
//! Knows nothing of any kind, or of who reads the events.

mod memory;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use preflow::protocol::{CHECKPOINT, DETAIL, Event, GoesOnAt, InputSpec, TaskSpec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Device;
use tracing::debug;

use crate::data::{
    Column, Table, Vocabulary, Wanted, read_tables, read_texts, settle, write_parquet,
};
use crate::exit::{EXIT_TERMINATED, leave};
use crate::resume::{Checkpoints, Metrics, StateDict};
pub use memory::{Held, free_memory};

/// Figures under this prefix are sent but never written: they differ from run to run.
pub const TIME: &str = "time/";

/// The figure of the most memory that a stage held, MiB.
const PEAK: &str = "time/peak_mib";

/// Columns by which a table as text is known when a kind reads rows.
const COLUMNS: [&str; 11] = [
    "prompt",
    "completion",
    "messages",
    "conversations",
    "instruction",
    "chosen",
    "rejected",
    "response_a",
    "response_b",
    "pair",
    "text",
];

/// Least time between two progress lines, seconds.
const PROGRESS_EVERY: f64 = 0.1;

/// The outcome of a stage that needs people to act first: no failure.
#[derive(Debug)]
pub struct Waiting {
    /// One line for a person: what there is, and what is needed.
    pub reason: String,
    pub have: Option<u64>,
    pub need: Option<u64>,
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "waiting: {}", self.reason)
    }
}

impl std::error::Error for Waiting {}

/// Where events go: one JSON object a line.
#[derive(Clone)]
pub struct Events(Arc<Mutex<dyn Write + Send>>);

impl Events {
    /// Events that are written to `writer`.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(writer)))
    }

    /// Sends one event, or whatever else the protocol has, as one line.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub fn send(&self, event: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        let mut writer = self.0.lock().map_err(|_| anyhow!("the event stream is broken"))?;
        writer.write_all(&line)?;
        Ok(writer.flush()?)
    }
}

/// What one task may see and do.
pub struct Context {
    task: TaskSpec,
    device: Device,
    events: Events,
    metrics: Metrics,
    last_progress: Option<Instant>,
    /// How far the loop is, whether or not it was sent.
    reached: Option<GoesOnAt>,
    checkpoints: Checkpoints,
    /// Set by SIGTERM once a loop offers checkpoints.
    asked_to_end: Option<Arc<AtomicBool>>,
    /// Bytes that the stage was said to need.
    forecast: Option<u64>,
}

impl Context {
    /// The context of `task`, which writes its events to `events`.
    ///
    /// # Errors
    /// When the device is unknown or not there.
    pub fn new(task: TaskSpec, events: Events) -> Result<Self> {
        let device = parse_device(task.execution.device.as_deref().unwrap_or("cpu"))?;
        let checkpoints =
            Checkpoints::new(Path::new(&task.scratch), task.execution.checkpoint_every);
        Ok(Self {
            task,
            device,
            events,
            metrics: Vec::new(),
            last_progress: None,
            reached: None,
            checkpoints,
            asked_to_end: None,
            forecast: None,
        })
    }

    /// Where tensors live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The task that the worker was started with.
    pub fn task(&self) -> &TaskSpec {
        &self.task
    }

    /// What is connected to a port; nothing when it is open.
    pub fn inputs(&self, port: &str) -> &[InputSpec] {
        self.task.inputs.get(port).map_or(&[], Vec::as_slice)
    }

    /// The one artifact of a port.
    ///
    /// # Errors
    /// When nothing, or more than one, is connected.
    pub fn input(&self, port: &str) -> Result<&InputSpec> {
        match self.inputs(port) {
            [one] => Ok(one),
            [] => bail!("input `{port}` is not connected"),
            many => bail!("input `{port}` takes one artifact, not {}", many.len()),
        }
    }

    /// The one file or folder of a port.
    ///
    /// # Errors
    /// As [`Context::input`], or when it is several files.
    pub fn path(&self, port: &str) -> Result<&Path> {
        let input = self.input(port)?;
        match input.paths.as_slice() {
            [path] => Ok(Path::new(path)),
            paths => bail!("input `{port}` takes one file, not {}", paths.len()),
        }
    }

    /// The rows of a port.
    ///
    /// # Errors
    /// When a file cannot be read or there is no row; the message names the port.
    pub fn table(&self, port: &str) -> Result<Table> {
        let input = self.input(port)?;
        self.table_of(input).with_context(|| format!("input `{port}` ({})", input.name))
    }

    /// The rows of one artifact of a port that takes several.
    ///
    /// # Errors
    /// When a file cannot be read or there is no row.
    pub fn table_of(&self, input: &InputSpec) -> Result<Table> {
        let wanted = Wanted { columns: COLUMNS.to_vec(), plain: false, named: input.source };
        settle(read_tables(&input.paths, &wanted)?, &input.port_type)
    }

    /// The column `text` of a port, one after the other, without holding them all.
    ///
    /// # Errors
    /// When nothing, or more than one, is connected; each text when it cannot be read, and at the
    /// end when there was none.
    pub fn texts(&self, port: &str) -> Result<impl Iterator<Item = Result<String>> + use<>> {
        let input = self.input(port)?;
        let (mut any, name) = (false, format!("input `{port}` ({})", input.name));
        let mut texts = read_texts(&input.paths, input.source).fuse();
        Ok(std::iter::from_fn(move || match texts.next() {
            None if any => None,
            None => {
                any = true;
                Some(Err(anyhow!("the dataset is empty").context(name.clone())))
            }
            Some(text) => {
                any = true;
                Some(text.with_context(|| name.clone()))
            }
        }))
    }

    /// Where an output port is to be written.
    ///
    /// # Errors
    /// When the task has no such port.
    pub fn output(&self, port: &str) -> Result<PathBuf> {
        let path = self.task.outputs.get(port);
        Ok(path.ok_or_else(|| anyhow!("the task names no path for output `{port}`"))?.into())
    }

    /// A folder for files of this stage's own.
    pub fn scratch(&self) -> &Path {
        Path::new(&self.task.scratch)
    }

    /// A folder for what outside services answered, kept between runs; need not exist.
    pub fn answers(&self) -> PathBuf {
        let kept = self.task.answers.as_deref().map(PathBuf::from);
        kept.unwrap_or_else(|| self.scratch().join("answers"))
    }

    /// Goes on where an earlier attempt stopped: copies the newest sound checkpoint into `tensors`
    /// and returns the loop's state with it. Call it once, before the loop; nothing is returned
    /// when the loop starts from the beginning.
    ///
    /// # Errors
    /// When the event cannot be sent. A damaged checkpoint is none: the one before it is taken.
    pub fn resume<S: DeserializeOwned>(&mut self, tensors: &StateDict) -> Result<Option<S>> {
        let asked = Arc::new(AtomicBool::new(false));
        // From here on a SIGTERM waits for the next boundary of the loop.
        signal_hook::flag::register(signal_hook::consts::SIGTERM, asked.clone())?;
        self.asked_to_end = Some(asked);
        let (found, passed) = self.checkpoints.read(tensors);
        for reason in passed {
            self.warn(format!("{reason}; an earlier one is used, or the stage starts over"))?;
        }
        let Some((state, metrics)) = found else { return Ok(None) };
        self.metrics = metrics;
        self.note("goes on from the checkpoint of an earlier attempt")?;
        Ok(Some(state))
    }

    /// Offers a checkpoint at a boundary of the loop: it is written when one is due, or when the
    /// process was asked to end, which it then does.
    ///
    /// # Errors
    /// When the event cannot be sent. A checkpoint that cannot be written is a warning only.
    pub fn checkpoint<S: Serialize>(&mut self, state: &S, tensors: &StateDict) -> Result<()> {
        let asked = self.asked_to_end.as_ref().is_some_and(|a| a.load(Ordering::Relaxed));
        if asked || self.checkpoints.due() {
            let begun = Instant::now();
            let written = self.checkpoints.write(state, &self.metrics, tensors);
            debug!(ms = begun.elapsed().as_millis(), "checkpoint written");
            if let Err(e) = written.and_then(|()| self.tell_checkpoint()) {
                self.warn(format!("no checkpoint could be written: {e:#}"))?;
            }
        }
        if asked {
            leave(EXIT_TERMINATED);
        }
        Ok(())
    }

    /// Writes how far the loop is beside the checkpoint, for people.
    fn tell_checkpoint(&self) -> Result<()> {
        let Some(reached) = &self.reached else { return Ok(()) };
        let (path, aside) = (self.scratch().join(CHECKPOINT), self.scratch().join("checkpoint"));
        fs_err::write(&aside, serde_json::to_vec(reached)?)?;
        Ok(fs_err::rename(aside, path)?)
    }

    /// The tokenizer in a model folder.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn vocabulary(&self, folder: &Path) -> Result<Vocabulary> {
        Vocabulary::open(&folder.join("tokenizer.json"))
    }

    /// The tokenizer at a port that takes tokenizers and models.
    ///
    /// # Errors
    /// When nothing, or more than one, is connected, or it cannot be opened.
    pub fn vocabulary_at(&self, port: &str) -> Result<Vocabulary> {
        let path = self.path(port)?;
        if path.is_dir() { self.vocabulary(path) } else { Vocabulary::open(path) }
    }

    /// Writes the rows of an output port and announces it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_table(&mut self, port: &str, table: &Table) -> Result<()> {
        let path = self.output(port)?;
        write_parquet(&path, table)?;
        self.complete(port, Some(table.rows() as u64))
    }

    /// Announces that an output port is complete.
    ///
    /// # Errors
    /// When the event cannot be sent.
    pub fn complete(&mut self, port: &str, rows: Option<u64>) -> Result<()> {
        debug!(port, rows, "output complete");
        self.emit(&Event::Output { port: port.into(), rows })
    }

    /// Tells how far the stage is; called as often as it likes.
    ///
    /// # Errors
    /// When the event cannot be sent.
    pub fn progress(&mut self, done: u64, total: u64, unit: &str) -> Result<()> {
        self.reached = Some(GoesOnAt { done, total, unit: unit.into() });
        let recent = self.last_progress.is_some_and(|t| t.elapsed().as_secs_f64() < PROGRESS_EVERY);
        if recent && done < total {
            return Ok(());
        }
        self.last_progress = Some(Instant::now());
        self.emit(&Event::Progress { done, total, unit: unit.into() })
    }

    /// Sends figures of one step, and keeps them for `metrics` but for those under [`TIME`].
    ///
    /// # Errors
    /// When the event cannot be sent.
    pub fn metric(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        for (name, value) in values {
            if !name.starts_with(TIME) {
                self.metrics.push((step, (*name).into(), *value));
            }
        }
        let finite = |v: &f64| v.is_finite().then_some(*v);
        let values: BTreeMap<_, _> = values.iter().map(|(n, v)| ((*n).into(), finite(v))).collect();
        self.emit(&Event::Metric { step, values })
    }

    /// Writes the figures kept so far to the port `metrics`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_metrics(&mut self) -> Result<()> {
        let kept = std::mem::take(&mut self.metrics);
        let table = Table::new(vec![
            ("step", Column::ints(kept.iter().map(|(s, ..)| *s as i64))),
            ("name", Column::text(kept.iter().map(|(_, n, _)| n.as_str()))),
            ("value", Column::floats(kept.iter().map(|(.., v)| *v))),
        ])?;
        self.write_table("metrics", &table)
    }

    /// Tells people something.
    ///
    /// # Errors
    /// When the event cannot be sent.
    pub fn note(&mut self, text: impl Into<String>) -> Result<()> {
        self.emit(&Event::Note { level: "info".into(), text: text.into() })
    }

    /// Tells people who ask for details, and the log.
    ///
    /// # Errors
    /// When the event cannot be sent.
    pub fn detail(&mut self, text: impl Into<String>) -> Result<()> {
        self.emit(&Event::Note { level: DETAIL.into(), text: text.into() })
    }

    /// Warns people.
    ///
    /// # Errors
    /// When the event cannot be sent.
    pub fn warn(&mut self, text: impl Into<String>) -> Result<()> {
        self.emit(&Event::Note { level: "warn".into(), text: text.into() })
    }

    /// Warns people when there is something to say.
    ///
    /// # Errors
    /// When the event cannot be sent.
    pub fn warn_if(&mut self, text: Option<String>) -> Result<()> {
        text.map_or(Ok(()), |t| self.warn(t))
    }

    /// Keeps how many bytes the stage was said to need, for [`Context::tell_peak`].
    pub fn keep_forecast(&mut self, bytes: u64) {
        self.forecast = Some(bytes);
    }

    /// Tells the most memory that was held since `held`, as `time/peak_mib`, and beside it what
    /// was forecast; nothing where the system does not tell.
    ///
    /// # Errors
    /// When the event cannot be sent.
    pub fn tell_peak(&mut self, held: Option<Held>) -> Result<()> {
        let Some(peak) = held.and_then(Held::peak) else { return Ok(()) };
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        if let Some(forecast) = self.forecast {
            let (took, said) = (mib(peak), mib(forecast));
            self.detail(format!("took {took:.0} MiB at its peak; {said:.0} MiB were forecast"))?;
        }
        let step = self.reached.as_ref().map_or(0, |reached| reached.done);
        self.metric(step, &[(PEAK, mib(peak))])
    }

    /// Sends one event.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub fn emit(&mut self, event: &Event) -> Result<()> {
        self.events.send(event)
    }
}

/// Loads the CUDA part of libtorch, where it lies beside the rest: a worker that was built against
/// the CPU part alone needs no GPU to start. It makes itself known to libtorch when it is loaded,
/// which must be before anybody asks for devices.
fn load_cuda() {
    use std::sync::Once;
    static LOADED: Once = Once::new();
    #[expect(unsafe_code, reason = "the library is libtorch's own, and is never unloaded")]
    LOADED.call_once(|| unsafe {
        let handle = libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL);
        tracing::debug!(target: "worker", found = !handle.is_null(), "libtorch_cuda.so");
    });
}

/// The device of that name: `cpu`, `cuda`, `cuda:N` or `mps`.
///
/// # Errors
/// When the name is unknown or this libtorch cannot use the device.
pub fn parse_device(name: &str) -> Result<Device> {
    let number = name.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').unwrap_or("0"));
    match (name, number.map(str::parse::<usize>)) {
        ("cpu", _) => Ok(Device::Cpu),
        ("mps", _) if tch::utils::has_mps() => Ok(Device::Mps),
        ("mps", _) => bail!("device `mps` cannot be used: this libtorch was built without it"),
        (_, Some(Ok(n))) => {
            load_cuda();
            let count = tch::Cuda::device_count();
            if tch::Cuda::is_available() && (n as i64) < count {
                return Ok(Device::Cuda(n));
            }
            bail!(
                "device `cuda:{n}` cannot be used: this libtorch sees {count} CUDA devices \
                 (install a torch with CUDA beside preflow-worker, or set LIBTORCH to such a \
                 libtorch before building preflow)"
            )
        }
        _ => bail!("unknown device `{name}`; one of cpu, cuda:N, mps"),
    }
}
