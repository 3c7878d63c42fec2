//! The files that a master keeps for the person who runs it: a kubeconfig that names every master, and a join token.

use crate::front::ApiUrls;
use crate::pki::Authority;
use crate::settings::DataDir;
use crate::{create, tokens};
use anyhow::Result;
use mvcc::Store;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The masters may change while one runs; its kubeconfig follows this soon.
const REFRESH: Duration = Duration::from_millis(200);

/// What the files are made of.
pub struct OperatorFiles {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The masters.
    pub api_urls: ApiUrls,
    /// Where the files go.
    pub dir: DataDir,
    /// Who issues the certificate in the kubeconfig.
    pub authority: Authority,
    /// This master's own URL: the first of the kubeconfig.
    pub own_url: String,
}

impl OperatorFiles {
    /// Writes them, and the kubeconfig anew when the masters change, until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        let mut written = Vec::new();
        loop {
            if let Err(error) = self.refresh(&mut written).await {
                tracing::warn!(%error, "the files for the operator could not be written; trying again");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(REFRESH) => {}
            }
        }
    }

    async fn refresh(&self, written: &mut Vec<String>) -> Result<()> {
        let others = (self.api_urls)().into_iter();
        let others = others.filter(|url| *url != self.own_url);
        let servers: Vec<String> = std::iter::once(self.own_url.clone())
            .chain(others)
            .collect();
        if servers != *written {
            let text = create::admin_kubeconfig(&self.authority, servers.clone())?;
            let path = self.dir.keep_for_operator("admin.kubeconfig", &text)?;
            tracing::info!(path = %path.display(), "wrote a kubeconfig that may do everything");
            *written = servers;
        }
        if self.dir.read_if_there("join-token").is_none() {
            let token = tokens::create(&*self.store, self.authority.sha256()?).await?;
            let path = self
                .dir
                .keep_for_operator("join-token", &format!("{token}\n"))?;
            tracing::info!(path = %path.display(), "wrote a token with which masters and nodes join");
        }
        Ok(())
    }
}
