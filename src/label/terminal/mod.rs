//! Labelling in a terminal: one annotator, the same questions as on the page.
//! Decides nothing about votes; a label session does.

mod screen;

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{cursor, execute, queue};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::exchange::plain;
use super::session::LONGEST_NOTE;
use super::{Item, LabelSession, Pick, SessionError, Submission};
use crate::text::{Shown, mark_changes};
use screen::{Aside, Emphasis, ScreenView, frame, words};

/// Between two looks at signals, and at what others did when nothing is left.
const TICK: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_secs(2);
/// Characters of a text that are shown.
const LONGEST: usize = 20_000;

/// Why somebody cannot go on labelling in a terminal.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    #[error("the terminal does not work: {0}")]
    Terminal(#[from] io::Error),
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Waits until the terminal has something to say, but no longer than that. False: it is gone, and
/// whoever asks it for more would wait for ever.
fn is_there(longest: Duration) -> io::Result<bool> {
    let stdin = io::stdin();
    let mut asked = [PollFd::new(&stdin, PollFlags::IN)];
    let longest = Timespec::try_from(longest).expect("invariant: a short time");
    match poll(&mut asked, Some(&longest)) {
        Ok(_) => {}
        // The size may have changed.
        Err(Errno::INTR) => return Ok(true),
        Err(error) => return Err(error.into()),
    }
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    Ok(!asked[0].revents().intersects(gone))
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

/// The texts of a question, fit for a terminal.
#[derive(Debug, Default)]
pub struct Shows {
    prompt: Shown,
    one: Shown,
    other: Shown,
}

impl Shows {
    fn of(prompt: &str, one: &str, other: &str) -> Self {
        let [prompt, mut one, mut other] =
            [prompt, one, other].map(|text| Shown::of(&plain(text), LONGEST));
        mark_changes(&mut one, &mut other);
        Self { prompt, one, other }
    }
}

/// One annotator at work.
pub struct TerminalLabeler<'a> {
    session: &'a LabelSession,
    annotator: String,
    item: Option<Item>,
    shows: Option<Shows>,
    was: Option<Pick>,
    since: Instant,
    diff: bool,
    aside: Option<Aside>,
    scroll: usize,
    status: String,
    note: String,
    /// Reasons that are marked.
    reasons: Vec<String>,
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

impl<'a> TerminalLabeler<'a> {
    #[must_use]
    pub fn new(session: &'a LabelSession, annotator: String) -> Self {
        Self {
            session,
            annotator,
            item: None,
            shows: None,
            was: None,
            since: Instant::now(),
            diff: false,
            aside: None,
            scroll: 0,
            status: String::new(),
            note: String::new(),
            reasons: Vec::new(),
            writing: None,
            votes: 0,
            why: None,
            skipped: 0,
        }
    }

    /// Whose votes these are.
    #[must_use]
    pub fn annotator(&self) -> &str {
        &self.annotator
    }

    /// Votes of this annotator, those of earlier sittings included.
    #[must_use]
    pub fn votes(&self) -> u64 {
        self.votes
    }

    /// Takes the terminal and asks until the annotator ends it, or `stop` is set.
    ///
    /// # Errors
    /// The terminal does not work, or votes cannot be read.
    pub fn run(&mut self, stop: &AtomicBool) -> Result<(), TerminalError> {
        let _screen = Screen::take()?;
        self.advance()?;
        let mut drawn = None;
        let mut looked = Instant::now();
        loop {
            let furthest = match drawn {
                Some(furthest) => furthest,
                None => self.draw()?,
            };
            drawn = Some(furthest);
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if !is_there(TICK)? {
                return Ok(());
            }
            if event::poll(Duration::ZERO)? {
                drawn = None;
                match event::read()? {
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

    fn ask(&mut self, item: Option<Item>) {
        self.shows = item.as_ref().map(|item| Shows::of(&item.prompt, &item.one, &item.other));
        self.item = item;
    }

    /// The next question.
    fn advance(&mut self) -> Result<(), SessionError> {
        let now = Timestamp::now();
        let next = self.session.next(&self.annotator, 1, now)?;
        let item =
            next.first().map(|(pair, repeat)| self.session.item(&self.annotator, pair, *repeat));
        self.ask(item.transpose()?);
        (self.why, self.skipped) = match self.item {
            Some(_) => (None, 0),
            None => (self.session.outlook(now)?.why(), self.session.skipped(&self.annotator, now)?),
        };
        self.votes = self.session.progress(&self.annotator, now)?.mine;
        self.since = Instant::now();
        (self.scroll, self.was) = (0, None);
        self.note.clear();
        self.reasons.clear();
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
            reasons: self.reasons.clone(),
        };
        self.session.vote(&self.annotator, &vote, Timestamp::now())?;
        self.status = format!("saved: {}", words(pick));
        self.advance()
    }

    /// Asks again what this annotator skipped, as far as it lacks votes.
    ///
    /// # Errors
    /// Votes cannot be read or written.
    pub fn ask_again(&mut self) -> Result<(), SessionError> {
        let pairs = self.session.ask_again(&self.annotator, Timestamp::now())?;
        self.status = format!("skipped pairs that are asked again: {pairs}");
        self.advance()
    }

    fn undo(&mut self) -> Result<(), SessionError> {
        let past = self.session.undo(&self.annotator, &id()?, None, Timestamp::now())?;
        self.advance()?;
        self.ask(Some(self.session.item(&self.annotator, &past.pair, past.repeat)?));
        self.was = Some(past.pick);
        self.note = past.note;
        self.reasons = past.reasons;
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
                    KeyCode::Esc => self.aside = None,
                    KeyCode::Char('u' | 'U') => self.attempt(Self::undo),
                    KeyCode::Char('a' | 'A') if self.item.is_none() => {
                        self.attempt(Self::ask_again);
                    }
                    KeyCode::Char('d' | 'D') => self.diff = !self.diff,
                    KeyCode::Char('?') => self.toggle(Aside::Keys),
                    KeyCode::Char('g' | 'G') => self.toggle(Aside::Guidelines),
                    KeyCode::Char(key @ '3'..='9') => self.mark(key),
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
        if self.aside.is_none() {
            self.attempt(|asking| asking.vote(pick));
        }
        Next::Stay
    }

    /// Shows something in place of the question, or the question again.
    fn toggle(&mut self, aside: Aside) {
        let none = self.session.assignment().guidelines.is_none();
        if aside == Aside::Guidelines && none {
            self.status = "this stage has no guidelines".to_owned();
            return;
        }
        self.aside = if self.aside == Some(aside) { None } else { Some(aside) };
        self.scroll = 0;
    }

    /// Marks a reason by its key, or unmarks it.
    fn mark(&mut self, key: char) {
        let place = (key as usize).saturating_sub('3' as usize);
        let offered = &self.session.assignment().people.reasons;
        let Some(reason) = offered.get(place).filter(|_| self.item.is_some()) else { return };
        match self.reasons.iter().position(|marked| marked == reason) {
            Some(at) => drop(self.reasons.remove(at)),
            None => self.reasons.push(reason.clone()),
        }
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
            item: self.shows.as_ref(),
            was: self.was,
            diff: self.diff,
            aside: self.aside,
            guidelines: assignment.guidelines.as_deref().unwrap_or_default(),
            reasons: &assignment.people.reasons,
            marked: &self.reasons,
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
