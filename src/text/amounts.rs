//! Times and sizes as people read them.
//! Does not know what took so long, or so much.

/// Seconds in a terminal: `0.3s`, `9s`, `1m10s`, `9h20m`.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    let seconds = seconds.max(0.0) + 0.0;
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 0.0995 => format!("{:.0}ms", (seconds * 1000.0).max(0.0)),
        _ if seconds < 9.95 => format!("{seconds:.1}s"),
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}

/// Seconds on a page, where there is room for blanks: `0.4 s`, `34 s`, `1 m 10 s`, `2 h 05 m`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if !seconds.is_finite() || seconds < 0.0 => "–".to_owned(),
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..=99 => format!("{whole} s"),
        100..=3599 => format!("{} m {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} m", whole / 3600, whole % 3600 / 60),
    }
}

/// What is estimated to take that many seconds: `~9h20m`, `? + ~10s` where part of it cannot be
/// told, `?` where nothing can.
#[must_use]
pub fn price(known: f64, unknown: bool) -> String {
    match unknown {
        false => format!("~{}", seconds(known)),
        true if known > 0.0 => format!("? + ~{}", seconds(known)),
        true => "?".to_owned(),
    }
}

/// A number of bytes: `512 B`, `3.1 MiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_short() {
        let shown: Vec<String> =
            [0.0, 0.0042, 0.31, 9.2, 9.97, 59.6, 70.0, 33_600.0].map(seconds).into();
        assert_eq!(shown, ["0ms", "4ms", "0.3s", "9.2s", "10s", "1m00s", "1m10s", "9h20m"]);
        let prices = [(42.0, false), (42.0, true), (0.0, true), (0.0, false)];
        assert_eq!(prices.map(|(s, unknown)| price(s, unknown)), ["~42s", "? + ~42s", "?", "~0ms"]);
        assert_eq!([0, 1023, 1024, 3 << 20].map(bytes), ["0 B", "1023 B", "1.0 KiB", "3.0 MiB"]);
        let times = [0.04, 9.0, 34.2, 99.4, 130.0, 7500.0].map(duration);
        insta::assert_snapshot!(times.join(" | "), @"0.0 s | 9.0 s | 34 s | 99 s | 2 m 10 s | 2 h 05 m");
    }
}
