//! Where programs lie that are called by name. Starts none.

use std::path::{Path, PathBuf};

/// Where a program lies that is called by its bare name. A whole path lets the standard library
/// start it without copying this process's page tables. `None`: the system must look itself.
fn on_path(program: &Path) -> Option<PathBuf> {
    if program.as_os_str().is_empty() || program.components().count() != 1 {
        return None;
    }
    let all = std::env::var_os("PATH")?;
    for folder in std::env::split_paths(&all) {
        // Relative ones are meant from where the program runs.
        if !folder.is_absolute() {
            return None;
        }
        let path = folder.join(program);
        if is_program(&path) {
            return Some(path);
        }
    }
    None
}

/// The same, or its name where the system must look itself.
pub(crate) fn found(program: &Path) -> PathBuf {
    on_path(program).unwrap_or_else(|| program.to_owned())
}

/// Where a program is installed. Folders on PATH that are meant from where one stands do not count:
/// whoever made these files would say what is started.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let all = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let folders = std::env::split_paths(&all).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(name)).find(|path| is_program(path))
}

/// The same, to be started: where there is none, a place where nothing lies.
pub(crate) fn program(name: &str) -> PathBuf {
    installed(name).unwrap_or_else(|| Path::new("/").join(name))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let meta = std::fs::metadata(path);
    meta.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
