//! What a pipeline file says, nothing resolved.
