//! `preflow doctor`: is everything there that preflow needs?

use clap::Args;
use serde_json::json;

use super::{Exit, Global, print};
use crate::project::Failure;
use crate::project::doctor::{FindingState, findings};
use crate::report::table::{Cell, Table};
use crate::report::{OutputStyle, Style};

#[derive(Debug, Args)]
pub struct DoctorArgs {}

/// Prints what was found. Exit 0 when nothing stands in the way.
///
/// # Errors
/// The place of the store cannot hold one.
pub fn doctor(_: &DoctorArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let findings = findings(&global.choices())?;
    let bad = findings.iter().any(|f| f.state == FindingState::Bad);
    let exit = if bad { Exit::Usage } else { Exit::Done };
    if global.json {
        let list: Vec<_> = findings
            .iter()
            .map(|f| json!({ "what": f.what, "state": word(f.state), "found": f.text, "remedy": f.remedy }))
            .collect();
        print(&format!("{}\n", json!({ "findings": list })));
        return Ok(exit);
    }
    let mut table = Table::new(&[2]);
    table.marked();
    for finding in &findings {
        let (mark, style) = match finding.state {
            FindingState::Good => ("✓", Style::Good),
            FindingState::Warning => ("!", Style::Warning),
            FindingState::Bad => ("✗", Style::Bad),
        };
        let (what, text) = (Cell::from(finding.what), Cell::from(finding.text.as_str()));
        table.row([Cell::styled(style, mark), what, text]);
        if !finding.remedy.is_empty() {
            let remedy = Cell::styled(Style::Dim, format!("→ {}", finding.remedy));
            table.row([Cell::default(), Cell::default(), remedy]);
        }
    }
    print(&table.text(look));
    Ok(exit)
}

fn word(state: FindingState) -> &'static str {
    match state {
        FindingState::Good => "good",
        FindingState::Warning => "warning",
        FindingState::Bad => "bad",
    }
}
