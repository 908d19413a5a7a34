//! A record of the store of any bytes; one that reads is written and reads again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use preflow::identity::Digest;
use preflow::remote::record::EntryRecord;
use preflow::store::heads::Heads;
use preflow::store::{Entry, summed};

fuzz_target!(|bytes: &[u8]| {
    // As they are, and with a checksum that fits: otherwise nothing would come past it.
    let mut summed_bytes = bytes.trim_ascii_end().strip_suffix(b"}").unwrap_or(bytes).to_vec();
    let sum = Digest::of(&summed_bytes).hex();
    summed_bytes.extend_from_slice(format!(",\"sum\":\"{sum}\"}}").as_bytes());
    for bytes in [bytes.to_vec(), summed_bytes] {
        if let Ok(entry) = summed::from_bytes::<Entry>(bytes.clone()) {
            let again = summed::from_bytes::<Entry>(summed::to_bytes(&entry));
            assert_eq!(again.as_ref(), Ok(&entry));
            let _ = EntryRecord::read(&bytes, &entry.fingerprint);
            let _ = entry.identity.fingerprint();
        }
        if let Ok(heads) = summed::from_bytes::<Heads>(bytes) {
            assert_eq!(summed::from_bytes::<Heads>(summed::to_bytes(&heads)), Ok(heads));
        }
    }
});
