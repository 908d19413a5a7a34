//! Memory of a stage that trains: what it will need against what is free, and what it took.
//! Knows nothing of any one kind.

use anyhow::Result;

use crate::advice::error_with_help;
use crate::context::Context;
use crate::model::Forecast;

/// Share of the free memory from which on a stage is warned that memory is short.
const SHORT: f64 = 0.8;

/// Tells how much memory a training step needs, and refuses one that needs more than is free.
///
/// # Errors
/// When the memory that is free will not do; the help says what lowers the need.
pub fn check_memory(cx: &mut Context, need: Forecast) -> Result<()> {
    let free = free_memory();
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let left = free.map_or_else(String::new, |free| format!("; {:.1} GiB free", gib(free)));
    let text = format!("{}{left}", need.words());
    if free.is_some_and(|free| need.total() > free) {
        let help = if need.activations > need.moments {
            "activations are most of it: compute.micro_batch: 1 or checkpoint_activations: true \
             lower them, and so do shorter rows"
        } else {
            "moments and gradient are most of it: adapters (lora.rank, where the kind has them) or \
             a smaller model lower them"
        };
        return Err(error_with_help(text, help));
    }
    // Other programs take memory too: little to spare is worth a warning.
    let short = free.is_some_and(|free| need.total() as f64 > SHORT * free as f64);
    if short { cx.warn(text) } else { cx.detail(text) }
}

/// Bytes that this process may still take: of the machine, and of its control group.
fn free_memory() -> Option<u64> {
    let machine = kib_of("/proc/meminfo", "MemAvailable:");
    let number = |file: &str| -> Option<u64> {
        let path = std::path::Path::new("/sys/fs/cgroup").join(file);
        fs_err::read_to_string(path).ok()?.trim().parse().ok()
    };
    let group = number("memory.max").zip(number("memory.current"));
    // What the group holds of files can be given back, so this errs towards refusing nothing.
    let cached = number("memory.max").map(|_| kib_of("/proc/meminfo", "Cached:").unwrap_or(0));
    let group =
        group.map(|(max, used)| max.saturating_sub(used.saturating_sub(cached.unwrap_or(0))));
    [machine, group].into_iter().flatten().min()
}

/// Starts the measure of [`report_peak`]: the memory held now, bytes.
pub fn memory_now() -> Option<u64> {
    // Sets the peak back to what is held now; where that is not allowed, an earlier one counts.
    drop(fs_err::write("/proc/self/clear_refs", "5"));
    kib_of("/proc/self/status", "VmRSS:")
}

/// Reports, as `time/peak_mib`, the most memory held since [`memory_now`] beyond what was held
/// then; nothing where the system does not tell.
///
/// # Errors
/// When the event cannot be sent.
pub fn report_peak(cx: &mut Context, step: u64, before: Option<u64>) -> Result<()> {
    let peak =
        kib_of("/proc/self/status", "VmHWM:").zip(before).map(|(peak, old)| peak - old.min(peak));
    match peak {
        Some(bytes) => cx.metric(step, &[("time/peak_mib", bytes as f64 / f64::from(1 << 20))]),
        None => Ok(()),
    }
}

/// A number of a file in `/proc`, which is in KiB there, in bytes.
fn kib_of(path: &str, name: &str) -> Option<u64> {
    let text = fs_err::read_to_string(path).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}
