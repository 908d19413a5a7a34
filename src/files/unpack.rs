//! Files that are compressed by gzip or zstd, read as what they hold.
//! Knows nothing of what that is.

use std::io::{self, Read, Seek, SeekFrom};

use flate2::read::MultiGzDecoder;

/// What an open file holds: unpacked where its first bytes say that it is compressed by gzip or
/// zstd, whatever its name.
///
/// # Errors
/// It cannot be read.
pub fn unpacked(mut file: impl Read + Seek + 'static) -> io::Result<Box<dyn Read>> {
    let mut head = Vec::new();
    file.by_ref().take(4).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(match head.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(file)?),
        _ => Box::new(file),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use super::*;

    #[test]
    fn what_is_compressed_is_unpacked_and_the_rest_is_as_it_is() {
        let text = b"one\ntwo\n".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).expect("written");
        let gzip = gzip.finish().expect("closed");
        let zstd = zstd::encode_all(&text[..], 1).expect("compressed");
        // Files of several parts, as parallel programs write them.
        let twice = [gzip.clone(), gzip.clone()].concat();
        let read = |bytes: Vec<u8>| {
            let mut out = Vec::new();
            unpacked(Cursor::new(bytes)).expect("open").read_to_end(&mut out).map(|_| out)
        };
        assert_eq!(read(gzip.clone()).expect("gzip"), text);
        assert_eq!(read(zstd.clone()).expect("zstd"), text);
        assert_eq!(read(twice).expect("parts"), [text.clone(), text.clone()].concat());
        assert_eq!(read(text.clone()).expect("plain"), text);
        assert_eq!(read(Vec::new()).expect("empty"), b"");
        assert!(read(gzip[..gzip.len() / 2].to_vec()).is_err());
        assert!(read(zstd[..zstd.len() / 2].to_vec()).is_err());
    }
}
