//! A Parquet file of any bytes, as screens read it: rows, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use preflow::columns::each_batch;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    std::io::Write::write_all(&mut file, bytes).expect("written");
    let mut rows = 0;
    let _ = each_batch(file.path(), 1000, |batch| rows += batch.row_hashes().len());
});
