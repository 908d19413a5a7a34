//! Git hosts: one comment of ours on a pull request, written once and kept up to date (GitHub and
//! what speaks its API, GitLab). Does not know what the comment says.

use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use thiserror::Error;

use crate::files;
use crate::web;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Comments on a page of a list, and pages that are looked through.
const PAGE: usize = 100;
const PAGES: usize = 50;
/// A job's event is never larger.
const LARGEST_EVENT: u64 = 16 << 20;
/// Characters of a comment; GitHub takes 65,536.
pub const LONGEST: usize = 60_000;

/// Why there is no comment.
#[derive(Debug, Error)]
pub enum HostError {
    #[error("this is not a job of a pull request: {0}")]
    NoPullRequest(String),
    #[error("there is no token to comment with: {0} is not set")]
    NoToken(&'static str),
    #[error("{host} refuses the comment ({status}): {said}")]
    Refused { host: String, status: u16, said: String },
    #[error("{host} does not answer: {reason}")]
    Away { host: String, reason: String },
}

impl HostError {
    /// Whether a job cannot help it: a pull request of a fork is given no right to comment.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        matches!(self, Self::NoToken(_) | Self::Refused { status: 401 | 403, .. })
    }

    /// What can be done about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::NoPullRequest(_) => {
                "use --comment in a job of GitHub Actions for pull requests or of GitLab CI for \
                 merge requests; without it the same is printed"
            }
            Self::NoToken(_) | Self::Refused { status: 401 | 403, .. } => {
                "GitHub: `permissions: { pull-requests: write }` and `GITHUB_TOKEN: ${{ \
                 github.token }}`; GitLab: a project access token with scope `api` as \
                 GITLAB_TOKEN; jobs of forks are given neither"
            }
            Self::Refused { status: 404, .. } => "is the repository, and the pull request, there?",
            Self::Refused { .. } | Self::Away { .. } => "run the job again",
        }
    }
}

/// What became of a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    New,
    Updated,
}

/// A pull request on a host, and the right to comment on it.
#[derive(Debug)]
pub struct PullRequest {
    client: Client,
    host: String,
    /// Where its comments are listed and made.
    list: String,
    /// What one comment's address is, but for its number.
    one: String,
    /// How a comment is changed.
    change: Method,
    /// Name and value of the header that says who asks.
    right: (&'static str, String),
}

impl PullRequest {
    /// What the variables of a job say; `variable` gives one, empty ones do not count.
    ///
    /// # Errors
    /// It is not a job of a pull request, or has no token.
    pub fn of_job(variable: impl Fn(&str) -> Option<String>) -> Result<Self, HostError> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let absent =
            |name: &str| HostError::NoPullRequest(format!("{name} is not set, or not usable"));
        if let Some(number) = get("CI_MERGE_REQUEST_IID") {
            let api = get("CI_API_V4_URL").ok_or_else(|| absent("CI_API_V4_URL"))?;
            let project = get("CI_PROJECT_ID").filter(|id| is_number(id));
            let project = project.ok_or_else(|| absent("CI_PROJECT_ID"))?;
            let number = Some(number).filter(|n| is_number(n));
            let number = number.ok_or_else(|| absent("CI_MERGE_REQUEST_IID"))?;
            let token = get("GITLAB_TOKEN").ok_or(HostError::NoToken("GITLAB_TOKEN"))?;
            let list = format!("{api}/projects/{project}/merge_requests/{number}/notes");
            let (one, right) = (format!("{list}/"), ("private-token", token));
            return Self::at(&api, list, one, Method::PUT, right);
        }
        let repository = get("GITHUB_REPOSITORY").ok_or_else(|| {
            HostError::NoPullRequest(
                "neither GITHUB_REPOSITORY nor CI_MERGE_REQUEST_IID is set".into(),
            )
        })?;
        if !is_repository(&repository) {
            return Err(absent("GITHUB_REPOSITORY"));
        }
        let number = get("GITHUB_EVENT_PATH").and_then(|path| number_of_event(&path));
        let of_ref = || {
            let name = get("GITHUB_REF")?;
            let number = name.strip_prefix("refs/pull/")?.split('/').next()?.to_owned();
            is_number(&number).then_some(number)
        };
        let number = number.or_else(of_ref).ok_or_else(|| {
            HostError::NoPullRequest("the event is not one of a pull request".into())
        })?;
        let token = get("GITHUB_TOKEN").or_else(|| get("GH_TOKEN"));
        let token = token.ok_or(HostError::NoToken("GITHUB_TOKEN"))?;
        let api = get("GITHUB_API_URL").unwrap_or_else(|| "https://api.github.com".into());
        let top = format!("{api}/repos/{repository}/issues");
        let list = format!("{top}/{number}/comments");
        let right = ("authorization", format!("Bearer {token}"));
        Self::at(&api, list, format!("{top}/comments/"), Method::PATCH, right)
    }

    fn at(
        api: &str,
        list: String,
        one: String,
        change: Method,
        right: (&'static str, String),
    ) -> Result<Self, HostError> {
        let host = web::host(api).unwrap_or_else(|| api.to_owned());
        let client = web::client(web::is_loopback(api))
            .timeout(PATIENCE)
            .build()
            .map_err(|e| HostError::Away { host: host.clone(), reason: web::reason(e) })?;
        Ok(Self { client, host, list, one, change, right })
    }

    /// Makes the comment that begins with `marker` say `body`, which begins with it too. Where jobs
    /// that run at once wrote several, one is left.
    ///
    /// # Errors
    /// The host refuses, or does not answer.
    pub async fn keep(&self, marker: &str, body: &str) -> Result<Kept, HostError> {
        if self.update(&self.ours(marker).await?, body).await? {
            return Ok(Kept::Updated);
        }
        let made = self.ask(Method::POST, &self.list, Some(body)).await?;
        let made = number(&made);
        let all = self.ours(marker).await?;
        // Another job was faster: its comment stays, and says what ours said.
        let Some(first) = all.iter().min().filter(|first| made.is_some_and(|own| own != **first))
        else {
            return Ok(Kept::New);
        };
        if !self.update(&[*first], body).await? {
            return Ok(Kept::New);
        }
        let own = format!("{}{}", self.one, made.unwrap_or_default());
        self.ask(Method::DELETE, &own, None).await?;
        Ok(Kept::Updated)
    }

    /// Changes the first of these comments that may be changed; a stranger's may not.
    async fn update(&self, comments: &[u64], body: &str) -> Result<bool, HostError> {
        for id in comments {
            let address = format!("{}{id}", self.one);
            match self.ask(self.change.clone(), &address, Some(body)).await {
                Ok(_) => return Ok(true),
                Err(HostError::Refused { status: 403 | 404, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Comments that begin with the marker, the oldest first.
    async fn ours(&self, marker: &str) -> Result<Vec<u64>, HostError> {
        let mut found = Vec::new();
        for page in 1..=PAGES {
            let address = format!("{}?per_page={PAGE}&page={page}", self.list);
            let answer = self.ask(Method::GET, &address, None).await?;
            let comments = answer.as_array().map(Vec::as_slice).unwrap_or_default();
            let begins = |c: &&Value| c["body"].as_str().is_some_and(|b| b.starts_with(marker));
            found.extend(comments.iter().filter(begins).filter_map(number));
            if comments.len() < PAGE {
                break;
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    async fn ask(
        &self,
        how: Method,
        address: &str,
        body: Option<&str>,
    ) -> Result<Value, HostError> {
        let away = |e: reqwest::Error| {
            let reason = match e.is_timeout() {
                true => format!("nothing came in {} s", PATIENCE.as_secs()),
                false => web::reason(e),
            };
            HostError::Away { host: self.host.clone(), reason }
        };
        let (name, value) = &self.right;
        let mut request = self.client.request(how, address).header(*name, value);
        request = request.header("accept", "application/json");
        if let Some(body) = body {
            let body = json!({ "body": body }).to_string();
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = request.send().await.map_err(away)?;
        let status = answer.status();
        let text = answer.text().await.map_err(away)?;
        let read: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() && (!read.is_null() || status == StatusCode::NO_CONTENT) {
            return Ok(read);
        }
        let said = ["message", "error"].iter().find_map(|key| read[*key].as_str());
        let said = said.unwrap_or("it gives no reason").chars().take(200).collect();
        Err(HostError::Refused { host: self.host.clone(), status: status.as_u16(), said })
    }
}

fn number(comment: &Value) -> Option<u64> {
    comment["id"].as_u64()
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// `owner/name`, of the characters that names on a host have.
fn is_repository(word: &str) -> bool {
    let is_name = |part: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(fits)
    };
    word.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name))
}

fn number_of_event(path: &str) -> Option<String> {
    let text = files::read_to_string(path.as_ref(), LARGEST_EVENT).ok()?;
    let event: Value = serde_json::from_str(&text).ok()?;
    Some(event["pull_request"]["number"].as_u64()?.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<PullRequest, HostError> {
        let all: HashMap<&str, &str> = variables.iter().copied().collect();
        PullRequest::of_job(|name| all.get(name).map(|value| (*value).to_owned()))
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test owns its folder")]
    fn a_job_says_where_its_pull_request_is() {
        let event = tempfile::NamedTempFile::new().expect("temp");
        std::fs::write(event.path(), r#"{"pull_request":{"number":7}}"#).expect("written");
        let path = event.path().to_string_lossy();
        let base = [("GITHUB_REPOSITORY", "org/name"), ("GITHUB_TOKEN", "t")];
        let found = of(&[&base[..], &[("GITHUB_EVENT_PATH", &path)]].concat()).expect("a job");
        assert_eq!(found.list, "https://api.github.com/repos/org/name/issues/7/comments");
        let found = of(&[&base[..], &[("GITHUB_REF", "refs/pull/12/merge")]].concat());
        assert!(found.expect("a job").list.ends_with("/issues/12/comments"));
        let found = of(&[
            ("CI_MERGE_REQUEST_IID", "3"),
            ("CI_PROJECT_ID", "44"),
            ("CI_API_V4_URL", "https://git.example/api/v4"),
            ("GITLAB_TOKEN", "t"),
        ]);
        let found = found.expect("a job");
        assert_eq!(found.list, "https://git.example/api/v4/projects/44/merge_requests/3/notes");
        assert_eq!(found.one, format!("{}/", found.list));
        assert_eq!(found.host, "git.example");
    }

    #[test]
    fn what_is_no_pull_request_or_has_no_token_is_said() {
        let none = of(&[]).expect_err("no job");
        assert!(matches!(none, HostError::NoPullRequest(_)) && !none.is_expected());
        let push = [("GITHUB_REPOSITORY", "o/n"), ("GITHUB_REF", "refs/heads/main")];
        assert!(matches!(of(&push), Err(HostError::NoPullRequest(_))));
        let odd = [("GITHUB_REPOSITORY", "../x"), ("GITHUB_REF", "refs/pull/1/merge")];
        assert!(matches!(of(&odd), Err(HostError::NoPullRequest(_))));
        let fork = [("GITHUB_REPOSITORY", "o/n"), ("GITHUB_REF", "refs/pull/1/merge")];
        let fork = of(&fork).expect_err("no token");
        assert!(matches!(fork, HostError::NoToken("GITHUB_TOKEN")) && fork.is_expected());
    }
}
