//! A safetensors file of any bytes, as `verify --rerun` and `diff` look into it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use preflow::compare::arrays;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    std::io::Write::write_all(&mut file, bytes).expect("written");
    let (Ok(Some(one)), Ok(Some(other))) = (arrays::open(file.path()), arrays::open(file.path()))
    else {
        return;
    };
    assert!(matches!(arrays::first_difference(&one, &other), Ok(None) | Err(_)));
});
