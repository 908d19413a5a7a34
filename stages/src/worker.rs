//! The worker's side of the contract: one task in, events out, exactly one last event; or questions
//! in, answers out. Knows nothing of what the kinds do.

use std::any::Any;
use std::io::{BufRead as _, Read as _};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use preflow::protocol::questions::{Ask, Refusal, Told};
use preflow::protocol::{Event, PROTOCOL, TaskSpec, ValidateDoc, ValidateSpec};
use sha2::{Digest as _, Sha256};
use tracing::{info, info_span};

use crate::advice::Advised;
use crate::answering::{AnsweringModel, refused};
use crate::catalog::catalog_json;
use crate::context::{Context, Events, Held, Waiting, parse_device};
use crate::exit::{EXIT_FAILED, EXIT_ORPHANED, leave};
use crate::kind::{Kind, Summary};
use crate::kinds::KINDS;
use crate::preflight::Preflight;

/// What the last panic said: the hook sees more than `catch_unwind` hands over.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Performs the task in the file and returns the exit code. `events` is the real standard output.
pub fn run(task_file: &Path, events: &Events) -> i32 {
    catch_panics();
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| perform(task_file, events)));
    let (last, code) = match result {
        Ok(Ok(summary)) => {
            let finite = |v: f64| v.is_finite().then_some(v);
            let summary = summary.into_iter().map(|(k, v)| (k, finite(v))).collect();
            (Event::Done { summary }, 0)
        }
        Ok(Err(error)) => match error.downcast::<Waiting>() {
            Ok(Waiting { reason, have, need }) => (Event::Waiting { reason, have, need }, 0),
            Err(error) => (failed(&error), EXIT_FAILED),
        },
        Err(panic) => (panicked(panic.as_ref()), EXIT_FAILED),
    };
    match events.send(&last) {
        Ok(()) => code,
        Err(_) => EXIT_FAILED,
    }
}

/// Answers questions from standard input until it ends, which ends the process. Returns the exit
/// code where something else does.
pub fn answer(events: &Events) -> i32 {
    catch_panics();
    let asked = asked();
    let open = || open(asked.recv().context("nothing was asked")??);
    let opened = std::panic::catch_unwind(AssertUnwindSafe(open));
    let mut model = match opened.unwrap_or_else(|panic| Err(fault(panic.as_ref()))) {
        Ok(model) => model,
        Err(error) => return not_open(&error, events),
    };
    let mut tell = |told: Told| {
        if events.send(&told).is_err() {
            leave(EXIT_ORPHANED);
        }
    };
    tell(Told::Ready { context: model.context() });
    loop {
        let next = if model.is_idle() { asked.recv().ok() } else { asked.try_recv().ok() };
        let turn = std::panic::catch_unwind(AssertUnwindSafe(|| match next {
            Some(Ok(Ask::Question(question))) => model.take(question, &mut tell),
            Some(Ok(Ask::Forget { question })) => model.forget(question),
            Some(Ok(Ask::Open { .. })) => {}
            Some(Err(error)) => eprintln!("a line was passed over: {error:#}"),
            None => model.step(&mut tell),
        }));
        if let Err(panic) = turn
            && let Some(question) = model.fallen()
        {
            tell(refused(question, Refusal::Fault, format!("{:#}", fault(panic.as_ref()))));
        }
    }
}

/// What is asked, a line a thing. The end of standard input ends the process.
fn asked() -> Receiver<Result<Ask>> {
    let (send, asked) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let ask = serde_json::from_str(&line).context("no line of this protocol");
            if send.send(ask).is_err() {
                break;
            }
        }
        leave(EXIT_ORPHANED)
    });
    asked
}

fn open(first: Ask) -> Result<AnsweringModel> {
    let Ask::Open { protocol, model, execution } = first else {
        bail!("the first line names no model");
    };
    if protocol != PROTOCOL {
        bail!("the questions speak protocol {protocol}, this worker protocol {PROTOCOL}");
    }
    set_threads(execution.threads.unwrap_or_default());
    let device = parse_device(execution.device.as_deref().unwrap_or("cpu"))?;
    AnsweringModel::open(Path::new(&model), device)
}

fn not_open(error: &anyhow::Error, events: &Events) -> i32 {
    let (message, chain, help) = match failed(error) {
        Event::Failed { message, chain, help } => (message, chain, help),
        _ => (error.to_string(), Vec::new(), None),
    };
    let _ = events.send(&Told::Failed { message, chain, help });
    EXIT_FAILED
}

/// A panic as an error.
fn fault(panic: &(dyn Any + Send)) -> anyhow::Error {
    match panicked(panic) {
        Event::Failed { message, chain, .. } => {
            anyhow::anyhow!([&[message][..], &chain].concat().join(": "))
        }
        other => anyhow::anyhow!("{other:?}"),
    }
}

/// Answers what is wrong with stages before they run: reads a [`ValidateSpec`], writes a
/// [`ValidateDoc`].
///
/// # Errors
/// When what is read is no question of this protocol.
pub fn validate(question: impl std::io::Read) -> Result<String> {
    let spec: ValidateSpec = serde_json::from_reader(std::io::BufReader::new(question))
        .context("the question does not fit the protocol")?;
    if spec.protocol != PROTOCOL {
        bail!("the question speaks protocol {}, this worker protocol {PROTOCOL}", spec.protocol);
    }
    let mut doc = ValidateDoc::default();
    for (place, stage) in spec.stages.iter().enumerate().filter(|(_, stage)| stage.wanted) {
        if let Some(kind) = KINDS.iter().find(|k| k.name == stage.kind) {
            let mut look = Preflight::new(&spec, place);
            look.at_inputs();
            kind.check(stage.params.clone(), &mut look);
            doc.problems.extend(look.problems);
            doc.figures.insert(place, look.figures);
        }
    }
    Ok(serde_json::to_string(&doc)?)
}

/// Ends the process as soon as standard input does: the orchestrator has died.
pub fn watch_lifeline() {
    std::thread::spawn(|| {
        let mut buffer = [0; 256];
        loop {
            match std::io::stdin().lock().read(&mut buffer) {
                Ok(0) => leave(EXIT_ORPHANED),
                Err(e) if e.kind() != std::io::ErrorKind::Interrupted => leave(EXIT_ORPHANED),
                _ => {}
            }
        }
    });
}

/// Keeps freed memory for the next tensor of its size instead of handing it back to the kernel,
/// which would clear every page again: a third of the time of a small model's step.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const ONE_GIB: i32 = 1 << 30;
        #[expect(unsafe_code, reason = "mallopt only sets two numbers of this process's allocator")]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, ONE_GIB);
            libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        }
    }
}

fn perform(task_file: &Path, events: &Events) -> Result<Summary> {
    // Even a refusal starts with `hello`: the reader learns who refuses.
    let text = fs_err::read_to_string(task_file);
    events.send(&hello(&wanted_device(text.as_deref().unwrap_or_default())))?;
    let text = text?;
    let task = read_task(&text).with_context(|| format!("cannot use {}", task_file.display()))?;
    let kind = find_kind(&task)?;
    parse_device(task.execution.device.as_deref().unwrap_or("cpu"))?;
    set_threads(task.execution.threads.unwrap_or(kind.describe().threads));
    let params = task.params.clone();
    let outputs = task.outputs.clone();
    let mut cx = Context::new(task, events.clone())?;
    let span = info_span!("task", kind = kind.name, version = kind.version).entered();
    info!(threads = tch::get_num_threads(), "begins");
    let begun = Instant::now();
    let held = Held::now();
    let summary = kind.run(params, &mut cx)?;
    cx.tell_peak(held)?;
    info!(seconds = begun.elapsed().as_secs_f64(), "made");
    drop(span);
    for (port, path) in outputs {
        if !Path::new(&path).exists() {
            bail!("output `{port}` was not written by kind `{}`", kind.name);
        }
    }
    Ok(summary)
}

/// The device that a task asks for, whatever else is wrong with it.
fn wanted_device(task: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(task).unwrap_or_default();
    value["execution"]["device"].as_str().unwrap_or("cpu").to_owned()
}

fn hello(device: &str) -> Event {
    let digest = Sha256::digest(catalog_json().as_bytes());
    let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    Event::Hello {
        protocol: PROTOCOL,
        catalog: format!("sha256:{hex}"),
        worker: format!("preflow-worker {}", env!("CARGO_PKG_VERSION")),
        backend: "libtorch 2.11".into(),
        device: device.into(),
    }
}

/// Reads a task, the protocol first: of another one nothing else can be trusted.
fn read_task(text: &str) -> Result<TaskSpec> {
    let value: serde_json::Value = serde_json::from_str(text).context("the task is not JSON")?;
    match value["protocol"].as_u64() {
        Some(p) if p == u64::from(PROTOCOL) => {}
        Some(p) => bail!("the task speaks protocol {p}, this worker protocol {PROTOCOL}"),
        None => bail!("the task names no protocol"),
    }
    serde_json::from_value(value).context("the task does not fit the protocol")
}

fn find_kind(task: &TaskSpec) -> Result<&'static Kind> {
    let Some(kind) = KINDS.iter().find(|k| k.name == task.kind) else {
        let names: Vec<_> = KINDS.iter().map(|k| k.name).collect();
        bail!("unknown kind `{}`; this worker has {}", task.kind, names.join(", "));
    };
    if kind.version != task.version {
        bail!(
            "the task wants kind `{}` version {}, this worker has version {}",
            kind.name,
            task.version,
            kind.version
        );
    }
    Ok(kind)
}

/// Sets libtorch's threads; 0: all cores.
fn set_threads(threads: u32) {
    let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if threads == 0 { all as i32 } else { threads as i32 };
    tch::set_num_threads(threads);
    tch::set_num_interop_threads(1);
}

fn failed(error: &anyhow::Error) -> Event {
    let help = error.downcast_ref::<Advised>().map(|a| a.help.clone());
    let causes = error.chain().skip(1).map(|e| first_line(&e.to_string())).collect();
    let message = first_line(&error.to_string());
    match error.chain().find_map(|e| out_of_memory(&e.to_string())) {
        Some(memory) => memory,
        None => Event::Failed { message, chain: causes, help },
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Event {
    let hook = PANIC.lock().ok().and_then(|mut p| p.take());
    let payload = || panic.downcast_ref::<String>().cloned();
    let text = hook.or_else(payload).unwrap_or_else(|| "no message".into());
    out_of_memory(&text).unwrap_or_else(|| Event::Failed {
        message: format!("the worker stopped on a defect of its own: {}", first_line(&text)),
        chain: Vec::new(),
        help: Some("please report it with the task file".into()),
    })
}

/// The failure to report when `text` says that there is not enough memory.
fn out_of_memory(text: &str) -> Option<Event> {
    let signs = ["can't allocate memory", "not enough memory", "out of memory"];
    let line = text.lines().find(|l| signs.iter().any(|s| l.contains(s)))?;
    Some(Event::Failed {
        message: "out of memory".into(),
        chain: vec![first_line(line)],
        help: Some("use a smaller batch, context or model".into()),
    })
}

/// libtorch puts a stack trace under its first line.
fn first_line(text: &str) -> String {
    let line = text.split("\\n").next().unwrap_or(text);
    line.lines().next().unwrap_or_default().chars().take(2000).collect()
}

fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = match (info.payload().downcast_ref::<String>(), info.payload().downcast_ref()) {
            (Some(s), _) => s.clone(),
            (None, Some(s)) => <&str>::to_string(s),
            (None, None) => "no message".into(),
        };
        let place = info.location().map(|l| format!(" ({}:{})", l.file(), l.line()));
        let place = place.unwrap_or_default();
        eprintln!("panic: {text}{place}");
        if let Ok(mut last) = PANIC.lock() {
            *last = Some(text);
        }
    }));
}
