//! What the sources of a pipeline hold, and what is wrong with them.
//! Does not know which stages need which of them.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Failure, Project};
use crate::diagnostic::Diagnostic;
use crate::files;
use crate::pipeline;
use crate::store::{SourceDigest, StoreError};
use crate::votes::{self, Effective};

impl Project {
    /// Digests of the sources that the wanted stages read, hashed side by side.
    ///
    /// # Errors
    /// One diagnostic for each source that is missing, empty, or cannot be read.
    pub fn digest_sources(
        &self,
        wanted: &BTreeSet<usize>,
    ) -> Result<Vec<Option<SourceDigest>>, Failure> {
        let needed = self.graph.sources_read(wanted);
        let store = &self.store;
        let sources = &self.graph.sources;
        let top = &pipeline::top_around(&self.dir.join("pipeline"));
        let one = |source: usize| {
            if !sources[source].is_here() {
                let digest = match sources[source].port_type == votes::PORT_TYPE {
                    true => Err(self.votes_elsewhere(source)),
                    false => self.digest_elsewhere(source),
                };
                return (source, digest);
            }
            // Workers have another working directory, and the memo knows files by whole paths.
            let path = std::path::absolute(&sources[source].path);
            let path = path.unwrap_or_else(|_| sources[source].path.clone().into());
            // The folder's real path; a link keeps its own name, whose ending says how to read it.
            let path = match (path.parent().map(std::path::Path::canonicalize), path.file_name()) {
                (Some(Ok(folder)), Some(name)) => folder.join(name),
                _ => path,
            };
            if sources[source].is_of_param() && !files::is_inside(top, &path) {
                return (source, Err(self.outside(source, top)));
            }
            if sources[source].port_type == votes::PORT_TYPE {
                return (source, self.votes(source, &path));
            }
            let digest = store.digest_source(&path.to_string_lossy());
            (source, digest.map_err(|e| self.source_problem(source, &e)))
        };
        let results: Vec<(usize, Result<SourceDigest, Diagnostic>)> = if needed.len() < 2 {
            needed.into_iter().map(one).collect()
        } else {
            std::thread::scope(|scope| {
                let threads: Vec<_> =
                    needed.into_iter().map(|s| scope.spawn(move || one(s))).collect();
                let join = |t: std::thread::ScopedJoinHandle<'_, _>| {
                    t.join().expect("invariant: hashing does not panic")
                };
                threads.into_iter().map(join).collect()
            })
        };
        let mut digests: Vec<Option<SourceDigest>> = vec![None; sources.len()];
        let mut problems = Vec::new();
        for (source, result) in results {
            match result {
                Ok(digest) => digests[source] = Some(digest),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(digests) } else { Err(Failure::Diagnostics(problems)) }
    }

    fn outside(&self, source: usize, top: &Path) -> Diagnostic {
        let node = &self.graph.sources[source];
        let top = top.display();
        let message = format!("`{}`: `{}` lies outside of `{top}`", node.name, node.path);
        let help =
            "files that params name belong to the repository; data elsewhere can be a source";
        Diagnostic::new(message, Some(node.span.clone())).help(help)
    }

    fn votes_elsewhere(&self, source: usize) -> Diagnostic {
        let node = &self.graph.sources[source];
        let message = format!("the votes of `{}` are not in this repository", node.name);
        Diagnostic::new(message, Some(node.span.clone()))
            .help("votes are files beside the pipeline, kept in git: `path: FOLDER`")
    }

    /// The votes of a folder that count.
    fn votes(&self, source: usize, path: &Path) -> Result<SourceDigest, Diagnostic> {
        let folder = votes::Folder::read(path).map_err(|error| {
            let node = &self.graph.sources[source];
            let message = format!("votes of `{}`: {error}", node.name);
            Diagnostic::new(message, Some(node.span.clone())).help(error.help())
        })?;
        for problem in &folder.problems {
            (self.choices.warn)(&format!(
                "{}:{}: {}",
                problem.path.display(),
                problem.line,
                problem.what
            ));
        }
        Ok(self.store.digest_content(Effective::of(&folder).to_bytes()))
    }

    fn source_problem(&self, source: usize, error: &StoreError) -> Diagnostic {
        let node = &self.graph.sources[source];
        let help = match error {
            StoreError::SourceMissing(_) if node.port_type == "model/huggingface" => {
                "put a model folder there (config.json, *.safetensors, tokenizer.json), as \
                 `hf download ORG/NAME --local-dir FOLDER` does; the path counts from the \
                 pipeline file"
            }
            StoreError::SourceMissing(_) | StoreError::SourceNoMatch(_) => {
                "paths are relative to the pipeline file"
            }
            StoreError::SourceEmpty(_) => "a source must hold something",
            StoreError::SourceDangling(..) => "mend the link, or name the file itself",
            StoreError::ChangedWhileRead { .. } => "run again when nobody writes to it",
            _ => "name a file, a directory, or a pattern that matches files",
        };
        Diagnostic::new(format!("source `{}`: {error}", node.name), Some(node.span.clone()))
            .help(help)
    }
}
