//! What a worker prints, line by line, its catalog and its answers, of any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use preflow::catalog::Catalog;
use preflow::protocol::{Event, ValidateDoc};

fuzz_target!(|bytes: &[u8]| {
    for line in bytes.split(|byte| *byte == b'\n') {
        let _ = serde_json::from_slice::<Event>(line);
        let _ = serde_json::from_slice::<ValidateDoc>(line);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Catalog::parse(text);
    }
});
