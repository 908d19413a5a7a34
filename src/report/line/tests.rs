//! Every event of a run, as the line that it becomes.

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::*;

/// A run in which everything happens.
fn events() -> Vec<RunEvent> {
    let fingerprint = "0".repeat(64);
    let failed = |outcome: Value, retrying: bool, again: &str| {
        json!({"event": "stage_failed", "stage": "sft", "outcome": outcome, "retrying": retrying,
            "log": "cache/logs/sft/log.txt", "again": again, "storage": false})
    };
    let unmet = |found: Value| {
        json!([{"condition": {"figure": "eval/loss", "comparison": "<=", "bound": 2.0},
            "found": found}])
    };
    let all = json!([
        {"event": "run_started", "run": "r", "at": "2026-01-01T00:00:00Z", "pipeline": "p.yaml",
            "name": "p", "command": [], "version": "0", "stages": ["base", "sft", "evaluate"],
            "jobs": 1},
        {"event": "stage_reused", "stage": "base", "fingerprint": fingerprint},
        {"event": "fetching", "stage": "base"},
        {"event": "stage_fetched", "stage": "base", "fingerprint": fingerprint, "files": 3,
            "bytes": 5000},
        {"event": "remote_trouble", "message": "no\u{200b} way", "help": "ask", "lasting": true},
        {"event": "remote_trouble", "stage": "sft", "message": "slow", "lasting": false},
        {"event": "stage_busy", "stage": "sft"},
        {"event": "stage_busy", "stage": "sft"},
        {"event": "stage_started", "stage": "sft", "fingerprint": fingerprint, "attempt": 1,
            "reason": {"reason": "never_run"}},
        {"event": "stage_started", "stage": "sft", "fingerprint": fingerprint, "attempt": 2,
            "reason": {"reason": "forced"}},
        {"event": "progress", "stage": "sft", "done": 1, "total": 9, "unit": "steps"},
        {"event": "metric", "stage": "sft", "step": 1, "values": {"train/loss": 2.5}},
        {"event": "note", "stage": "sft", "level": "warn", "text": "a\u{1b}[2J warning"},
        {"event": "note", "stage": "sft", "level": "info", "text": "a note"},
        {"event": "note", "stage": "sft", "level": "detail", "text": "a detail"},
        {"event": "stage_done", "stage": "sft", "fingerprint": fingerprint, "seconds": 70.0,
            "outputs": {}, "summary": {"train/loss": 2.5, "loss": 1.0}, "unchanged": true},
        {"event": "stage_done", "stage": "sft", "fingerprint": fingerprint, "seconds": 1.0,
            "outputs": {}, "summary": {}, "unchanged": false},
        failed(json!({"outcome": "failed", "message": "no", "chain": ["x"], "help": "y"}), true,
            "preflow run again"),
        failed(json!({"outcome": "crashed", "how": "signal 9", "tail": "a\nb", "help": null}), false,
            ""),
        failed(json!({"outcome": "timed_out", "seconds": 60.0, "tail": ""}), false, ""),
        {"event": "stage_waiting", "stage": "sft", "reason": "3 votes", "have": 1, "need": 3,
            "remedy": "preflow label serve"},
        {"event": "stage_blocked", "stage": "evaluate", "by": "sft"},
        {"event": "gate_unmet", "stage": "sft", "unmet": unmet(json!({"value": 3.0})),
            "accepted": false},
        {"event": "gate_unmet", "stage": "sft", "unmet": unmet(json!({"value": 3.0})),
            "accepted": true},
        {"event": "gate_unmet", "stage": "sft", "unmet": unmet(json!({"unknown": ["loss"]})),
            "accepted": false},
        {"event": "sending", "entries": 2, "done": 1000, "total": 5000},
        {"event": "sending", "entries": 0, "done": 0, "total": 0},
        {"event": "sent", "entries": 2, "files": 4, "bytes": 5000, "waiting": 0},
        {"event": "sent", "entries": 1, "files": 1, "bytes": 5, "waiting": 2},
        {"event": "interrupted", "times": 1},
        {"event": "interrupted", "times": 2},
        {"event": "run_ended", "totals": {"done": 2, "failed": 1}, "seconds": 3.0, "exit": 1},
        {"event": "run_ended", "totals": {"reused": 3}, "seconds": 0.1, "exit": 0},
        {"event": "run_ended", "totals": {"skipped": 3}, "seconds": 0.1, "exit": 130},
    ]);
    let all = all.as_array().expect("a list").clone();
    all.into_iter().map(|event| serde_json::from_value(event).expect("an event")).collect()
}

/// All lines, loud ones behind a `!`, those that bars tell behind a `-`.
fn lines(look: OutputStyle) -> String {
    let names = vec!["train/loss".to_owned()];
    let mut lines = RunLines::new(look, LiveMetrics::from([("sft".to_owned(), names)]));
    let mut all = String::new();
    for event in events() {
        let Some(line) = lines.hear(&event).line else { continue };
        let sign = match (line.loud, line.on_bar) {
            (true, _) => '!',
            (_, true) => '-',
            _ => '.',
        };
        all.push_str(&format!("{sign}{}\n", lines.text(&line).replace('\x1b', "␛")));
    }
    all
}

#[test]
fn each_event_becomes_one_line() {
    assert_snapshot!(lines(OutputStyle::default()), @r"
    . ↓ base      fetched 3 files, 4.9 KiB
    ! ! remote    no⟨200B⟩ way; the run goes on without it
       = help: ask
    ! ! sft       slow
    . ◌ sft       another run is making it; waiting for that
    - ▸ sft       starts: first run
    - ▸ sft       starts: forced (attempt 2)
    . ! sft       a␛[2J warning
    . · sft       a note
    . ✓ sft       done in 1m10s, same bytes as before   train/loss 2.500  loss 1
    . ✓ sft       done in 1.0s
    !error: stage `sft`: no
      because: x
      = help: y
      = log: cache/logs/sft/log.txt
      = again: preflow run again
      = trying again
    !error: stage `sft`: crashed: signal 9
      | a
      | b
      = log: cache/logs/sft/log.txt
    !error: stage `sft`: took longer than its timeout of 1m00s
      = help: raise `run: { timeout: … }` of this stage
      = log: cache/logs/sft/log.txt
    . ◌ sft       waiting for people: 3 votes    → preflow label serve
    ! ◌ sft       gate of `sft` not met: eval/loss is 3, must be <= 2
       = help: what depends on it does not run; improve `sft`, or go on all the same with --accept-gate sft
    ! ! sft       gate of `sft` not met: eval/loss is 3, must be <= 2; accepted
    ! ◌ sft       gate of `sft` not met: it reports no `eval/loss`; it reports loss
       = help: name one of those under `gate:` of `sft`
    . ↑ remote    sent 2 stages: 4 files, 4.9 KiB
    . ↑ remote    sent 1 stage: 1 file, 5 B; 2 stages wait to be sent → preflow push p.yaml
    .stopping: running stages get 5 seconds; press Ctrl-C again to end them now
    .ending running stages now
    ! 2 done · 1 failed   3.0s
    ! nothing to do: 3 reused   0.1s
    ! 3 not started   0.1s
     interrupted; `preflow run p.yaml` goes on from here
    ");
}

#[test]
fn in_colour_and_narrow_all_are_told() {
    let look =
        OutputStyle { verbose: true, colour: true, width: Some(70), ..OutputStyle::default() };
    assert_snapshot!(lines(look), @r"
    . ␛[2m=␛[0m base      ␛[2mreused␛[0m
    . ␛[32m↓␛[0m base      fetched 3 files, 4.9 KiB
    ! ␛[33m!␛[0m remote    no⟨200B⟩ way; the run goes on without it
                    = help: ask
    ! ␛[33m!␛[0m sft       slow
    . ␛[33m◌␛[0m sft       another run is making it; waiting for that
    . ␛[36m▸␛[0m sft       ␛[2mstarts: first run␛[0m
    . ␛[36m▸␛[0m sft       ␛[2mstarts: forced␛[0m (attempt 2)
    . ␛[33m!␛[0m sft       a␛[2J warning
    . ␛[2m·␛[0m sft       a note
    . ␛[2m·␛[0m sft       a detail
    . ␛[32m✓␛[0m sft       done in 1m10s, same bytes as before   ␛[2mtrain/loss 2.500
                 loss 1␛[0m
    . ␛[32m✓␛[0m sft       done in 1.0s
    !␛[1m␛[31merror:␛[0m stage `sft`: no
      because: x
      = help: y
      = log: cache/logs/sft/log.txt
      = again: preflow run again
      = trying again
    !␛[1m␛[31merror:␛[0m stage `sft`: crashed: signal 9
      | a
      | b
      = log: cache/logs/sft/log.txt
    !␛[1m␛[31merror:␛[0m stage `sft`: took longer than its timeout of 1m00s
      = help: raise `run: { timeout: … }` of this stage
      = log: cache/logs/sft/log.txt
    . ␛[33m◌␛[0m sft       waiting for people: 3 votes    → preflow label serve
    . ␛[2m-␛[0m evaluate  ␛[2mblocked by sft␛[0m
    ! ␛[33m◌␛[0m sft       gate of `sft` not met: eval/loss is 3, must be <= 2
                    = help: what depends on it does not run; improve
                 `sft`, or go on all the same with --accept-gate sft
    ! ␛[33m!␛[0m sft       gate of `sft` not met: eval/loss is 3, must be <= 2;
                 accepted
    ! ␛[33m◌␛[0m sft       gate of `sft` not met: it reports no `eval/loss`; it
                 reports loss
                    = help: name one of those under `gate:` of `sft`
    . ␛[32m↑␛[0m remote    sent 2 stages: 4 files, 4.9 KiB
    . ␛[33m↑␛[0m remote    sent 1 stage: 1 file, 5 B; 2 stages wait to be sent →
                 preflow push p.yaml
    .stopping: running stages get 5 seconds; press Ctrl-C again to end them now
    .ending running stages now
    ! 2 done · 1 failed   3.0s
    ! nothing to do: 3 reused   0.1s
    ! 3 not started   0.1s
     interrupted; `preflow run p.yaml` goes on from here
    ");
}

#[test]
fn bars_begin_count_and_end() {
    let mut lines = RunLines::new(OutputStyle::default(), LiveMetrics::new());
    let bars: Vec<Bar> = events().iter().flat_map(|event| lines.hear(event).bars).collect();
    let short: Vec<String> = bars
        .iter()
        .map(|bar| match bar {
            Bar::Begin { name, says } => format!("begin {name}: {says}"),
            Bar::Ensure { name, says } => format!("ensure {name}: {says}"),
            Bar::Count { name, done, total, .. } => format!("{name} {done} of {total}"),
            Bar::Say { name, says } => format!("{name}: {says}"),
            Bar::End { name } => format!("end {name}"),
            Bar::EndAll => "end all".to_owned(),
        })
        .collect();
    assert_snapshot!(short.join("\n"), @r"
    ensure base: from the remote
    end base
    end sft
    begin sft: first run
    begin sft: forced
    sft 1 of 9
    sft: train/loss 2.500
    end sft
    end sft
    end sft
    end sft
    end sft
    end sft
    ensure ↑ remote: 
    ↑ remote 1000 of 5000
    end ↑ remote
    end ↑ remote
    end ↑ remote
    end all
    end all
    end all
    ");
}

#[test]
fn commands_that_are_named_are_those_that_were_typed() {
    let told = |command: Value, exit: u8| {
        let mut lines = RunLines::new(OutputStyle::default(), LiveMetrics::new());
        let failed = json!({"outcome": "failed", "message": "no", "chain": [], "help": null});
        let totals = json!({"done": 1, "stopped": 1, "skipped": 2});
        let events = json!([
            {"event": "run_started", "run": "r", "at": "", "pipeline": "p.yaml", "name": "p",
                "command": command, "version": "0", "stages": ["a", "b"], "jobs": 1},
            {"event": "stage_failed", "stage": "a", "outcome": failed, "retrying": false,
                "log": "cache/log.txt", "again": "worker run task.json", "storage": false},
            {"event": "run_ended", "totals": totals, "seconds": 1.0, "exit": exit},
        ]);
        let events: Vec<RunEvent> = serde_json::from_value(events).expect("events");
        let said = events.iter().filter_map(|event| lines.hear(event).line);
        let said: Vec<String> = said.map(|line| line.text).collect();
        (said.join("\n"), lines.so_far())
    };
    let (said, so_far) = told(json!(["/bin/preflow", "run", "p.yaml", "--set", "a=b c"]), 130);
    assert_eq!(
        said,
        "error: stage `a`: no\n  = log: preflow logs p.yaml a\n 1 done · 1 stopped · 2 not started   \
         1.0s\n interrupted; `preflow run p.yaml --set 'a=b c'` goes on from here"
    );
    assert_eq!(so_far.as_deref(), Some("1 of 2 stages"));
    // `logs` does not know the stages of a sweep.
    let (said, _) = told(json!(["preflow", "sweep", "run", "s.yaml"]), 130);
    assert!(said.contains("= log: cache/log.txt\n  = again: worker run task.json"), "{said}");
    assert!(said.ends_with("`preflow sweep run s.yaml` goes on from here"), "{said}");
}
