//! `preflow label ask` on a terminal: keys become votes, and the terminal is given back as it was,
//! however the labeller ends.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use preflow::votes::{Choice, Folder};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::support::Workspace;

/// Both ends of a terminal: that of the window, and that of programs.
fn terminal(columns: u16, rows: u16) -> (OwnedFd, OwnedFd) {
    let main =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&main).expect("granted");
    unlockpt(&main).expect("unlocked");
    let name = ptsname(&main, Vec::new()).expect("a name");
    let side =
        rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
    let side = side.expect("the other side");
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&side, size).expect("sized");
    (main, side)
}

/// `preflow label ask` at that end.
fn ask(workspace: &Workspace, side: &OwnedFd) -> Command {
    let copy = || Stdio::from(side.try_clone().expect("a copy"));
    let mut command =
        workspace.command(&["label", "ask", "demo.yaml", "labels", "--annotator", "ann"]);
    command.stdin(copy()).stdout(copy()).stderr(copy()).env("TERM", "xterm-256color");
    command
}

/// A terminal with somebody before it.
struct Terminal {
    side: OwnedFd,
    keys: File,
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(workspace: &Workspace, columns: u16, rows: u16) -> Self {
        let (main, side) = terminal(columns, rows);
        let mut command = ask(workspace, &side);
        let child = command.spawn().expect("started");
        let said = Arc::new(Mutex::new(Vec::new()));
        let (mut from, into) = (File::from(main.try_clone().expect("a copy")), Arc::clone(&said));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                into.lock().expect("held").extend_from_slice(&buffer[..n]);
            }
        });
        Self { side, keys: File::from(main), child, said }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().expect("held")).into_owned()
    }

    /// Waits until this was written that often since the start.
    fn wait(&self, text: &str, times: usize) {
        let start = Instant::now();
        while self.said().matches(text).count() < times {
            let said = self.said();
            assert!(start.elapsed() < Duration::from_secs(10), "never {times} × {text}: {said:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).expect("pressed");
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(self.side.as_fd()).expect("known").local_modes.contains(LocalModes::ICANON)
    }

    /// How it ended; the terminal is as it was.
    fn end(mut self) -> Option<i32> {
        let start = Instant::now();
        while self.child.try_wait().expect("a child").is_none() {
            assert!(start.elapsed() < Duration::from_secs(5), "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let status = self.child.wait().expect("ended");
        self.wait("\u{1b}[?1049l", 1);
        self.wait("\u{1b}[?25h", 1);
        assert!(!self.is_raw(), "the terminal is left raw");
        status.code()
    }
}

/// Some pairs whose texts try to control the terminal.
fn workspace() -> Workspace {
    let pairs: Vec<[String; 3]> = (0..6)
        .map(|i| {
            let answer = |n: &str| format!("\u{1b}[2J{n}\u{202e}\u{7} answer {i}");
            [format!("Question {i}"), answer("an"), answer("bn")]
        })
        .collect();
    Workspace::new(&pairs, "", 0)
}

fn choices(workspace: &Workspace) -> Vec<Choice> {
    let folder = Folder::read(&workspace.path("votes")).expect("readable");
    folder.latest("ann").into_values().map(|vote| vote.choice).collect()
}

#[test]
fn a_terminal_that_is_gone_ends_the_labeller() {
    let workspace = workspace();
    let (main, side) = terminal(80, 24);
    let mut child = ask(&workspace, &side).spawn().expect("started");
    let start = Instant::now();
    let mut said = Vec::new();
    let mut from = File::from(main);
    while !String::from_utf8_lossy(&said).contains("of 6 votes") {
        assert!(start.elapsed() < Duration::from_secs(10), "it shows nothing");
        let mut buffer = [0; 4096];
        let n = from.read(&mut buffer).expect("read");
        said.extend_from_slice(&buffer[..n]);
    }
    // Its window closes; nobody sends a signal.
    drop((from, side));
    while child.try_wait().expect("a child").is_none() {
        if start.elapsed() > Duration::from_secs(20) {
            child.kill().expect("ended");
            panic!("it goes on without a terminal");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn keys_become_votes_and_undo_takes_them_back() {
    let workspace = workspace();
    for (columns, rows) in [(80, 24), (40, 20)] {
        let _ = std::fs::remove_dir_all(workspace.path("votes"));
        let mut terminal = Terminal::start(&workspace, columns, rows);
        terminal.wait("0 of 6 votes", 1);
        assert!(terminal.is_raw());
        terminal.wait("⟨202E⟩␇ answer", 2);
        terminal.press(b"=");
        terminal.wait("saved: a tie", 1);
        terminal.press(b"x");
        terminal.wait("saved: both are bad", 1);
        terminal.press(b"u");
        terminal.wait("taken back: both are bad", 1);
        terminal.press(b"/q s\r");
        terminal.wait("the note is saved with your choice", 1);
        terminal.press(b"\x1b[1;2D"); // shift and the arrow to the left
        terminal.wait("saved: 1 is much better", 1);
        terminal.press(b"q");
        let said = terminal.said();
        assert_eq!(terminal.end(), Some(0));
        let choices = choices(&workspace);
        assert_eq!(choices.len(), 2);
        assert!(choices.contains(&Choice::Tie));
        assert!(choices.contains(&Choice::AMuch) || choices.contains(&Choice::BMuch));
        let text = std::fs::read_to_string(workspace.path("votes/ann.jsonl")).expect("readable");
        assert!(text.lines().last().expect("a line").contains("\"note\":\"q s\""));
        // What a model wrote never reaches the terminal as it is.
        for hostile in ["\u{1b}[2J", "\u{202e}", "\u{7}"] {
            assert!(!said.contains(hostile), "{hostile:?}");
        }
    }
}

#[test]
fn reasons_are_marked_by_keys_and_guidelines_stand_in_place_of_the_question() {
    let settings = "        guidelines: how.md\n        reasons: [wrong facts, rude]";
    let workspace = Workspace::new(&super::support::numbered(3), settings, 0);
    std::fs::write(workspace.path("how.md"), "Facts first.\u{1b}[2J\n").expect("written");
    let mut terminal = Terminal::start(&workspace, 80, 24);
    terminal.wait("3 ○ wrong facts", 1);
    terminal.wait("4 ○ rude", 1);
    terminal.press(b"g");
    terminal.wait("Facts first.␛[2J", 1);
    // Nothing is chosen while they are shown.
    terminal.press(b"1g");
    terminal.press(b"4");
    terminal.wait("4 ● rude", 1);
    terminal.press(b"1");
    terminal.wait("saved: 1 is better", 1);
    terminal.press(b"u");
    terminal.wait("4 ● rude", 2);
    terminal.press(b"3");
    terminal.press(b"=");
    terminal.wait("saved: a tie", 1);
    terminal.press(b"q");
    assert_eq!(terminal.end(), Some(0));
    let folder = Folder::read(&workspace.path("votes")).expect("readable");
    let reasons: Vec<_> = folder.votes["ann"].iter().map(|v| v.reasons.join(", ")).collect();
    assert_eq!(reasons, ["rude", "", "rude, wrong facts"]);
}

#[test]
fn the_terminal_is_given_back_whatever_ends_the_labeller() {
    use rustix::process::{Pid, Signal, kill_process};
    let workspace = workspace();
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let terminal = Terminal::start(&workspace, 80, 24);
        terminal.wait("of 6 votes", 1);
        kill_process(Pid::from_child(&terminal.child), signal).expect("sent");
        assert_eq!(terminal.end(), Some(130));
    }
    let mut terminal = Terminal::start(&workspace, 80, 24);
    terminal.wait("of 6 votes", 1);
    terminal.press(b"\x03");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn without_a_terminal_it_says_so() {
    let workspace = workspace();
    let mut command = workspace.command(&["label", "ask", "demo.yaml", "labels"]);
    let output = command.stdin(Stdio::null()).output().expect("ran");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("needs a terminal") && said.contains("label serve"), "{said}");
}
