//! `command`: any program of the user's, with named inputs and outputs.
//! Knows nothing of what the program does.

use std::collections::BTreeMap;
use std::process::{Command as Process, Stdio};

use anyhow::{Context as _, Result, bail};
use preflow::exec::inputs::tell;
use preflow::protocol::{InputDoc, OpenPorts, OutputDoc, ProgramDoc};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::kind::{Stage, Summary};

/// Params of `command`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// What to run: a line for `sh -c`, or a program and its arguments. It finds the path of each
    /// input in the environment variable `IN_<port>`, several parted by blanks; `IN_<port>_LIST`
    /// names a file that holds them one a line. Outputs are in `OUT_<port>`. Figures for gates and
    /// sweeps go, as one JSON map of numbers, to the path in `FIGURES`.
    command: Line,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Line {
    Shell(String),
    Arguments(Vec<String>),
}

impl Stage for Command {
    const NAME: &'static str = "command";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "run any program with declared inputs and outputs";
    const FIGURES: &'static [&'static str] = &["*"];
    const THREADS: u32 = 1;

    fn inputs() -> Vec<InputDoc> {
        Vec::new()
    }

    fn outputs() -> Vec<OutputDoc> {
        Vec::new()
    }

    fn open_ports() -> Option<OpenPorts> {
        Some(OpenPorts { inputs: "inputs".into(), outputs: "outputs".into() })
    }

    fn program() -> Option<ProgramDoc> {
        Some(ProgramDoc { command: "command".into() })
    }

    fn run(self, cx: &mut Context) -> Result<Summary> {
        let (program, arguments) = match &self.command {
            Line::Shell(line) => ("sh".to_owned(), vec!["-c".to_owned(), line.clone()]),
            Line::Arguments(list) => match list.split_first() {
                Some((program, rest)) => (program.clone(), rest.to_vec()),
                None => bail!("`command` is an empty list"),
            },
        };
        let task = cx.task();
        let mut process = Process::new(&program);
        process.args(&arguments).stdin(Stdio::null()).stdout(std::io::stderr());
        let words = [vec![program.clone()], arguments.clone()].concat().join(" ");
        for (port, inputs) in &task.inputs {
            let paths: Vec<String> = inputs.iter().flat_map(|i| &i.paths).cloned().collect();
            process.envs(tell(port, &paths, " ", &words, cx.scratch(), true)?.variables);
        }
        for (port, path) in &task.outputs {
            process.env(format!("OUT_{}", port.replace('-', "_")), path);
        }
        let figures = cx.scratch().join("figures.json");
        process.env("FIGURES", &figures);
        let status = process.status().with_context(|| format!("cannot start `{program}`"))?;
        if !status.success() {
            bail!("the command failed: {status}");
        }
        let ports: Vec<String> = cx.task().outputs.keys().cloned().collect();
        for port in ports {
            if !cx.output(&port)?.exists() {
                bail!("the command did not write output `{port}` to the path in OUT_{port}");
            }
            cx.complete(&port, None)?;
        }
        if !figures.exists() {
            return Ok(Summary::new());
        }
        let figures: BTreeMap<String, Option<f64>> =
            serde_json::from_str(&fs_err::read_to_string(&figures)?)
                .context("what the command wrote to FIGURES is no JSON map of numbers")?;
        let finite = |(name, x): (String, Option<f64>)| (name, x.unwrap_or(f64::NAN));
        Ok(figures.into_iter().map(finite).collect())
    }
}
