//! `preflow label ask`: the same questions in a terminal.
//! Decides nothing about votes; a label session does.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{cursor, execute, queue};
use jiff::Timestamp;

use super::screen::{Emphasis, ScreenView, frame, words};
use super::serve::{open_session, refused};
use crate::cli::run::listen;
use crate::cli::{Exit, Global, complain};
use crate::label::{Item, LabelSession, Pick, SessionError, Submission};
use crate::project::Failure;
use crate::report::OutputStyle;

/// Between two looks at signals, and at what others did when nothing is left.
const TICK: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_secs(2);
const LONGEST_NOTE: usize = 2000;

#[derive(Debug, Args)]
pub struct AskArgs {
    /// Pipeline file and the stage that collects labels
    #[arg(value_name = "[FILE] STAGE", required = true)]
    pub words: Vec<String>,
    /// Whose votes these are [default: the user's name]
    #[arg(long, value_name = "NAME")]
    pub annotator: Option<String>,
    /// Ask again what was skipped, as far as it lacks votes
    #[arg(long)]
    pub skipped: bool,
}

/// Label in the terminal.
///
/// # Errors
/// The stage is unknown, or has nothing to label yet; this is no terminal.
pub fn ask(args: &AskArgs, global: &Global, _look: OutputStyle) -> Result<Exit, Failure> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Failure::usage("`label ask` needs a terminal")
            .help("in a browser: preflow label serve FILE STAGE"));
    }
    let annotator = super::annotator(args.annotator.as_deref())?;
    let (_loaded, assignment) = super::open(&args.words, global)?;
    let session = open_session(assignment, None)?;
    let stop = signals()?;
    let mut asking = Asking::new(&session, annotator);
    if args.skipped {
        asking.ask_again().map_err(refused)?;
    }
    let ended = {
        let _screen = Screen::take().map_err(|e| broken(&e))?;
        asking.run(&stop)
    };
    let votes = match asking.votes {
        1 => "one vote".to_owned(),
        n => format!("{n} votes"),
    };
    let file = session.assignment().votes.join(format!("{}.jsonl", asking.annotator));
    complain(&format!(" {votes} in {}\n", file.display()));
    ended?;
    Ok(if stop.load(Ordering::Relaxed) { Exit::Interrupted } else { Exit::Done })
}

fn broken(error: &io::Error) -> Failure {
    Failure::usage(format!("the terminal does not work: {error}"))
        .help("in a browser: preflow label serve FILE STAGE")
}

/// Set by a signal that asks the program to end.
fn signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let runtime = crate::cli::run::runtime()?;
    let mut heard = runtime.block_on(async { listen() });
    std::thread::spawn(move || {
        runtime.block_on(heard.recv());
        flag.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}

/// The terminal as we need it; given back as it was, whatever happens.
struct Screen;

impl Screen {
    fn take() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |fault| {
            Self::give_back();
            before(fault);
        }));
        enable_raw_mode()?;
        let screen = Self;
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    fn give_back() {
        // Nothing can be done about a terminal that is gone.
        let _ = execute!(
            io::stdout(),
            SetAttribute(Attribute::Reset),
            cursor::Show,
            LeaveAlternateScreen
        );
        let _ = disable_raw_mode();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        Self::give_back();
    }
}

/// One annotator at work.
struct Asking<'a> {
    session: &'a LabelSession,
    annotator: String,
    item: Option<Item>,
    was: Option<Pick>,
    since: Instant,
    diff: bool,
    keys: bool,
    scroll: usize,
    status: String,
    note: String,
    /// The note as it is being written.
    writing: Option<String>,
    votes: u64,
    /// Where nothing is left: why, and how many pairs could be asked again.
    why: Option<String>,
    skipped: usize,
}

/// What a key leads to.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Stay,
    End,
}

impl<'a> Asking<'a> {
    fn new(session: &'a LabelSession, annotator: String) -> Self {
        Self {
            session,
            annotator,
            item: None,
            was: None,
            since: Instant::now(),
            diff: false,
            keys: false,
            scroll: 0,
            status: String::new(),
            note: String::new(),
            writing: None,
            votes: 0,
            why: None,
            skipped: 0,
        }
    }

    fn run(&mut self, stop: &AtomicBool) -> Result<(), Failure> {
        self.advance().map_err(refused)?;
        let mut drawn = None;
        let mut looked = Instant::now();
        loop {
            let furthest = match drawn {
                Some(furthest) => furthest,
                None => self.draw().map_err(|e| broken(&e))?,
            };
            drawn = Some(furthest);
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if event::poll(TICK).map_err(|e| broken(&e))? {
                drawn = None;
                match event::read().map_err(|e| broken(&e))? {
                    Event::Key(key)
                        if key.kind != KeyEventKind::Release
                            && self.key(key, furthest) == Next::End =>
                    {
                        return Ok(());
                    }
                    _ => {}
                }
            } else if self.item.is_none() && looked.elapsed() > POLL {
                looked = Instant::now();
                drawn = None;
                self.attempt(Self::advance);
            }
        }
    }

    /// Tells what went wrong and goes on: nothing was changed.
    fn attempt(&mut self, act: impl FnOnce(&mut Self) -> Result<(), SessionError>) {
        if let Err(error) = act(self) {
            self.status = format!("{error}; {}", error.help());
        }
    }

    /// The next question.
    fn advance(&mut self) -> Result<(), SessionError> {
        let now = Timestamp::now();
        let next = self.session.next(&self.annotator, 1, now)?;
        self.item = match next.first() {
            Some((pair, repeat)) => Some(self.session.item(&self.annotator, pair, *repeat)?),
            None => None,
        };
        (self.why, self.skipped) = match self.item {
            Some(_) => (None, 0),
            None => (self.session.outlook(now)?.why(), self.session.skipped(&self.annotator, now)?),
        };
        self.votes = self.session.progress(&self.annotator, now)?.mine;
        self.since = Instant::now();
        (self.scroll, self.was) = (0, None);
        self.note.clear();
        Ok(())
    }

    fn vote(&mut self, pick: Pick) -> Result<(), SessionError> {
        let Some(item) = &self.item else { return Ok(()) };
        let vote = Submission {
            id: id()?,
            pairs: self.session.digest().to_owned(),
            pair: item.pair.clone(),
            repeat: item.repeat,
            pick,
            left: item.left,
            ms: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            note: self.note.trim().to_owned(),
        };
        self.session.vote(&self.annotator, &vote, Timestamp::now())?;
        self.status = format!("saved: {}", words(pick));
        self.advance()
    }

    fn ask_again(&mut self) -> Result<(), SessionError> {
        let pairs = self.session.ask_again(&self.annotator, Timestamp::now())?;
        self.status = format!("skipped pairs that are asked again: {pairs}");
        self.advance()
    }

    fn undo(&mut self) -> Result<(), SessionError> {
        let past = self.session.undo(&self.annotator, &id()?, None, Timestamp::now())?;
        self.advance()?;
        self.item = Some(self.session.item(&self.annotator, &past.pair, past.repeat)?);
        self.was = Some(past.pick);
        self.note = past.note;
        self.status = format!("taken back: {}", words(past.pick));
        Ok(())
    }

    fn key(&mut self, key: KeyEvent, furthest: usize) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Next::End } else { Next::Stay };
        }
        if self.writing.is_some() {
            self.write(key.code);
            return Next::Stay;
        }
        let shift = key.modifiers.contains(KeyModifiers::SHIFT);
        self.scroll = self.scroll.min(furthest);
        let page = size().map_or(20, |(_, rows)| usize::from(rows).saturating_sub(6).max(1));
        let pick = match key.code {
            KeyCode::Left if shift => Pick::LeftMuch,
            KeyCode::Right if shift => Pick::RightMuch,
            KeyCode::Left | KeyCode::Char('1') => Pick::Left,
            KeyCode::Right | KeyCode::Char('2') => Pick::Right,
            KeyCode::Char('!') => Pick::LeftMuch,
            KeyCode::Char('@' | '"') => Pick::RightMuch,
            KeyCode::Char('=') => Pick::Tie,
            KeyCode::Char('x' | 'X') => Pick::BothBad,
            KeyCode::Char('s' | 'S') => Pick::Skip,
            other => {
                match other {
                    KeyCode::Char('q' | 'Q') => return Next::End,
                    KeyCode::Esc => self.keys = false,
                    KeyCode::Char('u' | 'U') => self.attempt(Self::undo),
                    KeyCode::Char('a' | 'A') if self.item.is_none() => {
                        self.attempt(Self::ask_again);
                    }
                    KeyCode::Char('d' | 'D') => self.diff = !self.diff,
                    KeyCode::Char('?') => (self.keys, self.scroll) = (!self.keys, 0),
                    KeyCode::Char('/') if self.item.is_some() => {
                        self.writing = Some(self.note.clone());
                    }
                    KeyCode::Up => self.scroll = self.scroll.saturating_sub(1),
                    KeyCode::Down => self.scroll += 1,
                    KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(page),
                    KeyCode::PageDown | KeyCode::Char(' ') => self.scroll += page,
                    KeyCode::Home => self.scroll = 0,
                    KeyCode::End => self.scroll = furthest,
                    _ => {}
                }
                return Next::Stay;
            }
        };
        if !self.keys {
            self.attempt(|asking| asking.vote(pick));
        }
        Next::Stay
    }

    fn write(&mut self, code: KeyCode) {
        let Some(text) = &mut self.writing else { return };
        match code {
            KeyCode::Char(c) if text.chars().count() < LONGEST_NOTE => text.push(c),
            KeyCode::Backspace => {
                text.pop();
            }
            KeyCode::Enter => {
                self.note = self.writing.take().unwrap_or_default();
                self.status = "the note is saved with your choice".to_owned();
            }
            KeyCode::Esc => self.writing = None,
            _ => {}
        }
    }

    /// Draws everything; how far it can be scrolled.
    fn draw(&self) -> io::Result<usize> {
        let (width, height) = size()?;
        let assignment = self.session.assignment();
        let progress = self.session.progress(&self.annotator, Timestamp::now());
        let view = ScreenView {
            question: &assignment.people.question,
            progress: progress.map_or(String::new(), |p| {
                format!("{} of {} votes, {} by you", p.votes, p.goal, p.mine)
            }),
            item: self.item.as_ref(),
            was: self.was,
            diff: self.diff,
            keys: self.keys,
            scroll: self.scroll,
            status: &self.status,
            note: self.writing.as_deref(),
            why: self.why.as_deref(),
            skipped: self.skipped,
        };
        let (rows, furthest) = frame(&view, usize::from(width), usize::from(height));
        let mut out = io::BufWriter::new(io::stdout().lock());
        queue!(out, BeginSynchronizedUpdate)?;
        for (y, row) in (0u16..).zip(&rows) {
            queue!(out, cursor::MoveTo(0, y), Clear(ClearType::UntilNewLine))?;
            for (face, text) in row {
                let attribute = match face {
                    Emphasis::Plain => Attribute::Reset,
                    Emphasis::Strong => Attribute::Bold,
                    Emphasis::Dim => Attribute::Dim,
                    Emphasis::Changed => Attribute::Reverse,
                };
                queue!(out, SetAttribute(attribute), Print(text), SetAttribute(Attribute::Reset))?;
            }
        }
        queue!(out, EndSynchronizedUpdate)?;
        out.flush()?;
        Ok(furthest)
    }
}

/// Names a submission.
fn id() -> Result<String, SessionError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|_| SessionError::BadSubmission("the system has no random numbers"))?;
    Ok(const_hex::encode(bytes))
}
