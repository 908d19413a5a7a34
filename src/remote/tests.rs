//! Tests of records and places: what is refused before anybody is asked.
