//! What stands for remotes in a program that was built without them: none can be opened.

use std::convert::Infallible;
use std::sync::Arc;

use super::{Config, Expected, Fetched, Progress, RemoteError, Sent};
use crate::identity::Fingerprint;
use crate::store::{Entry, Store};

/// A place that a team shares: there is none in this build.
#[derive(Debug, Clone)]
pub struct Remote(Infallible);

impl Remote {
    /// Never opens one.
    ///
    /// # Errors
    /// Always.
    pub fn open(config: Config) -> Result<Self, RemoteError> {
        Err(RemoteError::NotBuilt { url: config.site.to_string() })
    }

    #[must_use]
    pub fn is_writable(&self) -> bool {
        match self.0 {}
    }

    #[must_use]
    pub fn is_required(&self) -> bool {
        match self.0 {}
    }

    #[must_use]
    pub fn url(&self) -> &str {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[expect(clippy::unused_async, reason = "as in the other build")]
    pub async fn ask(&self) -> Result<(), RemoteError> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[expect(clippy::unused_async, reason = "as in the other build")]
    pub async fn fetch(
        &self,
        _: &Arc<Store>,
        _: &Fingerprint,
        _: &Expected,
        _: &Arc<Progress>,
    ) -> Result<Option<(Entry, Fetched)>, RemoteError> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[expect(clippy::unused_async, reason = "as in the other build")]
    pub async fn send(
        &self,
        _: &Arc<Store>,
        _: &Fingerprint,
        _: &Arc<Progress>,
    ) -> Result<Sent, RemoteError> {
        match self.0 {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    #[expect(clippy::unused_async, reason = "as in the other build")]
    pub async fn send_as(
        &self,
        _: &Arc<Store>,
        _: &Fingerprint,
        _: bool,
        _: &Arc<Progress>,
    ) -> Result<Sent, RemoteError> {
        match self.0 {}
    }
}
