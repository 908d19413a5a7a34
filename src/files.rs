//! Opens files that others may have made: regular files only, of a bounded size, without waiting.
//! A named pipe would hold its reader up for ever, a device may never end.
//! Does not know what the files are for.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Error, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// For files that this program writes: a link in their place is not followed.
const OWN: OFlags = OFlags::NONBLOCK.union(OFlags::NOFOLLOW);

/// Opens a regular file for reading; a link to one is followed.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when it is anything else; as [`File::open`].
pub fn open(path: &Path) -> io::Result<File> {
    // Some devices act when they are opened, so look before.
    refuse_special(&std::fs::metadata(path)?)?;
    opened(OpenOptions::new().read(true), path, OFlags::NONBLOCK)
}

/// Opens a file that this program wrote, for reading: a link in its place is refused.
///
/// # Errors
/// As [`open`].
pub fn open_own(path: &Path) -> io::Result<File> {
    opened(OpenOptions::new().read(true), path, OWN)
}

/// Opens a file that this program keeps for writing, and makes it where there is none; what it
/// holds stays. A link in its place is refused.
///
/// # Errors
/// As [`open`].
pub fn create_own(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    opened(options.create(true).truncate(false).write(true), path, OWN)
}

/// Opens a regular file for reading and writing, and makes it where there is none; a link to one is
/// followed.
///
/// # Errors
/// As [`open`].
pub fn update(path: &Path) -> io::Result<File> {
    match std::fs::metadata(path) {
        Ok(meta) => refuse_special(&meta)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    opened(options, path, OFlags::NONBLOCK)
}

/// [`update`] for a file that this program keeps: a link in its place is refused.
///
/// # Errors
/// As [`open`].
pub fn update_own(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    opened(options.read(true).write(true).create(true).truncate(false), path, OWN)
}

/// The same error, naming the file.
#[must_use]
pub fn named(path: &Path, error: &Error) -> Error {
    Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}

/// The same as [`create_own`] to append to.
///
/// # Errors
/// As [`open`].
pub fn append_own(path: &Path) -> io::Result<File> {
    opened(OpenOptions::new().create(true).append(true), path, OWN)
}

/// The bytes of a regular file, at most `limit` of them.
///
/// # Errors
/// As [`open`]; [`ErrorKind::FileTooLarge`] when there are more.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    bytes_of(&open(path)?, limit)
}

/// The text of a regular file, at most `limit` bytes.
///
/// # Errors
/// As [`read`]; [`ErrorKind::InvalidData`] when it is not UTF-8.
pub fn read_to_string(path: &Path, limit: u64) -> io::Result<String> {
    text_of(read(path, limit)?)
}

/// [`read`] for a file that this program wrote.
///
/// # Errors
/// As [`read`]; a link in its place is refused.
pub fn read_own(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    bytes_of(&open_own(path)?, limit)
}

/// Whether a path leads to a place below `root`, links followed. Of what does not exist the part
/// counts that does.
#[must_use]
pub fn is_inside(root: &Path, path: &Path) -> bool {
    let Ok(path) = std::path::absolute(path) else { return false };
    let real = path.ancestors().find_map(|part| {
        // A link that leads nowhere may lead somewhere later.
        let dangles = std::fs::symlink_metadata(part).is_ok();
        part.canonicalize().ok().or_else(|| dangles.then(std::path::PathBuf::new))
    });
    match (root.canonicalize(), real) {
        (Ok(root), Some(real)) => real.starts_with(root),
        _ => false,
    }
}

/// What something is that is no regular file.
#[must_use]
pub fn describe(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    if kind.is_symlink() {
        "a link"
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "not a regular file"
    }
}

fn opened(options: &mut OpenOptions, path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = i32::try_from(flags.bits()).expect("invariant: flags of open are small");
    let opened = options.custom_flags(flags).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => not_regular("a link"),
        // Nobody listens at the other end.
        Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => not_regular("a pipe"),
        _ => error,
    })?;
    refuse_special(&file.metadata()?)?;
    Ok(file)
}

/// Refuses what is no regular file.
///
/// # Errors
/// [`ErrorKind::InvalidInput`], saying what it is.
pub fn refuse_special(meta: &Metadata) -> io::Result<()> {
    if meta.is_file() { Ok(()) } else { Err(not_regular(describe(meta))) }
}

fn not_regular(what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("{what}, not a regular file"))
}

fn bytes_of(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    let too_large = || Error::new(ErrorKind::FileTooLarge, format!("larger than {}", words(limit)));
    // Before anything is read: a sparse file is as large as it likes.
    if size > limit {
        return Err(too_large());
    }
    // One byte more than there is, or the end would be found only after growing.
    let mut bytes = Vec::with_capacity(usize::try_from(size + 1).unwrap_or(0));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    // As under `/proc`: what is read there changes at will, and some of it is secret.
    if size == 0 && !bytes.is_empty() && file.metadata()?.len() == 0 {
        return Err(not_regular("a file that the system makes up"));
    }
    Ok(bytes)
}

fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::new(ErrorKind::InvalidData, format!("line {line} is not UTF-8 text"))
    })
}

/// A limit in words, as people set it.
fn words(bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    if bytes.is_multiple_of(MIB) {
        format!("{} MiB", bytes / MIB)
    } else {
        format!("{bytes} bytes")
    }
}

mod unpack;

pub use unpack::unpacked;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make files")]
mod tests {
    use super::*;

    const LIMIT: u64 = 8;

    #[test]
    fn links_and_dots_do_not_lead_out_unseen() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(folder.path().join("secret"), "s").unwrap();
        std::fs::write(root.join("file"), "f").unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, root.join(name)).unwrap();
        link("../secret", "out");
        link("..", "up");
        link("file", "in");
        link("../later", "dangling");
        std::os::unix::fs::symlink("root", folder.path().join("other name")).unwrap();
        for (path, inside) in [
            ("file", true),
            ("in", true),
            ("sub/../file", true),
            ("sub/new/file", true),
            ("up/root/file", true),
            ("../other name/file", true),
            ("out", false),
            ("up/secret", false),
            ("up/new", false),
            ("../secret", false),
            ("../new/file", false),
            ("dangling", false),
            ("/etc/passwd", false),
        ] {
            assert_eq!(is_inside(&root, &root.join(path)), inside, "{path}");
        }
        assert!(is_inside(&folder.path().join("other name"), &root.join("file")));
    }

    #[test]
    fn only_regular_files_of_that_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("eight"), "12345678").unwrap();
        std::fs::write(at("nine"), "123456789").unwrap();
        std::fs::write(at("bytes"), b"a\nb\xff").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, at(name)).unwrap();
        link("eight", "link");
        link("/dev/zero", "device");
        link("/proc/self/environ", "environ");
        link("link", "link to a link");
        link("nowhere", "dangling");
        assert_eq!(read(&at("eight"), LIMIT).unwrap(), b"12345678");
        assert_eq!(read(&at("link to a link"), LIMIT).unwrap(), b"12345678");
        assert_eq!(read_own(&at("eight"), LIMIT).unwrap(), b"12345678");
        let refused = |name: &str| read_to_string(&at(name), LIMIT).unwrap_err().to_string();
        assert_eq!(refused("nine"), "larger than 8 bytes");
        // More than any memory holds: nothing of it is read.
        std::fs::File::create(at("sparse")).unwrap().set_len(4 << 40).unwrap();
        let sparse = read(&at("sparse"), 2 << 40).unwrap_err().to_string();
        assert_eq!(sparse, format!("larger than {} MiB", 2 << 20));
        assert_eq!(refused("bytes"), "line 2 is not UTF-8 text");
        assert_eq!(refused("pipe"), "a named pipe, not a regular file");
        assert_eq!(refused("socket"), "a socket, not a regular file");
        assert_eq!(refused("device"), "a device, not a regular file");
        assert_eq!(refused("."), "a folder, not a regular file");
        let environ = read_to_string(&at("environ"), 1 << 30).unwrap_err().to_string();
        assert_eq!(environ, "a file that the system makes up, not a regular file");
        assert_eq!(read(&at("dangling"), LIMIT).unwrap_err().kind(), ErrorKind::NotFound);
        let lock = |name: &str| create_own(&at(name)).map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(lock("eight"), Ok(()));
        assert_eq!(read(&at("eight"), LIMIT).unwrap(), b"12345678");
        assert_eq!(lock("lock"), Ok(()));
        assert_eq!(lock("link"), Err("a link, not a regular file".into()));
        assert_eq!(lock("pipe"), Err("a pipe, not a regular file".into()));
        let own = |name: &str| read_own(&at(name), LIMIT).unwrap_err().to_string();
        assert_eq!(own("link"), "a link, not a regular file");
        assert_eq!(own("pipe"), "a named pipe, not a regular file");
        assert_eq!(own("socket"), "a pipe, not a regular file");
    }
}
