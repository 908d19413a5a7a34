//! Who runs this, and where their own files are: outside of any repository, closed to others.
//! Does not know what is kept there.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::files;
use crate::identity::Digest;

/// The user's folder for what a program keeps between runs. `None`: nothing says where it is.
#[must_use]
pub fn state_folder() -> Option<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Some(base?.join("preflow"))
}

/// A folder of the user's own for what belongs to `place`, made where there is none.
///
/// # Errors
/// Nothing says where the user's files are; it cannot be made, or is not closed to others.
pub fn private_folder(what: &str, place: &Path) -> io::Result<PathBuf> {
    let state = state_folder().ok_or_else(|| {
        io::Error::other("nothing says where your files are: set HOME or XDG_STATE_HOME")
    })?;
    let real = place.canonicalize().unwrap_or_else(|_| place.to_owned());
    let name = Digest::of(real.as_os_str().as_encoded_bytes()).hex();
    let folder = state.join(what).join(&name[..32]);
    make_private(&folder)?;
    Ok(folder)
}

/// Makes a folder that only the user may look into.
///
/// # Errors
/// It cannot be made, or is there and open to others.
pub fn make_private(folder: &Path) -> io::Result<()> {
    let named = |e: io::Error| files::named(folder, &e);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(named)?;
    let meta = std::fs::symlink_metadata(folder).map_err(named)?;
    let me = rustix::process::geteuid().as_raw();
    if !meta.is_dir() || meta.uid() != me || meta.mode() & 0o077 != 0 {
        return Err(named(io::Error::other("is not a folder of yours that is closed to others")));
    }
    Ok(())
}

/// Writes a file that only the user may read, whole or not at all.
///
/// # Errors
/// Any step fails; then `path` is as it was.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    // Closed to others from its first moment on.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Bytes of a key.
const KEY: usize = 32;

/// The key `name` in a private folder, which is made if it is not there.
///
/// # Errors
/// The file cannot be read or made, is no key, or somebody else's; a link in its place is not
/// followed.
pub fn key(folder: &Path, name: &str) -> io::Result<[u8; KEY]> {
    let path = folder.join(name);
    match read_key(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        known => return known,
    }
    let mut key = [0; KEY];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    // Whole or not at all: two that start at once must end up with one key.
    let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
    fresh.write_all(&key)?;
    fresh.as_file().sync_all()?;
    match fresh.persist_noclobber(&path) {
        Ok(_) => Ok(key),
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => read_key(&path),
        Err(e) => Err(e.error),
    }
}

fn read_key(path: &Path) -> io::Result<[u8; KEY]> {
    let wrong = |why: &str| {
        let path = path.display();
        io::Error::other(format!("`{path}` {why}: delete it, and another one is made"))
    };
    let file = files::open_own(path).map_err(|e| files::named(path, &e))?;
    let meta = file.metadata()?;
    if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        return Err(wrong("is not yours alone"));
    }
    let mut bytes = Vec::with_capacity(KEY + 1);
    file.take(KEY as u64 + 1).read_to_end(&mut bytes)?;
    bytes.try_into().map_err(|_| wrong("is no key"))
}

/// What only this user's programs know: tells what they made from what came with a repository.
/// `None`: nothing says where the user's files are, or they are open to others.
#[must_use]
pub fn secret() -> Option<[u8; KEY]> {
    static SECRET: OnceLock<Option<[u8; KEY]>> = OnceLock::new();
    let find = || {
        // Tests leave the home of whoever runs them alone.
        if cfg!(test) {
            return Some([7; KEY]);
        }
        let folder = state_folder()?;
        match read_key(&folder.join("secret")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            known => return known.ok(),
        }
        make_private(&folder).and_then(|()| key(&folder, "secret")).ok()
    };
    *SECRET.get_or_init(find)
}

/// Whether files of this owner count as the user's: their own and those of the system; for whoever
/// became root by `sudo` also those of who they were.
#[must_use]
pub fn is_own(owner: u32) -> bool {
    let me = rustix::process::geteuid().as_raw();
    let before = || std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse::<u32>().ok());
    owner == me || owner == 0 || (me == 0 && before() == Some(owner))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn own_files_are_those_of_the_user_and_the_system() {
        let me = rustix::process::geteuid().as_raw();
        assert!(is_own(me) && is_own(0));
        assert!(!is_own(me + 54321));
    }

    #[test]
    fn a_private_folder_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        make_private(&folder).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&dir.path().join("a"))), (0o700, 0o700));
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o750)).unwrap();
        assert!(make_private(&folder).unwrap_err().to_string().contains("closed to others"));
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        assert!(make_private(&dir.path().join("link")).is_err());
    }
}
