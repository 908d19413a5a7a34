//! A page is opened where there is a display; where there is none, that is said.

use std::os::unix::fs::PermissionsExt as _;

use crate::space::{Said, Space};

/// `preflow report p.yaml --open` with these programs first on PATH.
fn report(space: &Space, display: Option<&str>) -> Said {
    let mut command = space.command(&["report", "p.yaml", "--open"]);
    command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY").env("PATH", space.path("bin"));
    command.envs(display.map(|d| ("DISPLAY", d)));
    Said::of(&command.output().expect("starts"), &space.path(""))
}

fn opener(space: &Space, script: &str) {
    for name in ["xdg-open", "open"] {
        let name = format!("bin/{name}");
        space.write(&name, &format!("#!/bin/sh\n{script}\n"));
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(space.path(&name), mode).expect("own file");
    }
}

#[test]
fn a_report_is_opened_when_there_is_a_display() {
    let space = Space::chain();
    let shown = space.path("shown.txt");
    opener(&space, &format!("echo \"$1\" > {}", shown.display()));
    let said = report(&space, Some(":0"));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert_eq!(space.read("shown.txt").trim(), space.path("report.html").to_string_lossy());
    opener(&space, "exit 3");
    let said = report(&space, Some(":0"));
    assert_eq!(said.code, Some(0), "the report is there all the same");
    assert!(said.err.contains("note: not opened: `"), "{}", said.err);
    assert!(said.err.contains("exit status: 3"), "{}", said.err);
}

#[cfg(not(target_os = "macos"))]
#[test]
fn without_a_display_nothing_is_started() {
    let space = Space::chain();
    let shown = space.path("shown.txt");
    opener(&space, &format!("echo > {}", shown.display()));
    let said = report(&space, None);
    assert_eq!(
        (said.code, said.err.as_str()),
        (Some(0), "note: not opened: there is no display here\n")
    );
    assert!(!shown.exists() && space.path("report.html").exists());
}
