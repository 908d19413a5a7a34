//! A graph as bytes: reading them is many times faster than resolving a pipeline again.
//! Does not know where they are kept, nor who vouches that they belong to a text.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Graph, GraphSource, GraphStage};
use crate::diagnostic::{SourceText, Span};

/// Goes into the key under which bytes are kept; changes with their meaning.
pub const FORMAT: &str = "graph/2";

/// Places in the text stand apart: there is one text, and thousands of places.
#[derive(Serialize, Deserialize)]
struct Kept<Sources, Stages> {
    name: String,
    sources: Sources,
    stages: Stages,
    places: Vec<Range<usize>>,
}

impl Graph {
    /// `None`: it has places in another text than that of its pipeline file.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let text = &self.stages.first()?.span.source;
        let here = |span: &&Span| Arc::ptr_eq(&span.source, text) && text.name == self.path;
        let places = self.spans().map(|span| Some(span).filter(here).map(|s| s.range.clone()));
        let places = places.collect::<Option<Vec<_>>>()?;
        let (sources, stages) = (&self.sources, &self.stages);
        // With the names of fields: some are left out where they say nothing.
        rmp_serde::to_vec_named(&Kept { name: self.name.clone(), sources, stages, places }).ok()
    }

    /// The graph of the pipeline file with this text, from what [`Graph::to_bytes`] gave for it.
    /// `None`: the bytes are something else.
    #[must_use]
    pub fn from_bytes(path: &str, text: &str, bytes: &[u8]) -> Option<Self> {
        type Owned = Kept<Vec<GraphSource>, Vec<GraphStage>>;
        let Owned { name, mut sources, mut stages, places } = rmp_serde::from_slice(bytes).ok()?;
        if places.len() != sources.len() + stages.len() {
            return None;
        }
        let text = crate::pipeline::without_mark(text).to_owned();
        let source = Arc::new(SourceText::new(path, text));
        let spans = sources.iter_mut().map(|s| &mut s.span);
        let spans = spans.chain(stages.iter_mut().map(|s| &mut s.span));
        for (span, range) in spans.zip(places) {
            source.text.get(range.clone())?;
            *span = Span { source: Arc::clone(&source), range };
        }
        Some(Self { name, path: path.to_owned(), sources, stages })
    }

    fn spans(&self) -> impl Iterator<Item = &Span> {
        self.sources.iter().map(|s| &s.span).chain(self.stages.iter().map(|s| &s.span))
    }
}
