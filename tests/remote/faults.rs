//! What networks and services do: every case ends in time, with words and a code, and the next try
//! goes on where this one stopped.

use std::time::{Duration, Instant};

use crate::proxy::{Fault, Proxy};
use crate::server::{self, Server};
use crate::team::{Member, SECRET, files_below, on, on_s3};

const MIB: u64 = 1 << 20;

/// Somebody who pushed, and a colleague behind a proxy who has nothing yet.
fn behind_a_proxy(bytes: u64) -> (Member, Member, Proxy) {
    let one = on_s3(bytes);
    one.does(&["push", "p.yaml"]);
    let proxy = Proxy::before(&server::shared().host());
    let two = one.colleague().by_way_of(&proxy);
    (one, two, proxy)
}

#[test]
fn a_transfer_that_is_cut_goes_on_from_there() {
    let (_one, two, proxy) = behind_a_proxy(40 * MIB);
    proxy.set(Fault::CutAfter(30 * MIB));
    let begun = Instant::now();
    two.preflow(&["pull", "p.yaml"]).is(4, "does not answer");
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    let kept = two.parts();
    assert!(kept >= 2 * MIB, "{kept}");
    two.does(&["verify"]);
    proxy.set(Fault::None);
    two.does(&["pull", "p.yaml"]);
    let most = 41 * MIB - kept;
    assert!(proxy.down() < most, "{} of at most {most}: {kept} were here", proxy.down());
    assert_eq!(two.ran(), "");
    two.is_sound();
}

#[test]
fn a_connection_that_is_cut_once_is_not_even_noticed() {
    let (_one, two, proxy) = behind_a_proxy(12 * MIB);
    proxy.set(Fault::CutOnce(5 * MIB));
    two.does(&["pull", "p.yaml"]);
    assert_eq!(two.ran(), "");
    two.is_sound();
}

#[test]
fn a_push_that_is_cut_leaves_no_record_and_the_next_one_ends_it() {
    let one = on_s3(24 * MIB);
    let proxy = Proxy::before(&server::shared().host());
    let one = one.by_way_of(&proxy);
    proxy.set(Fault::CutUpAfter(8 * MIB));
    one.preflow(&["push", "p.yaml", "big"]).is(4, "does not answer");
    proxy.set(Fault::None);
    let two = one.colleague();
    two.preflow(&["pull", "p.yaml", "big"]).is(1, "not on the remote: big");
    one.does(&["push", "p.yaml"]);
    two.does(&["pull", "p.yaml"]);
    assert_eq!(two.ran(), "");
    two.is_sound();
}

#[test]
fn a_service_that_says_nothing_is_given_up() {
    let (_one, two, proxy) = behind_a_proxy(12 * MIB);
    for most in [0, 6 * MIB] {
        proxy.set(Fault::StallAfter(most));
        let begun = Instant::now();
        let mut command = two.command(&["pull", "p.yaml"]);
        let output = command.env("PREFLOW_REMOTE_TIMEOUT", "0.5").output().expect("ends");
        crate::team::Said::of(&output).is(4, "nothing moved for 0.5 s");
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }
    proxy.set(Fault::None);
    two.does(&["pull", "p.yaml"]);
    assert_eq!(two.ran(), "");
}

#[test]
fn a_slow_service_is_waited_for_while_something_comes() {
    let (_one, two, proxy) = behind_a_proxy(300_000);
    proxy.set(Fault::Slow(Duration::from_millis(120)));
    let mut command = two.command(&["pull", "p.yaml"]);
    let begun = Instant::now();
    let output = command.env("PREFLOW_REMOTE_TIMEOUT", "1").output().expect("ends");
    crate::team::Said::of(&output).is(0, "pulled 4 stages");
    assert!(begun.elapsed() > Duration::from_secs(1), "longer than nothing may come");
}

#[test]
fn other_bytes_are_never_seen_and_the_rest_is_fetched() {
    let (one, two, proxy) = behind_a_proxy(12 * MIB);
    proxy.set(Fault::FlipAt(7 * MIB));
    two.preflow(&["pull", "p.yaml"]).is(1, "the remote holds other bytes for file");
    two.does(&["verify"]);
    assert_eq!(two.parts(), 0, "what is wrong is not kept");
    proxy.set(Fault::None);
    let (pulled, code) = two.json(&["pull", "p.yaml"]);
    assert_eq!((code, pulled["here"].as_u64()), (Some(0), Some(3)), "{pulled}");
    assert_eq!(two.ran(), "");
    two.is_sound();
    drop(one);
}

#[test]
fn a_busy_service_is_asked_again_but_not_for_ever() {
    let (_one, two, proxy) = behind_a_proxy(1000);
    for (status, code) in [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")] {
        proxy.set(Fault::Answer(status, code, 2));
        two.does(&["pull", "p.yaml"]);
        assert_eq!(proxy.answered(), 2);
        std::fs::remove_dir_all(two.path("cache")).expect("removed");
    }
    proxy.set(Fault::Answer(503, "SlowDown", 1000));
    let begun = Instant::now();
    two.preflow(&["pull", "p.yaml"]).is(4, "does not answer: status 503 (SlowDown)");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn who_is_refused_hears_it_at_once() {
    let (_one, two, proxy) = behind_a_proxy(1000);
    proxy.set(Fault::Answer(403, "SignatureDoesNotMatch", 1000));
    for verb in ["pull", "push"] {
        two.ran();
        std::fs::remove_dir_all(two.path("cache/entries-v1")).expect("removed");
        let begun = Instant::now();
        let before = proxy.answered();
        if verb == "push" {
            two.ran();
        }
        let said = two.preflow(&[verb, "p.yaml"]);
        said.is(4, "refuses: 403 forbidden (SignatureDoesNotMatch)");
        assert!(said.err.contains("AWS_SECRET_ACCESS_KEY"), "{}", said.err);
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        assert!(proxy.answered() - before <= 8, "no request is repeated");
    }
}

#[test]
fn a_bucket_that_is_not_there_is_named() {
    // Always this server: s3s-fs makes buckets as they are asked for.
    let own = Server::moto();
    let one = on(&own, 1000);
    for verb in ["pull", "push", "doctor"] {
        let mut command = one.command(&[verb, "p.yaml"][..if verb == "doctor" { 1 } else { 2 }]);
        if verb == "pull" {
            std::fs::remove_dir_all(one.path("cache/entries-v1")).expect("removed");
        }
        let output =
            command.env("PREFLOW_REMOTE", "s3://no-such-bucket-here").output().expect("ends");
        let said = crate::team::Said::of(&output);
        assert!(said.code == Some(4) || verb == "doctor", "{}{}", said.out, said.err);
        let text = format!("{}{}", said.out, said.err);
        assert!(text.contains("no such bucket (NoSuchBucket)"), "{text}");
        one.ran();
    }
}

#[test]
fn nobody_there_is_told_soon() {
    let one = on_s3(1000);
    let port = server::free_port();
    let mut command = one.command(&["push", "p.yaml"]);
    let begun = Instant::now();
    let output = command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")).output();
    let said = crate::team::Said::of(&output.expect("ends"));
    said.is(4, "does not answer: no connection: ");
    assert!(said.err.contains("--remote none"), "{}", said.err);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn a_certificate_counts_only_where_somebody_vouches_for_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    let mut command = std::process::Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout"]);
    command.arg(&key).arg("-out").arg(&certificate).args(["-subj", "/CN=test"]);
    command.args(["-addext", "subjectAltName=IP:127.0.0.1"]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    let made = command.output().expect("openssl starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let own = Server::with_certificate(&certificate, &key);
    let one = Member::at("s3://bucket", Some(&own.address), 1000);
    one.ran();
    one.preflow(&["push", "p.yaml"]).is(4, "no connection: invalid peer certificate");
    let mut command = one.command(&["push", "p.yaml"]);
    let output = command.env("SSL_CERT_FILE", &certificate).output().expect("ends");
    // Nobody made a bucket: that the server says so is all that is wanted here.
    crate::team::Said::of(&output).is(4, "no such bucket");
}

#[test]
fn a_server_that_dies_in_the_middle_is_told_and_nothing_is_lost() {
    let mut own = Server::moto();
    let one = on(&own, 40 * MIB);
    one.does(&["push", "p.yaml"]);
    let proxy = Proxy::before(&own.host());
    let two = one.colleague().by_way_of(&proxy);
    proxy.set(Fault::Slow(Duration::from_millis(2)));
    let child = two
        .command(&["pull", "p.yaml"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    let begun = std::time::Instant::now();
    while proxy.down() < 12 * MIB {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} bytes came", proxy.down());
        std::thread::sleep(Duration::from_millis(10));
    }
    own.stop();
    let said = crate::team::Said::of(&child.wait_with_output().expect("ends"));
    said.is(4, "does not answer");
    two.does(&["verify"]);
    assert_eq!(two.preflow(&["run", "p.yaml"]).code, Some(0), "work goes on without it");
}

#[test]
fn secrets_are_written_nowhere() {
    let (one, two, proxy) = behind_a_proxy(1000);
    two.does(&["pull", "p.yaml"]);
    proxy.set(Fault::Answer(403, "InvalidAccessKeyId", 1000));
    let refused = two.preflow(&["push", "p.yaml", "--force", "-v"]);
    assert_eq!(refused.code, Some(4));
    let texts = [refused.out, refused.err, two.preflow(&["doctor"]).out];
    assert!(texts.iter().all(|text| !text.contains("canary")), "{texts:?}");
    for member in [&one, &two] {
        let files = files_below(&member.path("")).into_iter();
        for file in files.filter(|file| !file.is_symlink()) {
            let bytes = std::fs::read(&file).expect("read");
            let secret = SECRET.as_bytes();
            assert!(bytes.windows(secret.len()).all(|w| w != secret), "{}", file.display());
        }
    }
}
