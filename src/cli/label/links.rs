//! `preflow label links` and `label revoke`: who was given links to a label page, and taking them
//! back one by one.

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::serve::folder;
use crate::cli::{Exit, Global, print};
use crate::http::{GivenLink, Signer};
use crate::label::signer;
use crate::project::Failure;
use crate::report::table::{Cell, Table};
use crate::report::{OutputStyle, Style};
use crate::text::{self, clean};

#[derive(Debug, Args)]
pub struct LinksArgs {
    /// Pipeline file, and the stage that collects labels [default: the only one]
    #[arg(value_name = "[FILE] [STAGE]")]
    pub words: Vec<String>,
}

#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Pipeline file, and the stage that collects labels [default: the only one]
    #[arg(value_name = "[FILE] [STAGE]")]
    pub words: Vec<String>,
    /// Whose links, or which one, as `preflow label links` names it; may be repeated
    #[arg(long = "link", value_name = "NAME|LINK", required = true)]
    pub links: Vec<String>,
}

/// Lists the links that are valid, or were taken back before their time.
///
/// # Errors
/// The stage does not ask people, or the record cannot be read.
pub fn links(args: &LinksArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let signer = open(&args.words, global)?;
    let now = Timestamp::now().as_second();
    let all = signer.given().read().map_err(|e| unreadable(&e))?;
    let live: Vec<(&String, &GivenLink)> =
        all.links.iter().filter(|(_, link)| link.until > now).collect();
    if global.json {
        let list: Vec<_> = live
            .iter()
            .map(|(id, link)| {
                json!({ "link": id, "name": link.name, "admin": link.admin,
                    "made": time(link.made), "until": time(link.until), "revoked": link.revoked })
            })
            .collect();
        return Ok(print(&format!("{}\n", json!({ "links": list }))));
    }
    if live.is_empty() {
        return Ok(print(" no links are valid\n"));
    }
    let mut table = Table::new(&[]);
    for (id, link) in &live {
        let until = time(link.until);
        let state = match link.revoked {
            true => Cell::styled(Style::Bad, format!("taken back until {until}")),
            false => Cell::from(format!("valid until {until}")),
        };
        table.row([Cell::from(id.as_str()), Cell::from(link.name.as_str()), state]);
    }
    Ok(print(&table.text(look)))
}

/// Takes links back; pages that are open with them end at once.
///
/// # Errors
/// No such link was given, or the record cannot be read or written.
pub fn revoke(args: &RevokeArgs, global: &Global) -> Result<Exit, Failure> {
    let signer = open(&args.words, global)?;
    let known = signer.given().read().map_err(|e| unreadable(&e))?;
    let meant = |word: &String, id: &String, link: &GivenLink| id == word || link.name == *word;
    for word in &args.links {
        if !known.links.iter().any(|(id, link)| meant(word, id, link)) {
            return Err(Failure::usage(format!("no link `{}` was given", clean(word)))
                .help("`preflow label links` lists them"));
        }
    }
    let mut count = 0;
    let change = signer.given().change(|all| {
        for (id, link) in &mut all.links {
            if !link.revoked && args.links.iter().any(|word| meant(word, id, link)) {
                link.revoked = true;
                count += 1;
            }
        }
    });
    change.map_err(|e| unreadable(&e))?;
    let what = text::counted(count, "link");
    Ok(if global.quiet { Exit::Done } else { print(&format!(" {what} taken back\n")) })
}

fn open(words: &[String], global: &Global) -> Result<Signer, Failure> {
    let (project, assignment) = super::open(words, global)?;
    let folder = folder(&project)?;
    signer(&assignment, &folder).map_err(|error| Failure::System {
        message: format!("cannot keep the key that signs links: {error}"),
        help: "see that you alone may open it".into(),
    })
}

fn unreadable(error: &std::io::Error) -> Failure {
    Failure::System {
        message: format!("the record of links cannot be used: {error}"),
        help: "delete it and the key beside it: all links end, and new ones can be sent".into(),
    }
}

fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| String::new(), |at| at.to_string())
}
