//! Webhooks: where one is, and who calls it. The call leaves the process, so it is the shell's; admission and conversion only
//! say what to send. Rules: Kubernetes' `clientConfig`.

use crate::strategy::edit::{self, Members};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use std::time::Duration;

/// The port of a service's webhook that names none.
const PORT: u16 = 443;

/// Where a webhook is and whom to trust there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WebhookClient {
    /// The way there.
    pub place: WebhookPlace,
    /// Certificates in PEM that vouch for it; empty for those that the machine trusts.
    pub ca_bundle: Bytes,
}

/// The way to a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WebhookPlace {
    /// An `https` URL.
    Url(String),
    /// A port of a service of the cluster, and a path there.
    Service {
        /// The service's namespace.
        namespace: String,
        /// The service's name.
        name: String,
        /// The service's port.
        port: u16,
        /// The path; begins with `/`.
        path: String,
    },
}

impl WebhookClient {
    /// Reads a `clientConfig`; None when it names no place.
    pub fn of(config: &Members) -> Option<Self> {
        let bundle = STANDARD.decode(edit::read_text(config, "caBundle"));
        let place = match (
            edit::read_text(config, "url"),
            edit::read_map(config, "service"),
        ) {
            (url, None) if !url.is_empty() => WebhookPlace::Url(url.to_owned()),
            (_, Some(service)) => WebhookPlace::Service {
                namespace: edit::read_text(service, "namespace").to_owned(),
                name: edit::read_text(service, "name").to_owned(),
                port: edit::read_number(service, "port")
                    .and_then(|port| u16::try_from(port).ok())
                    .unwrap_or(PORT),
                path: format!(
                    "/{}",
                    edit::read_text(service, "path").trim_start_matches('/')
                ),
            },
            _ => return None,
        };
        Some(WebhookClient {
            place,
            ca_bundle: bundle.unwrap_or_default().into(),
        })
    }

    /// The URL that is asked; a service answers under `NAME.NAMESPACE.svc`.
    pub fn url(&self) -> String {
        match &self.place {
            WebhookPlace::Url(url) => url.clone(),
            WebhookPlace::Service {
                namespace,
                name,
                port,
                path,
            } => format!("https://{name}.{namespace}.svc:{port}{path}"),
        }
    }
}

/// Calls webhooks.
#[async_trait]
pub trait Webhooks: Send + Sync + 'static {
    /// Posts JSON and answers with the JSON of the answer; else says what went wrong, in one line. Gives up after `timeout`,
    /// of which the webhook is told.
    async fn call(
        &self,
        client: &WebhookClient,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, String>;
}
