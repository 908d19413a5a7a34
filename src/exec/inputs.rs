//! How a program learns where its inputs lie: in `IN_<name>` the paths, and in `IN_<name>_LIST` a
//! file that holds them one a line, whatever and however many they are.
//! Does not know what the program does with them.

use std::io;
use std::path::Path;

/// What Linux takes of one variable, its name, the sign and the end included.
const MOST_BYTES: usize = 128 * 1024;

/// Variables for one input, and what a person should know about them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct InputVariables {
    pub variables: Vec<(String, String)>,
    pub warning: Option<String>,
}

/// Why a program cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error(
        "the name of a file at input `{name}` holds a line break: {path:?}; rename it, or give its \
         folder as the source"
    )]
    LineBreak { name: String, path: String },
    #[error(
        "the {count} paths at input `{name}` do not fit into the variable {variable}; read them \
         from the file that {variable}_LIST names, one a line, or give their folder as the source"
    )]
    TooMany { name: String, count: usize, variable: String },
    #[error(
        "the paths at input `{name}` hold blanks, and blanks part them in the variable {variable}; \
         read them from the file that {variable}_LIST names, one a line"
    )]
    Blanks { name: String, variable: String },
    #[error("the list of the paths at input `{name}` cannot be written: {error}")]
    Io { name: String, error: io::Error },
}

/// The variables for one input. `separator` parts the paths in `IN_<name>`; `command`: the
/// program's own words, which may name a variable; the list is written to `folder`: of several
/// paths, where the words name it, and where it is `wanted`.
///
/// # Errors
/// The command reads a variable that cannot hold the paths, or nothing can.
pub fn tell(
    name: &str,
    paths: &[String],
    separator: &str,
    command: &str,
    folder: &Path,
    wanted: bool,
) -> Result<InputVariables, InputError> {
    let variable = format!("IN_{}", name.replace('-', "_"));
    let listed = format!("{variable}_LIST");
    let wanted = wanted || paths.len() != 1 || mentions(command, &listed);
    let mut told = InputVariables::default();
    let broken = paths.iter().find(|path| path.contains('\n'));
    match broken {
        Some(path) if paths.len() > 1 => {
            return Err(InputError::LineBreak { name: name.to_owned(), path: path.clone() });
        }
        // A single path needs no list.
        Some(_) => {}
        None if !wanted => {}
        None => {
            let list = folder.join(format!("{variable}.list"));
            let lines: String = paths.iter().flat_map(|path| [path, "\n"]).collect();
            write(&list, &lines)
                .map_err(|error| InputError::Io { name: name.to_owned(), error })?;
            told.variables.push((listed, list.to_string_lossy().into_owned()));
        }
    }
    let joined = paths.join(separator);
    let is_read = mentions(command, &variable);
    if variable.len() + joined.len() + 2 > MOST_BYTES {
        let error = InputError::TooMany { name: name.to_owned(), count: paths.len(), variable };
        if is_read {
            return Err(error);
        }
        told.warning = Some(format!("{error}; the variable is left out"));
        return Ok(told);
    }
    let blank = |path: &String| path.contains(char::is_whitespace);
    if separator == " " && paths.len() > 1 && paths.iter().any(blank) {
        let error = InputError::Blanks { name: name.to_owned(), variable: variable.clone() };
        if is_read {
            return Err(error);
        }
        told.warning = Some(error.to_string());
    }
    told.variables.push((variable, joined));
    Ok(told)
}

#[expect(clippy::disallowed_methods, reason = "written anew for each attempt, read by that only")]
fn write(path: &Path, text: &str) -> io::Result<()> {
    match std::fs::write(path, text) {
        // A worker's own folder need not be there yet.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path.parent().unwrap_or(path))?;
            std::fs::write(path, text)
        }
        written => written,
    }
}

/// Whether a text names a variable, and not only one that begins with its name.
fn mentions(text: &str, variable: &str) -> bool {
    let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(variable).any(|(at, _)| {
        let after = text[at + variable.len()..].chars().next();
        !after.is_some_and(goes_on)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn any_number_of_files_with_any_names_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let told = |names: &[&str], command: &str| {
            tell("my-docs", &paths(names), " ", command, dir.path(), true)
                .map_err(|e| e.to_string())
        };
        let list = dir.path().join("IN_my_docs.list");
        let one = told(&["/a b"], "cat \"$IN_my_docs\"").unwrap();
        assert_eq!(one.warning, None);
        assert_eq!(
            one.variables,
            [
                ("IN_my_docs_LIST".to_owned(), list.display().to_string()),
                ("IN_my_docs".to_owned(), "/a b".to_owned())
            ]
        );
        assert_eq!(std::fs::read_to_string(&list).unwrap(), "/a b\n");
        assert_eq!(told(&["/a", "/b"], "cat $IN_my_docs").unwrap().variables[1].1, "/a /b");

        // One path is listed only where somebody asks for it.
        let single = |command: &str| {
            tell("x", &paths(&["/a"]), " ", command, dir.path(), false).unwrap().variables.len()
        };
        assert_eq!([single("cat $IN_x"), single("cat < $IN_x_LIST")], [1, 2]);

        // Blanks part the paths: nobody can tell them apart.
        let error = told(&["/a b", "/c"], "cat ${IN_my_docs}").unwrap_err();
        assert!(error.contains("blanks") && error.contains("IN_my_docs_LIST"), "{error}");
        let warned = told(&["/a b", "/c"], "xargs < $IN_my_docs_LIST").unwrap();
        assert!(warned.warning.is_some_and(|w| w.contains("blanks")));
        assert_eq!(std::fs::read_to_string(&list).unwrap(), "/a b\n/c\n");

        let error = told(&["/a\nb", "/c"], "x").unwrap_err();
        assert!(error.contains(r#""/a\nb""#) && error.contains("line break"), "{error}");
        assert_eq!(told(&["/a\nb"], "x").unwrap().variables.len(), 1, "no list of one such path");
    }

    #[test]
    fn what_the_system_does_not_take_is_left_out_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = format!("/{}", "x".repeat(126));
        // Each path takes 128 bytes with what parts it from the next: 1,024 are two too many.
        let tell = |count: usize, command: &str| {
            tell("i", &vec![path.clone(); count], " ", command, dir.path(), false)
        };
        let fits = tell(1023, "cat $IN_i").unwrap();
        assert_eq!(fits.variables.len(), 2);
        assert!(matches!(tell(1024, "cat $IN_i"), Err(InputError::TooMany { count: 1024, .. })));
        let told = tell(1024, "x.py").unwrap();
        assert_eq!(told.variables.len(), 1);
        assert!(told.warning.is_some_and(|w| w.contains("left out")));
    }
}
