//! Both binaries together, as a user has them: whole pipelines from one YAML file.

mod ahead;
mod claims;
mod docs;
mod foreign;
mod people;
mod pipeline;
mod serve;
mod templates;
mod workspace;
