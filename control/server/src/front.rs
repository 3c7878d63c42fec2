//! What stands on a store, whichever it is: API server, controllers, scheduler, and what keeps the first objects and the operator's
//! files.

use crate::cli::Run;
use crate::create::host_port;
use crate::keyring::{KeyRing, SealedStore};
use crate::operator::OperatorFiles;
use crate::pki::Authority;
use crate::settings::{self, DataDir, MasterIdentity};
use crate::shell::MachineShell;
use crate::usage::Usage;
use crate::{boot, front_proxy, signing};
use anyhow::Result;
use api::{
    ApiConfig, ApiServer, Cluster, HttpsWebhooks, Identities, NodeClientTls, PemBundle, ServerTls,
    TokenKeys,
};
use client::Identity;
use mvcc::Store;
use reconcile::apiservice::BuiltIn;
use reconcile::controller::Outside;
use reconcile::tokensecret::TokenSigner;
use registry::{Pipeline, Registry, Shell};
use runtime::Runtime;
use serde_json::Value;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Where the masters' APIs are, as `https://address:port`, as far as this master knows.
pub type ApiUrls = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// What it is made of.
pub struct Front {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The masters.
    pub api_urls: ApiUrls,
    /// The command line.
    pub args: Run,
    /// Where the operator's files go.
    pub dir: DataDir,
    /// Who this master is.
    pub identity: MasterIdentity,
    /// The CA.
    pub authority: Authority,
    /// This master's certificate.
    pub certificate: Identity,
}

impl Front {
    /// Starts it; all of it ends by itself after `stop`, and not before. `cluster` makes what answers below `/cluster/v1/`.
    pub fn start(
        self,
        listener: TcpListener,
        stop: &CancellationToken,
        cluster: impl FnOnce(Runtime, KeyRing) -> Arc<dyn Cluster>,
    ) -> Result<JoinSet<()>> {
        let shell: Arc<dyn Shell> = Arc::new(MachineShell);
        let registry = Arc::new(Registry::builtin());
        let ring = KeyRing::new(self.store.clone(), self.authority.clone());
        let store: Arc<dyn Store> = Arc::new(SealedStore::new(self.store.clone(), ring.clone()));
        let pipeline = Pipeline::new(
            store.clone(),
            registry.clone(),
            shell.clone(),
            self.identity.settings.clone(),
        );
        let webhooks = Arc::new(HttpsWebhooks::default());
        let pipeline = pipeline.with_converter(webhooks.clone());
        let pipeline = Arc::new(pipeline.with_webhooks(webhooks.clone()));
        let usage = Usage::default();
        let runtime = Runtime {
            store,
            pipeline: pipeline.clone(),
            shell,
            controllers: reconcile::controller::all(Outside {
                settings: &self.identity.settings,
                ca_pem: &self.authority.certificate_pem,
                served: &built_in(&registry),
                metrics: Arc::new(usage.clone()),
                signer: Arc::new(AccountTokens(ring.token_keys())),
            }),
        };
        let cluster = cluster(runtime.clone(), ring.clone());
        let pem = PemBundle {
            chain_pem: self.certificate.certificate_pem.clone(),
            key_pem: self.certificate.key_pem.clone(),
            ca_pem: self.authority.certificate_pem.clone(),
        };
        let nodes = NodeClientTls::new(&pem)?;
        let identities = Identities {
            token_keys: ring.token_keys(),
            oidc: self.args.oidc.issuer()?,
            audit: self.args.audit.log()?,
        };
        let config = ApiConfig {
            describe: descriptions::of,
            ..ApiConfig::default()
        };
        let server = ApiServer::new(pipeline.clone(), cluster, nodes, identities, config);
        webhooks.reach_services_by(&server);
        let tls = ServerTls::new(&pem)?;
        let api_address = settings::api_service_address(&self.identity.settings)?.to_string();
        let own_url = format!(
            "https://{}",
            host_port(self.args.address, self.args.api_port)
        );
        let files = OperatorFiles {
            store: self.store.clone(),
            api_urls: self.api_urls.clone(),
            dir: self.dir.clone(),
            authority: self.authority.clone(),
            own_url: own_url.clone(),
        };

        let mut parts = JoinSet::new();
        parts.spawn(front_proxy::run(
            pipeline.clone(),
            server.clone(),
            self.authority.certificate_pem.clone(),
            self.identity.cluster_id.clone(),
            stop.clone(),
        ));
        parts.spawn(api::serve(listener, tls, server, stop.clone()));
        parts.spawn(runtime.run(stop.clone()));
        parts.spawn(ring.follow(stop.clone()));
        parts.spawn(usage.run(
            own_url,
            self.authority.certificate_pem.clone(),
            self.certificate.clone(),
            stop.clone(),
        ));
        let signed = pipeline.clone();
        parts.spawn(boot::run(
            self.store.clone(),
            self.api_urls,
            pipeline,
            registry,
            api_address,
            self.identity.settings.service_cidr.clone(),
            stop.clone(),
        ));
        parts.spawn(files.keep(stop.clone()));
        parts.spawn(signing::run(
            self.store.clone(),
            signed,
            self.authority.clone(),
            stop.clone(),
        ));
        Ok(parts)
    }
}

/// The keys of service accounts' tokens, for the controller that fills secrets with them.
struct AccountTokens(TokenKeys);

impl TokenSigner for AccountTokens {
    fn sign(&self, claims: &Value) -> Result<String, String> {
        self.0.sign(claims).map_err(|status| status.to_string())
    }

    fn knows(&self, token: &str) -> bool {
        self.0.signed(token)
    }
}

/// The groups and versions that are served without any definition.
fn built_in(registry: &Registry) -> Vec<BuiltIn> {
    let served = registry::aggregation::local(registry).into_iter();
    let built_in = served.map(|((group, version), priorities)| BuiltIn {
        name: format!("{version}.{group}"),
        priorities,
    });
    built_in.collect()
}
