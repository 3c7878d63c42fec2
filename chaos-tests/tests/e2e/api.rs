//! The API without `ctl` between: for requests that no well-meaning client sends, for writers that retry, and for watches.

use crate::site::Site;
use bytes::Bytes;
use client::{Client, Config, Deadline, Error, Payload};
use http::Method;
use serde_json::Value;
use std::time::Duration;

/// The API of a site, for one thread.
pub struct Api {
    tokio: tokio::runtime::Runtime,
    client: Client,
}

impl Api {
    /// As the administrator.
    pub fn of(site: &Site) -> Api {
        Api::with(&Api::config(site))
    }

    /// As somebody else.
    pub fn with(config: &Config) -> Api {
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let client = {
            let _inside = tokio.enter();
            Client::new(config).expect("the settings are good")
        };
        Api { tokio, client }
    }

    /// The administrator's settings.
    pub fn config(site: &Site) -> Config {
        Config::load(Some(&site.kubeconfig()), None).expect("the kubeconfig is good")
    }

    /// Any request with any body.
    pub fn call(&self, method: Method, path: &str, body: &str) -> Result<Value, Error> {
        let payload = if body.is_empty() {
            Payload::Empty
        } else {
            Payload::Bytes("application/json", Bytes::from(body.to_owned()))
        };
        self.tokio.block_on(self.client.call(
            method,
            path,
            payload,
            Deadline(Duration::from_secs(10)),
        ))
    }

    /// `GET`.
    pub fn get(&self, path: &str) -> Result<Value, Error> {
        self.call(Method::GET, path, "")
    }

    /// The message and code with which the API refuses a request.
    #[track_caller]
    pub fn refusal(&self, method: Method, path: &str, body: &str) -> (u16, String) {
        match self.call(method, path, body) {
            Err(Error::Api(status)) => (status.code, status.message.clone()),
            other => panic!("a refusal by the API is wanted, not {other:?}"),
        }
    }

    /// The first event of a watch.
    pub fn first_event(&self, path: &str) -> Result<Value, Error> {
        use futures::StreamExt;
        self.tokio.block_on(async {
            let mut events = self.client.watch(path).await?;
            let event = tokio::time::timeout(Duration::from_secs(10), events.next())
                .await
                .expect("an event comes within 10 s");
            event
                .expect("the watch does not just end")
                .map(|event| event.object)
        })
    }
}
