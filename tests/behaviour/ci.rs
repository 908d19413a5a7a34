//! What a pull request is told: the verdict and its exit code, and one comment, never two.

use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::peer::{Asked, serve};
use crate::space::{CHAIN, Said, Space};

fn git(space: &Space, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@localhost"]).args(arguments);
    let output = command.current_dir(space.path("")).output().expect("git runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
}

/// A repository whose only commit has a pipeline that is made, and its lock file.
fn repository() -> Space {
    let space = Space::chain();
    space.ran(&["run", "p.yaml"]);
    space.write(".gitignore", "cache\nran.txt\n.state\n");
    git(&space, &["init", "-q"]);
    git(&space, &["add", "."]);
    git(&space, &["commit", "-qm", "base"]);
    space
}

#[test]
fn the_verdict_says_what_a_reviewer_must_know() {
    let space = repository();
    let said = space.preflow(&["ci", "HEAD"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert!(said.out.contains("Nothing changed."), "{}", said.out);
    assert!(said.out.contains("As before: a, b, c, side"), "{}", said.out);

    space.write("p.yaml", &CHAIN.replace("p: one", "p: two"));
    let said = space.preflow(&["ci", "HEAD"]);
    assert_eq!(said.code, Some(5), "{}", said.out);
    assert!(said.out.contains("Not made yet: 3 stages to run"), "{}", said.out);
    assert!(said.out.contains("The lock file does not match: stage `a` changed."), "{}", said.out);
    assert!(said.out.contains("As before: side"), "{}", said.out);

    space.ran(&["run", "p.yaml"]);
    let made = space.preflow(&["ci", "HEAD"]);
    assert_eq!(made.code, Some(0), "{}{}", made.out, made.err);
    assert!(made.out.contains("3 stages changed, and all are made."), "{}", made.out);
    // A fresh clone has the lock file and no artifact.
    std::fs::remove_dir_all(space.path("cache")).expect("removed");
    let cloned = space.preflow(&["ci", "HEAD", "--format", "markdown"]);
    assert_eq!(cloned.code, Some(0), "{}{}", cloned.out, cloned.err);
    assert!(cloned.out.starts_with("### p.yaml\n\n✓ **3 stages changed, and all are made.**"));
    assert!(cloned.out.contains("| a | made | "), "{}", cloned.out);
    let listed = space.preflow(&["ci", "HEAD", "--json"]);
    let listed: Value = serde_json::from_str(&listed.out).expect("JSON");
    assert_eq!(listed["pipelines"][0]["lock"]["state"], "matches");
}

#[test]
fn what_is_wrong_is_an_end_of_its_own() {
    let space = repository();
    let unknown = space.preflow(&["ci", "no-such-branch"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.err.contains("`no-such-branch` is no commit here"), "{}", unknown.err);
    space.write("p.yaml", &CHAIN.replace("kind: command", "kind: comand"));
    let broken = space.preflow(&["ci", "HEAD", "--format", "markdown"]);
    assert_eq!(broken.code, Some(2));
    assert!(broken.out.contains("**This file is not right.**\n\n<pre>"), "{}", broken.out);
    assert!(broken.out.contains("did you mean `command`"), "{}", broken.out);
    space.write("p.yaml", CHAIN);
    let outside = space.preflow(&["ci", "HEAD", "--comment"]);
    assert_eq!(outside.code, Some(2), "{}", outside.err);
    assert!(outside.err.contains("this is not a job of a pull request"), "{}", outside.err);
    // A pipeline that the base did not have.
    space.write("new.yaml", &CHAIN.replace("name: chain", "name: other"));
    let new = space.preflow(&["ci", "HEAD", "new.yaml"]);
    assert_eq!(new.code, Some(0), "{}{}", new.out, new.err);
    assert!(new.out.contains("commit `HEAD` has no `new.yaml`"), "{}", new.out);
}

/// What the host does, and what was asked of it.
#[derive(Default)]
struct Host {
    /// Number, text, whether ours.
    comments: Vec<(u64, String, bool)>,
    asked: Vec<String>,
    /// The next POST finds that another job was faster.
    raced: bool,
    /// All answers are this.
    status: Option<u16>,
}

/// Starts a host that plays the comments of GitHub and the notes of GitLab.
fn host(host: Host) -> (String, Arc<Mutex<Host>>) {
    let host = Arc::new(Mutex::new(host));
    let state = Arc::clone(&host);
    let address = serve(move |asked| state.lock().expect("state").answer(asked));
    (address, host)
}

impl Host {
    fn answer(&mut self, request: &Asked) -> (u16, Value) {
        let Asked { how, path, body, right } = request;
        self.asked.push(format!("{how} {path}"));
        if let Some(status) = self.status {
            return (status, json!({ "message": "no" }));
        }
        if !right.ends_with("secret") {
            return (401, json!({ "message": "Bad credentials" }));
        }
        let text = body["body"].as_str().unwrap_or_default().to_owned();
        let number = path.rsplit('/').next().and_then(|n| n.parse::<u64>().ok());
        match (how.as_str(), number) {
            ("GET", _) => {
                let page = path.split("page=").last().and_then(|n| n.parse::<usize>().ok());
                let start = (page.expect("a page") - 1) * 100;
                let shown = self.comments.iter().skip(start).take(100);
                (200, shown.map(|(id, body, _)| json!({ "id": id, "body": body })).collect())
            }
            ("POST", _) => {
                if std::mem::take(&mut self.raced) {
                    let id = self.next();
                    self.comments.push((id, text.clone(), true));
                }
                let id = self.next();
                self.comments.push((id, text, true));
                (201, json!({ "id": id }))
            }
            ("DELETE", Some(number)) => {
                self.comments.retain(|(id, ..)| *id != number);
                (204, Value::Null)
            }
            ("PATCH" | "PUT", Some(number)) => {
                match self.comments.iter_mut().find(|(id, ..)| *id == number) {
                    Some((_, body, true)) => {
                        *body = text;
                        (200, json!({ "id": number }))
                    }
                    Some(_) => (403, json!({ "message": "not yours" })),
                    None => (404, json!({ "message": "Not Found" })),
                }
            }
            _ => (405, Value::Null),
        }
    }

    fn next(&self) -> u64 {
        100 + self.comments.len() as u64
    }

    fn ours(&self) -> Vec<&str> {
        self.comments.iter().filter(|(.., own)| *own).map(|(_, body, _)| body.as_str()).collect()
    }
}

fn comment(space: &Space, variables: &[(&str, &str)]) -> Said {
    let mut command = space.command(&["ci", "HEAD", "--comment"]);
    for name in ["GITHUB_STEP_SUMMARY", "GITHUB_EVENT_PATH", "GH_TOKEN", "CI_MERGE_REQUEST_IID"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    Said::of(&command.output().expect("starts"), space.dir.path())
}

#[test]
fn a_pull_request_has_one_comment_that_is_kept_up_to_date() {
    let space = repository();
    // Many comments, and one of a stranger who copied how ours begins.
    let strangers = (0..130).map(|i| (i, format!("comment {i}"), false));
    let copied = (99, "<!-- preflow ci -->\nlook here".to_owned(), false);
    let comments = strangers.chain([copied]).collect();
    let (api, state) = host(Host { comments, ..Host::default() });
    let job = [
        ("GITHUB_API_URL", api.as_str()),
        ("GITHUB_REPOSITORY", "org/name"),
        ("GITHUB_REF", "refs/pull/12/merge"),
        ("GITHUB_TOKEN", "secret"),
    ];
    let first = comment(&space, &job);
    assert_eq!(first.code, Some(0), "{}", first.err);
    assert_eq!(first.err, "note: commented on the pull request\n");
    {
        let state = state.lock().expect("state");
        let [body] = state.ours()[..] else { panic!("{:?}", state.ours()) };
        assert!(body.starts_with("<!-- preflow ci -->\n### p.yaml\n"), "{body}");
        assert!(body.contains("Nothing changed."), "{body}");
        assert!(state.asked[0].starts_with("GET /repos/org/name/issues/12/comments?"));
    }
    space.write("p.yaml", &CHAIN.replace("p: one", "p: two"));
    let second = comment(&space, &job);
    assert_eq!(second.code, Some(5), "{}", second.err);
    assert_eq!(second.err, "note: updated the comment on the pull request\n");
    let state = state.lock().expect("state");
    let [body] = state.ours()[..] else { panic!("{:?}", state.ours()) };
    assert!(body.contains("Not made yet: 3 stages to run"), "{body}");
}

#[test]
fn two_jobs_at_once_leave_one_comment() {
    let space = repository();
    let (api, state) = host(Host { raced: true, ..Host::default() });
    let job = [
        ("CI_API_V4_URL", api.as_str()),
        ("CI_PROJECT_ID", "44"),
        ("CI_MERGE_REQUEST_IID", "3"),
        ("GITLAB_TOKEN", "secret"),
    ];
    let said = comment(&space, &job);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let state = state.lock().expect("state");
    assert_eq!(state.ours().len(), 1);
    let asked: Vec<&str> = state.asked.iter().map(String::as_str).collect();
    let top = "/projects/44/merge_requests/3/notes";
    let list = format!("GET {top}?per_page=100&page=1");
    let right = [
        list.clone(),
        format!("POST {top}"),
        list,
        format!("PUT {top}/100"),
        format!("DELETE {top}/101"),
    ];
    assert_eq!(asked, right);
}

#[test]
fn a_fork_without_secrets_gets_the_same_words_elsewhere_and_no_failure() {
    let space = repository();
    let (api, state) = host(Host::default());
    let summary = space.path("summary.md").display().to_string();
    let job = [
        ("GITHUB_API_URL", api.as_str()),
        ("GITHUB_REPOSITORY", "org/name"),
        ("GITHUB_REF", "refs/pull/12/merge"),
        ("GITHUB_STEP_SUMMARY", summary.as_str()),
        ("GITHUB_TOKEN", ""),
    ];
    let said = comment(&space, &job);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("note: no comment: there is no token"), "{}", said.err);
    assert!(space.read("summary.md").contains("### p.yaml"));
    let wrong = [&job[..4], &[("GITHUB_TOKEN", "other")]].concat();
    let said = comment(&space, &wrong);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("refuses the comment (401): Bad credentials"), "{}", said.err);
    assert!(said.err.contains("jobs of forks are given neither"), "{}", said.err);
    // A host that fails is a failure, and the verdict is printed all the same.
    state.lock().expect("state").status = Some(502);
    let said = comment(&space, &[&job[..4], &[("GITHUB_TOKEN", "secret")]].concat());
    assert_eq!(said.code, Some(4), "{}", said.err);
    assert!(said.out.contains("Nothing changed."), "{}", said.out);
    let gone = [("GITHUB_API_URL", "http://127.0.0.1:9"), ("GITHUB_TOKEN", "secret")];
    let said = comment(&space, &[&job[1..4], &gone].concat());
    assert_eq!(said.code, Some(4), "{}", said.err);
    assert!(said.err.contains("127.0.0.1 does not answer"), "{}", said.err);
}
