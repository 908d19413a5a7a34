//! `preflow show STAGE`: what a stage made: columns and rows of its datasets, files of its models.

use clap::Args;
use serde_json::{Map, Value, json};

use super::sample::never_made;
use super::{Exit, Global, print};
use crate::conversation::Content;
use crate::project::show::{MadeOutput, MadeStage, OutputContent, made};
use crate::project::{self, Failure, locate};
use crate::report::table::{Cell, Table};
use crate::report::{OutputStyle, Style};
use crate::text;

/// Characters of a value that are shown.
const LONGEST: usize = 600;

#[derive(Debug, Args)]
pub struct ShowStageArgs {
    /// Pipeline file, then a stage, or stage.port for one of its outputs
    #[arg(value_name = "[FILE] STAGE[.PORT]", required = true)]
    pub words: Vec<String>,
    /// Rows of each dataset to show
    #[arg(short, value_name = "N", default_value_t = 3)]
    pub n: usize,
}

/// Prints what a stage made.
///
/// # Errors
/// There is no such stage or output, or it cannot be read.
pub fn show(args: &ShowStageArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (file, names) = locate::file_and_names(&args.words)?;
    let [name] = names.as_slice() else {
        return Err(Failure::usage("`show` takes one stage")
            .help("preflow show FILE STAGE, or STAGE.PORT for one of its outputs"));
    };
    let project = project::load(&file, &global.choices())?;
    // Keeps the collector away while the files are read.
    let _lease = project.store.shared_lease();
    let Some(made) = made(&project, name, args.n)? else {
        let stage = name.split_once('.').map_or(name.as_str(), |(stage, _)| stage);
        return Ok(never_made(&file, stage));
    };
    if global.json {
        return Ok(print(&format!("{}\n", as_json(&made))));
    }
    Ok(print(&as_text(&made, look)))
}

fn as_json(made: &MadeStage) -> Value {
    let of = |output: &MadeOutput| {
        let mut value = json!({
            "port": output.port, "type": output.port_type, "bytes": output.bytes,
            "path": output.path,
        });
        match &output.content {
            OutputContent::Table(head) => {
                let column = |(name, of): &(String, String)| json!({ "name": name, "type": of });
                value["rows"] = json!(head.rows);
                value["columns"] = head.columns.iter().map(column).collect();
                value["first"] = json!(head.first);
            }
            OutputContent::Folder(files) => {
                let file = |(name, bytes): &(String, u64)| json!({ "path": name, "bytes": bytes });
                value["files"] = files.iter().map(file).collect();
            }
            OutputContent::File => {}
        }
        value
    };
    let outputs: Vec<Value> = made.outputs.iter().map(of).collect();
    json!({ "stage": made.stage, "at": made.at, "stale": made.stale, "outputs": outputs })
}

fn as_text(made: &MadeStage, look: OutputStyle) -> String {
    let at = made.at.get(..16).unwrap_or("").replace('T', " ");
    let stale = match &made.stale {
        Some(why) => look.paint(Style::Warning, &format!("stale: {}", text::clean(why))),
        None => look.paint(Style::Good, "up to date"),
    };
    let mut out = format!(" {}  made {at}, {stale}\n", made.stage);
    for output in &made.outputs {
        let size = text::bytes(output.bytes);
        let rows = match &output.content {
            OutputContent::Table(head) => format!("  {}", text::counted(head.rows, "row")),
            OutputContent::Folder(files) => {
                format!("  {}", text::counted(files.len() as u64, "file"))
            }
            OutputContent::File => String::new(),
        };
        let title = format!("{}.{}", made.stage, output.port);
        let rest = look.paint(Style::Dim, &format!("{}{rows}  {size}", output.port_type));
        out.push_str(&format!("\n {title}  {rest}\n"));
        match &output.content {
            OutputContent::Table(head) => {
                let mut table = Table::new(&[1]);
                for (name, of) in &head.columns {
                    table.row([
                        Cell::from(format!("  {name}")),
                        Cell::styled(Style::Dim, of.as_str()),
                    ]);
                }
                out.push_str(&table.text(look));
                for (i, row) in head.first.iter().enumerate() {
                    out.push_str(&look.paint(Style::Dim, &format!("\n   row {i}\n")));
                    out.push_str(&of_row(&head.columns, row).text(look));
                }
                for (name, why) in &head.unread {
                    out.push_str(&format!("   `{name}` cannot be shown: {}\n", text::clean(why)));
                }
            }
            OutputContent::Folder(files) => {
                let mut table = Table::new(&[0]);
                table.right(1);
                for (name, bytes) in files {
                    table.row([
                        Cell::from(format!("  {name}")),
                        Cell::styled(Style::Dim, text::bytes(*bytes)),
                    ]);
                }
                out.push_str(&table.text(look));
            }
            OutputContent::File => {}
        }
    }
    out
}

/// A row: name and value of each column; a value of several lines takes several.
fn of_row(columns: &[(String, String)], row: &Map<String, Value>) -> Table {
    let mut table = Table::new(&[1]);
    for (name, _) in columns {
        let mut label = format!("  {name}");
        for line in shown(row.get(name)).lines() {
            table.row([Cell::styled(Style::Dim, std::mem::take(&mut label)), Cell::from(line)]);
        }
    }
    table
}

/// A value as text: conversations turn by turn, other lists and maps as JSON.
fn shown(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => "(missing)".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "(nothing)".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(x) if number.is_f64() => text::figure(x),
            _ => number.to_string(),
        },
        Some(value) => match Content::from_json(&value.to_string()) {
            Ok(content) => content.transcript().into_owned(),
            Err(_) => value.to_string(),
        },
    };
    let all = text.chars().count();
    if all <= LONGEST {
        return text;
    }
    let start: String = text.chars().take(LONGEST).collect();
    format!("{start} … ({} characters)", text::whole(all as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_people_read_them() {
        let of = |value: Value| shown(Some(&value));
        assert_eq!(shown(None), "(missing)");
        assert_eq!(of(json!("")), "(nothing)");
        assert_eq!(of(json!(0.25)), "0.250");
        assert_eq!(of(json!(12_000)), "12000");
        assert_eq!(of(json!(true)), "true");
        assert_eq!(of(json!(["a", 1])), "[\"a\",1]");
        let chat = json!([
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello.\nYou?"},
        ]);
        assert_eq!(of(chat), "User: Hi\n\nAssistant: Hello.\nYou?");
        let long = of(json!("é".repeat(1_234)));
        assert_eq!(long, format!("{} … (1,234 characters)", "é".repeat(LONGEST)));
    }
}
