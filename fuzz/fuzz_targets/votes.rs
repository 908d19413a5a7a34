//! A vote file of any bytes: votes, or an error that names its line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use preflow::votes::{Effective, Folder};

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("ann.jsonl"), bytes).expect("written");
    if let Ok(folder) = Folder::read(dir.path()) {
        let effective = Effective::of(&folder);
        let bytes = effective.to_bytes();
        assert!(Effective::parse(&bytes).is_ok());
    }
    let _ = Effective::parse(bytes);
});
