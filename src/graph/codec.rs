//! A graph as bytes: reading them is many times faster than resolving a pipeline again.
//! Does not know where they are kept, nor who vouches that they belong to the texts.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Graph, GraphSource, GraphStage};
use crate::diagnostic::{SourceText, Span};

/// A place: number of a text, first byte, byte behind the last one.
type Place = (usize, usize, usize);

/// Places in texts stand apart: there are few texts, and thousands of places.
#[derive(Serialize, Deserialize)]
struct Encoded<Sources, Stages> {
    name: String,
    path: String,
    sources: Sources,
    stages: Stages,
    places: Vec<Place>,
}

impl Graph {
    /// The graph, but for the texts that its pipeline file and those it includes held. `None`: it
    /// has places in other texts.
    #[must_use]
    pub fn to_bytes(&self, texts: &[Arc<SourceText>]) -> Option<Vec<u8>> {
        let place = |span: &Span| -> Option<Place> {
            let text = texts.iter().position(|text| Arc::ptr_eq(text, &span.source))?;
            Some((text, span.range.start, span.range.end))
        };
        let spans = self.sources.iter().map(|s| &s.span);
        let spans = spans.chain(self.stages.iter().map(|s| &s.span));
        let places = spans.map(place).collect::<Option<Vec<_>>>()?;
        let (name, path) = (self.name.clone(), self.path.clone());
        // With the names of fields: some are left out where they say nothing.
        let all = Encoded { name, path, sources: &self.sources, stages: &self.stages, places };
        rmp_serde::to_vec_named(&all).ok()
    }

    /// The graph, from what [`Graph::to_bytes`] gave for these texts. `None`: the bytes are
    /// something else.
    #[must_use]
    pub fn from_bytes(texts: &[Arc<SourceText>], bytes: &[u8]) -> Option<Self> {
        type Owned = Encoded<Vec<GraphSource>, Vec<GraphStage>>;
        let Owned { name, path, mut sources, mut stages, places } =
            rmp_serde::from_slice(bytes).ok()?;
        if places.len() != sources.len() + stages.len() {
            return None;
        }
        let spans = sources.iter_mut().map(|s| &mut s.span);
        let spans = spans.chain(stages.iter_mut().map(|s| &mut s.span));
        for (span, (text, start, end)) in spans.zip(places) {
            let source = Arc::clone(texts.get(text)?);
            source.text.get(start..end)?;
            *span = Span { source, range: start..end };
        }
        Some(Self { name, path, sources, stages })
    }
}
