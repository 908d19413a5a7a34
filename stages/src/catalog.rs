//! The catalog: all kinds as data, as the orchestrator asks for them.
//! Knows nothing of what the kinds do.

use preflow::protocol::{CatalogDoc, PROTOCOL};

use crate::kind::Kind;
use crate::kinds::KINDS;

/// All kinds, as data.
pub fn catalog() -> CatalogDoc {
    CatalogDoc {
        protocol: PROTOCOL,
        validates: true,
        files: None,
        kinds: KINDS.iter().map(Kind::describe).collect(),
    }
}

/// The catalog as it is committed: pretty JSON and a line feed.
pub fn catalog_json() -> String {
    let value = serde_json::to_value(catalog()).expect("invariant: the catalog is plain data");
    serde_json::to_string_pretty(&value).expect("invariant: the catalog is plain data") + "\n"
}
