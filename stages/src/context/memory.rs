//! Memory of this process as the system tells it: what is held, the most that was, what is free.
//! Knows nothing of what it is held for.

/// Memory held, and the most of it since a moment.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Bytes held at the moment.
    before: u64,
}

impl Held {
    /// From now on; nothing where the system does not tell.
    pub fn now() -> Option<Self> {
        // Sets the peak back to what is held now; where that is not allowed, an earlier one counts.
        drop(fs_err::write("/proc/self/clear_refs", "5"));
        Some(Self { before: kib_of("/proc/self/status", "VmRSS:")? })
    }

    /// The most held since, beyond what was held then, bytes.
    pub fn peak(self) -> Option<u64> {
        Some(kib_of("/proc/self/status", "VmHWM:")?.saturating_sub(self.before))
    }
}

/// Bytes that this process may still take: of the machine, and of its control group.
pub fn free_memory() -> Option<u64> {
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

/// A number of a file in `/proc`, which is in KiB there, in bytes.
fn kib_of(path: &str, name: &str) -> Option<u64> {
    let text = fs_err::read_to_string(path).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_the_most_that_was_held_and_not_what_is_left() {
        let held = Held::now().expect("this system tells");
        let big = vec![1_u8; 200 << 20];
        assert!(std::hint::black_box(&big).iter().step_by(4096).all(|b| *b == 1));
        drop(big);
        let peak = held.peak().expect("this system tells");
        assert!(peak >= 190 << 20, "{peak}");
        assert!(free_memory().expect("this system tells") > 1 << 20);
    }
}
