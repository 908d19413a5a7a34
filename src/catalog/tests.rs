//! Params and units against small schemas.
//! Knows no pipeline files.
