//! `preflow chat STAGE`: a conversation of several turns with a model that a pipeline has made.
//! Knows nothing of how a model answers: each turn is one task.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::perform::perform;
use super::sample::{SamplingArgs, never_made, params};
use super::{Exit, Global, complain, print};
use crate::catalog::Catalog;
use crate::exec::Outcome;
use crate::graph::GraphOutput;
use crate::plan::Selection;
use crate::project::conversation::{ANSWERS, Answer, answers, find_model, talker, task};
use crate::project::{self, Failure, locate};
use crate::protocol::KindDoc;
use crate::report::{self, OutputStyle, Style};
use crate::text::clean;

/// Longest answer where the command line says nothing; never more than half the context.
const LONGEST: u32 = 512;

const COMMANDS: &str = "\
/new          forget what was said
/again        draw another answer
/system TEXT  what the system says first; nothing takes it away
/exit         leave, as Ctrl-D does
A line that ends with \\ goes on in the next; Ctrl-C ends an answer; // sends a line that begins \
with /
";

#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Pipeline file and the stage
    #[arg(value_name = "[FILE] STAGE", required = true)]
    pub words: Vec<String>,
    /// What the system says first
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub system: Option<String>,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Output of the stage [default: the first that can be talked to]
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
}

/// What a person typed.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    Turn(String),
    New,
    Again,
    System(String),
    Help,
    Exit,
    Unknown(String),
    Nothing,
}

impl Typed {
    fn of(line: &str) -> Self {
        let line = line.trim();
        let Some(rest) = line.strip_prefix('/') else {
            return if line.is_empty() { Self::Nothing } else { Self::Turn(line.to_owned()) };
        };
        let (word, more) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        match (word, more.trim()) {
            _ if rest.starts_with('/') => Self::Turn(rest.to_owned()),
            ("new", "") => Self::New,
            ("again", "") => Self::Again,
            ("system", said) => Self::System(said.to_owned()),
            ("help" | "?", "") => Self::Help,
            ("exit" | "quit", "") => Self::Exit,
            _ => Self::Unknown(line.to_owned()),
        }
    }
}

/// Talks until the input ends. Each line is a turn; the answers go to standard output.
///
/// # Errors
/// The stage is unknown, makes no model that answers, or the command line does not fit it.
pub fn chat(args: &ChatArgs, global: &Global, look: OutputStyle) -> Result<Exit, Failure> {
    let (file, names) = locate::file_and_names(&args.words)?;
    let [name] = names.as_slice() else {
        return Err(
            Failure::usage("`chat` talks to one stage's model").help("preflow chat FILE STAGE")
        );
    };
    let project = project::load(&file, &global.choices())?;
    let catalog = Catalog::builtin();
    let selection = Selection::new(&project.graph, std::slice::from_ref(name), &[], &[])?;
    let stage = project.graph.find(name).expect("invariant: the selection found it");
    let (kind, port) = talker(&project, &catalog, stage, args.port.as_deref())?;
    if kind.name != ANSWERS {
        return Err(Failure::usage(format!("`{name}` scores, it does not answer"))
            .help("preflow sample STAGE -p PROMPT -a ANSWER prints what it gives an answer"));
    }
    let mut params = params(kind, None, &args.sampling)?;
    if args.sampling.max_tokens.is_none() {
        params.insert("max_tokens".into(), LONGEST.into());
    }
    let Some(model) = find_model(&project, &selection, stage, port)? else {
        return Ok(never_made(&file, name));
    };
    // Keeps the collector away while the worker reads.
    let _lease = project.store.shared_lease();
    let said = args.system.clone().filter(|text| !text.is_empty());
    let talk = Conversation { said, turns: Vec::new(), drawn: 0 };
    Chat { kind, port, model, name, params, json: global.json, look, talk }.go_on()
}

/// What was said so far.
struct Conversation {
    said: Option<String>,
    /// Turns of the user and the assistant, one after the other.
    turns: Vec<String>,
    /// Answers that were drawn: each has a seed of its own.
    drawn: u64,
}

impl Conversation {
    fn messages(&self) -> Value {
        let system = self.said.iter().map(|text| json!({ "role": "system", "content": text }));
        let roles = ["user", "assistant"].into_iter().cycle();
        let turns = self.turns.iter().zip(roles);
        let turns = turns.map(|(text, role)| json!({ "role": role, "content": text }));
        system.chain(turns).collect()
    }

    /// Takes the last answer back, and says whether there was one.
    fn forget_answer(&mut self) -> bool {
        let answered = !self.turns.is_empty() && self.turns.len().is_multiple_of(2);
        if answered {
            self.turns.pop();
        }
        answered
    }
}

struct Chat<'a> {
    kind: &'a KindDoc,
    port: &'a GraphOutput,
    model: PathBuf,
    name: &'a str,
    params: Map<String, Value>,
    json: bool,
    look: OutputStyle,
    talk: Conversation,
}

impl Chat<'_> {
    fn go_on(mut self) -> Result<Exit, Failure> {
        let terminal = std::io::stdin().is_terminal();
        if terminal && !self.look.quiet {
            complain(&format!("Chat with `{}`. /help lists what else can be typed.\n", self.name));
        }
        let mut lines = Lines::new(terminal);
        loop {
            let line = match lines.next()? {
                Next::Line(line) => line,
                Next::End => return Ok(Exit::Done),
                Next::Interrupted => return Ok(Exit::Interrupted),
            };
            let heard = match Typed::of(&line) {
                Typed::Nothing => continue,
                Typed::Exit => return Ok(Exit::Done),
                Typed::Help => {
                    complain(COMMANDS);
                    continue;
                }
                Typed::Unknown(line) => {
                    let line = clean(&line);
                    complain(&format!("nothing was sent: `{line}` is no command\n{COMMANDS}"));
                    continue;
                }
                Typed::New => {
                    self.talk.turns.clear();
                    continue;
                }
                Typed::System(said) => {
                    self.talk.said = Some(said).filter(|said| !said.is_empty());
                    self.talk.turns.clear();
                    continue;
                }
                Typed::Again if !self.talk.forget_answer() => {
                    complain("there is no answer yet\n");
                    continue;
                }
                Typed::Again => self.answer()?,
                Typed::Turn(text) => {
                    self.talk.turns.push(text);
                    self.answer()?
                }
            };
            match heard {
                Exit::Done => {}
                // A person may mend what they typed; a script cannot.
                _ if terminal => {
                    self.talk.turns.pop();
                }
                failed => return Ok(failed),
            }
        }
    }

    /// Has the model answer what was said last; on success the answer is one more turn.
    fn answer(&mut self) -> Result<Exit, Failure> {
        let dir = tempfile::tempdir().map_err(crate::store::StoreError::from)?;
        let mut params = self.params.clone();
        let seed = params.get("seed").and_then(Value::as_u64).unwrap_or_default();
        params.insert("seed".into(), seed.wrapping_add(self.talk.drawn).into());
        self.talk.drawn += 1;
        let rows = [json!({ "prompt": self.talk.messages() })];
        let model = (self.port, self.model.as_path());
        let task = task(dir.path(), self.kind, self.name, model, &rows, params, true)?;
        let mut shown = Shown::new(std::io::stdout().is_terminal());
        let json = self.json;
        let outcome = perform(task, self.look, &mut |piece| {
            if !json {
                let _ = print(shown.more(piece));
            }
        })?;
        match outcome {
            Outcome::Done { .. } => {
                let answer = answers(&dir.path().join("out.parquet"))?.into_iter().next();
                let answer = answer.ok_or_else(|| Failure::usage("the worker gave no answer"))?;
                let exit = self.told(&answer, &mut shown);
                self.talk.turns.push(answer.text);
                Ok(exit)
            }
            Outcome::Cancelled => {
                complain("\nstopped: the answer and what it answers are forgotten\n");
                Ok(Exit::Interrupted)
            }
            outcome => {
                let text = report::failure(self.look, self.name, &outcome, (None, "", ""));
                complain(&format!("{text}\n"));
                Ok(Exit::StageFailed)
            }
        }
    }

    fn told(&self, answer: &Answer, shown: &mut Shown) -> Exit {
        let Answer { text, finished, tokens, .. } = answer;
        if self.json {
            let prompt = self.talk.turns.last();
            let line = json!({ "prompt": prompt, "answer": text, "finished": finished });
            return print(&format!("{line}\n"));
        }
        let exit = print(&format!("{}\n", shown.rest(text)));
        if !finished {
            let note = format!("the answer was cut off after {tokens} tokens; see --max-tokens");
            complain(&format!("{}\n", self.look.paint(Style::Dim, &note)));
        }
        exit
    }
}

/// An answer while it is written, as a terminal may show it.
struct Shown {
    terminal: bool,
    text: String,
    /// What was printed of it.
    printed: String,
}

impl Shown {
    fn new(terminal: bool) -> Self {
        Self { terminal, text: String::new(), printed: String::new() }
    }

    /// What is new on the screen once `piece` was written.
    fn more(&mut self, piece: &str) -> &str {
        self.text.push_str(piece);
        let from = self.printed.len();
        // What a model says may hold anything; a terminal would obey it.
        self.printed = match self.terminal {
            true => self.text.split('\n').map(clean).collect::<Vec<_>>().join("\n"),
            false => self.text.clone(),
        };
        self.printed.get(from..).unwrap_or_default()
    }

    /// What is still to be shown of the whole answer.
    fn rest(&mut self, whole: &str) -> &str {
        let piece = whole.strip_prefix(&self.text).unwrap_or_default().to_owned();
        self.more(&piece)
    }
}

enum Next {
    Line(String),
    End,
    Interrupted,
}

/// Lines of standard input, while Ctrl-C is heard too.
struct Lines {
    terminal: bool,
    /// Asks the reading thread for one more line.
    ask: std::sync::mpsc::Sender<()>,
    read: mpsc::UnboundedReceiver<std::io::Result<Option<String>>>,
}

impl Lines {
    fn new(terminal: bool) -> Self {
        let (ask, asked) = std::sync::mpsc::channel();
        let (send, read) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            while asked.recv().is_ok() {
                let mut line = String::new();
                let got = std::io::stdin().lock().read_line(&mut line);
                if send.send(got.map(|n| (n > 0).then_some(line))).is_err() {
                    return;
                }
            }
        });
        Self { terminal, ask, read }
    }

    /// The next line, with those that it goes on in.
    fn next(&mut self) -> Result<Next, Failure> {
        let mut whole = String::new();
        loop {
            if self.terminal {
                complain(if whole.is_empty() { "> " } else { "… " });
            }
            let _ = self.ask.send(());
            // Made anew: a Ctrl-C that ended the last answer is no wish to leave.
            let got = project::execution::runtime()?.block_on(async {
                let mut interrupts = super::interrupts::listen();
                tokio::select! {
                    line = self.read.recv() => line,
                    _ = interrupts.recv() => None,
                }
            });
            let Some(line) = got else {
                complain("\n");
                return Ok(Next::Interrupted);
            };
            let line = line.map_err(|e| Failure::usage(format!("standard input: {e}")))?;
            let Some(line) = line else {
                if self.terminal {
                    complain("\n");
                }
                return Ok(if whole.is_empty() { Next::End } else { Next::Line(whole) });
            };
            let line = line.trim_end_matches(['\r', '\n']);
            match line.strip_suffix('\\') {
                Some(begun) => whole.push_str(&format!("{begun}\n")),
                None => return Ok(Next::Line(whole + line)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_turns_or_commands() {
        let turn = |text: &str| Typed::Turn(text.into());
        for (line, typed) in [
            (" hello ", turn("hello")),
            ("", Typed::Nothing),
            ("/new", Typed::New),
            ("/again", Typed::Again),
            ("/system  Be brief. ", Typed::System("Be brief.".into())),
            ("/system", Typed::System(String::new())),
            ("/exit", Typed::Exit),
            ("//etc/hosts", turn("/etc/hosts")),
            ("/etc/hosts", Typed::Unknown("/etc/hosts".into())),
            ("/new chat", Typed::Unknown("/new chat".into())),
        ] {
            assert_eq!(Typed::of(line), typed, "{line}");
        }
    }

    #[test]
    fn a_conversation_has_roles_in_turn_and_an_answer_can_be_taken_back() {
        let mut talk = Conversation { said: None, turns: vec!["a".into()], drawn: 0 };
        assert!(!talk.forget_answer());
        talk.turns.extend(["b".to_owned(), "c".to_owned()]);
        assert!(!talk.forget_answer());
        talk.said = Some("s".into());
        let roles: Vec<Value> =
            talk.messages().as_array().expect("a list").iter().map(|m| m["role"].clone()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        talk.turns.push("d".into());
        assert!(talk.forget_answer());
        assert_eq!(talk.turns, ["a", "b", "c"]);
    }

    #[test]
    fn a_streamed_answer_is_shown_once_and_drives_no_terminal() {
        let mut shown = Shown::new(true);
        let pieces = ["one", "\x1b[2J\n", "👩", "\u{200d}👧", " end"];
        let mut screen: String = pieces.into_iter().map(|p| shown.more(p).to_owned()).collect();
        screen += shown.rest("one\x1b[2J\n👩\u{200d}👧 end.");
        assert_eq!(screen, "one␛[2J\n👩\u{200d}👧 end.");
        let mut raw = Shown::new(false);
        assert_eq!(raw.more("\x1b"), "\x1b");
    }
}
