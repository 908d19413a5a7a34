//! A pipeline file of any bytes: a graph, or problems that can be shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use preflow::catalog::Catalog;
use preflow::graph::Graph;
use preflow::pipeline::{Overrides, document};

fuzz_target!(|text: &str| {
    let overrides = Overrides { profile: None, sets: &[], trial: &[] };
    let read = document("p.yaml", text).and_then(|d| d.into_pipeline(&overrides));
    let graph = read.and_then(|pipeline| Graph::resolve(&pipeline, &Catalog::builtin()));
    if let Err(problems) = graph {
        assert!(!problems.is_empty());
        let _ = preflow::report::diagnostics::diagnostics(&problems, false);
    }
});
