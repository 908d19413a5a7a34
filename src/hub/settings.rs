//! Which hub is asked, and by whose right: the variables that the hub's own tools read.
//! Does not know what is asked.

use std::path::PathBuf;

use super::HubError;
use crate::files;
use crate::web;

/// The hub that is asked where nothing else is said.
const PUBLIC: &str = "https://huggingface.co";
/// A token is never longer.
const LONGEST_TOKEN: u64 = 4 << 10;

/// Where a hub is and what may be asked of it.
#[derive(Clone)]
pub struct HubSettings {
    /// Address without a slash at its end.
    pub endpoint: String,
    /// `None`: what everybody may read.
    pub token: Option<String>,
    /// Nobody is asked: `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// Folder where the hub's own tools keep what they fetched.
    pub cache: Option<PathBuf>,
}

/// Without the token.
impl std::fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl HubSettings {
    /// What the environment says.
    ///
    /// # Errors
    /// It names an address that cannot be asked.
    pub fn of_environment() -> Result<Self, HubError> {
        Self::of(|name| std::env::var(name).ok())
    }

    /// What variables say; `variable` gives one, empty ones do not count.
    ///
    /// # Errors
    /// They name an address that cannot be asked.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| PUBLIC.to_owned());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        let loopback = web::is_loopback(&endpoint);
        let encrypted = endpoint.starts_with("https://");
        if web::host(&endpoint).is_none() || !(encrypted || loopback) {
            return Err(HubError::Endpoint(endpoint));
        }
        let home = get("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = get("XDG_CACHE_HOME").map(PathBuf::from);
            let cache = cache.or_else(|| Some(PathBuf::from(get("HOME")?).join(".cache")));
            Some(cache?.join("huggingface"))
        });
        let kept = || {
            let path = get("HF_TOKEN_PATH").map(PathBuf::from);
            let path = path.or_else(|| Some(home.as_ref()?.join("token")))?;
            files::read_to_string(&path, LONGEST_TOKEN).ok()
        };
        let token = get("HF_TOKEN").or_else(kept).map(|token| token.trim().to_owned());
        let token = token.filter(|token| !token.is_empty());
        let offline = get("HF_HUB_OFFLINE").is_some_and(|said| {
            ["1", "on", "yes", "true"].contains(&said.trim().to_ascii_lowercase().as_str())
        });
        let cache = get("HF_HUB_CACHE").map(PathBuf::from);
        let cache = cache.or_else(|| Some(home?.join("hub")));
        Ok(Self { endpoint, token, offline, cache })
    }

    /// The hub's name for messages.
    #[must_use]
    pub fn host(&self) -> String {
        web::host(&self.endpoint).unwrap_or_else(|| self.endpoint.clone())
    }
}
