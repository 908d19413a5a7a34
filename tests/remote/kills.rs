//! Death and a full disk in the middle of a transfer, and Ctrl-C: what came is kept.

use std::process::Stdio;
use std::time::Duration;

use crate::proxy::{Fault, Proxy};
use crate::server;
use crate::team::{Member, Said, on_s3};

const MIB: u64 = 1 << 20;

fn slow_colleague(bytes: u64) -> (Member, Member, Proxy) {
    let one = on_s3(bytes);
    one.does(&["push", "p.yaml"]);
    let proxy = Proxy::before(&server::shared().host());
    proxy.set(Fault::Slow(Duration::from_millis(2)));
    let two = one.colleague().by_way_of(&proxy);
    (one, two, proxy)
}

fn wait_until(moved: impl Fn() -> u64, bytes: u64) {
    let begun = std::time::Instant::now();
    while moved() < bytes {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} bytes of {bytes}", moved());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_pull_that_is_killed_goes_on_from_there() {
    let (_one, two, proxy) = slow_colleague(40 * MIB);
    let mut child = two.command(&["pull", "p.yaml", "-q"]).spawn().expect("starts");
    wait_until(|| two.parts(), 8 * MIB);
    child.kill().expect("killed");
    child.wait().expect("ended");
    let kept = two.parts();
    two.does(&["verify"]);
    proxy.set(Fault::None);
    two.does(&["pull", "p.yaml"]);
    assert!(proxy.down() < 41 * MIB - kept, "{} were fetched, {kept} were here", proxy.down());
    assert_eq!(two.ran(), "");
    // What a killed process left besides is swept with the rest.
    two.does(&["gc", "--yes"]);
    two.is_sound();
}

#[test]
fn a_push_that_is_killed_leaves_nothing_that_looks_whole() {
    let one = on_s3(40 * MIB);
    let proxy = Proxy::before(&server::shared().host());
    let two = one.colleague();
    let one = one.by_way_of(&proxy);
    for bytes in [MIB, 20 * MIB] {
        proxy.set(Fault::None);
        let mut child = one.command(&["push", "p.yaml", "-q"]).spawn().expect("starts");
        wait_until(|| proxy.up(), bytes);
        child.kill().expect("killed");
        child.wait().expect("ended");
        let (pulled, _) = two.json(&["pull", "p.yaml"]);
        assert_eq!(pulled["failed"], 0, "{pulled}");
        two.does(&["verify"]);
    }
    one.does(&["push", "p.yaml"]);
    two.does(&["pull", "p.yaml"]);
    assert_eq!(two.ran(), "");
    two.is_sound();
}

#[test]
fn ctrl_c_keeps_what_came() {
    let (_one, two, proxy) = slow_colleague(40 * MIB);
    let mut command = two.command(&["pull", "p.yaml"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    wait_until(|| two.parts(), 8 * MIB);
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("as it was made"))
        .expect("as it was made");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signalled");
    let said = Said::of(&child.wait_with_output().expect("ends"));
    said.is(130, "`preflow pull p.yaml` goes on from there");
    let kept = two.parts();
    assert!(kept >= 8 * MIB, "{kept}");
    proxy.set(Fault::None);
    two.does(&["pull", "p.yaml"]);
    assert!(proxy.down() < 41 * MIB - kept);
    assert_eq!(two.ran(), "");
}

#[test]
fn a_disk_that_fills_up_is_named_and_what_came_is_kept() {
    let (_one, two, proxy) = slow_colleague(24 * MIB);
    proxy.set(Fault::CutAfter(20 * MIB));
    assert_eq!(two.preflow(&["pull", "p.yaml"]).code, Some(4));
    let kept = two.parts();
    assert!(kept > 0);
    proxy.set(Fault::None);
    let lock = std::fs::read_to_string(two.path("p.lock")).expect("as it was made");
    let big = lock.split("[big]").nth(1).expect("as it was made");
    let digest =
        big.lines().find_map(|l| l.strip_prefix("output.o = sha256:")).expect("as it was made");
    let part = two.path(&format!("cache/scratch-v1/fetch-{digest}.part")).display().to_string();
    // The kernel says that the disk is full to whoever goes on writing this file.
    let by = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", &part];
    let by = [&by[..], &["-e", "trace=write", "-e", "inject=write:error=ENOSPC"]].concat();
    let full = Said::of(&two.wrapped(&by, &["pull", "p.yaml"]).output().expect("strace starts"));
    full.is(4, "not enough space at ");
    assert!(full.err.contains(" bytes are needed, "), "{}", full.err);
    assert!(full.err.contains("preflow gc"), "{}", full.err);
    assert_eq!(two.parts(), kept);
    two.does(&["verify"]);
    proxy.set(Fault::None);
    two.does(&["pull", "p.yaml"]);
    assert!(proxy.down() < 25 * MIB - kept, "{}", proxy.down());
    assert_eq!(two.ran(), "");
    two.is_sound();
}

#[test]
fn a_disk_that_is_too_small_is_found_before_anything_is_fetched() {
    let (_one, two, proxy) = slow_colleague(24 * MIB);
    proxy.set(Fault::None);
    std::fs::create_dir(two.path("disk")).expect("mkdir");
    let disk = two.path("disk").display().to_string();
    let mount = |args: &[&str]| {
        let done = std::process::Command::new(args[0]).args(&args[1..]).output();
        done.is_ok_and(|d| d.status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", &disk]) {
        eprintln!("no disk of its own could be mounted: only root can");
        return;
    }
    let cache = two.path("disk/cache").display().to_string();
    let full = two.preflow(&["pull", "p.yaml", "--cache", &cache]);
    assert!(mount(&["umount", &disk]), "unmounted");
    full.is(4, "not enough space at ");
    assert!(proxy.down() < MIB, "{}", proxy.down());
}
