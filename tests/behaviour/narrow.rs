//! What is printed fits the terminal that it is printed to, and is whole where there is none.

use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::space::{CHAIN, Space};

/// What a command prints to a terminal of so many columns.
fn on_terminal(space: &Space, columns: u16, args: &[&str]) -> String {
    let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&main).expect("granted");
    unlockpt(&main).expect("unlocked");
    let name = ptsname(&main, Vec::new()).expect("a name");
    let side = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty());
    let side = side.expect("the other side");
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&side, size).expect("sized");
    let reader = std::thread::spawn(move || {
        let (mut main, mut said, mut buffer) = (File::from(main), Vec::new(), [0; 4096]);
        // The other side hangs up when its last holder is gone.
        while let Ok(n @ 1..) = main.read(&mut buffer) {
            said.extend_from_slice(&buffer[..n]);
        }
        said
    });
    let mut child = space.command(args).stdout(Stdio::from(side)).spawn().expect("starts");
    assert!(child.wait().expect("ends").success(), "{args:?}");
    String::from_utf8(reader.join().expect("read")).expect("UTF-8").replace('\r', "")
}

#[test]
fn tables_fit_terminals_from_sixty_columns_up() {
    let space = Space::empty();
    let long = CHAIN.replace("side:", "a-stage-with-a-name-of-some-length:");
    space.write("p.yaml", &long);
    space.write("src.txt", "text\n");
    assert_eq!(space.preflow(&["run", "p.yaml", "-q", "a"]).code, Some(0));
    let changed = "p=another value, long enough that it must be folded somewhere";
    let commands: [&[&str]; 7] = [
        &["plan", "p.yaml", "--set", changed],
        &["status", "p.yaml", "--set", changed],
        &["why", "p.yaml", "c", "--set", changed],
        &["runs"],
        &["kinds"],
        &["kinds", "command"],
        &["diff", "last", "--file", "p.yaml", "--set", changed],
    ];
    for args in commands {
        let whole = space.preflow(args).out;
        let words = |text: &str| {
            let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            words.sort();
            words.dedup();
            words
        };
        for columns in [60, 80, 100] {
            let said = on_terminal(&space, columns, args);
            let widest = said.lines().map(|line| line.chars().count()).max().unwrap_or(0);
            assert!(widest <= usize::from(columns), "{args:?} is {widest} wide:\n{said}");
            if args != ["runs"] {
                assert_eq!(words(&said), words(&whole), "no word is broken or lost:\n{said}");
            }
        }
    }
}
