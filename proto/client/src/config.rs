//! Where the API is and who we are: from a kubeconfig, or built by hand.
//!
//! The file's format is Kubernetes' client configuration v1. One extension: a cluster may name further masters under
//! `extensions`, name `trireme.masters`, so that `ctl` can use them all; kubectl ignores it.

use crate::Identity;
use base64::Engine;
use objects::Secret;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

const MASTERS_EXTENSION: &str = "trireme.masters";

/// Settings of a client.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// API URLs of the masters: `https://address:port`.
    pub servers: Vec<String>,
    /// The CA's certificate in PEM.
    pub ca_pem: String,
    /// Our certificate and key.
    pub identity: Option<Identity>,
    /// A bearer token.
    pub token: Option<Secret>,
    /// The namespace of commands that name none.
    pub namespace: String,
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file.
    #[error(
        "cannot read the kubeconfig {path}: {source}; `deploy/up` and `control` write one, or name one with --kubeconfig or KUBECONFIG"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not what a kubeconfig is.
    #[error("the kubeconfig {path} is malformed: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A certificate, a key or a URL that cannot be used.
    #[error("{what} cannot be used: {reason}")]
    Unusable {
        /// Which.
        what: String,
        /// Why.
        reason: String,
    },
}

/// A kubeconfig file. It holds keys, so that it has no `Debug`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Kubeconfig {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
    current_context: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority_data: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extensions: Vec<NamedExtension>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct NamedExtension {
    name: String,
    extension: Value,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
}

impl Config {
    /// From `explicit`, else `$KUBECONFIG`, else `~/.kube/config`; of its contexts `context`, else the current one.
    pub fn load(explicit: Option<&Path>, context: Option<&str>) -> Result<Self, ConfigError> {
        let path = explicit.map_or_else(default_path, Path::to_path_buf);
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        let malformed = |reason: String| ConfigError::Malformed {
            path: path.clone(),
            reason,
        };
        let file: Kubeconfig =
            serde_saphyr::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        file.resolve(context, path.parent().unwrap_or(Path::new(".")))
            .map_err(malformed)
    }
}

impl Kubeconfig {
    /// A file with one cluster, one user and one context, all named `name`.
    pub fn for_config(name: &str, config: &Config) -> Self {
        let encode = |text: &str| Some(base64::engine::general_purpose::STANDARD.encode(text));
        let masters = NamedExtension {
            name: MASTERS_EXTENSION.to_owned(),
            extension: config.servers.clone().into(),
        };
        let cluster = Cluster {
            server: config.servers.first().cloned().unwrap_or_default(),
            certificate_authority: None,
            certificate_authority_data: encode(&config.ca_pem),
            extensions: vec![masters],
        };
        let identity = config.identity.as_ref();
        let user = User {
            client_certificate_data: identity
                .and_then(|identity| encode(&identity.certificate_pem)),
            client_key_data: identity.and_then(|identity| encode(&identity.key_pem)),
            token: config.token.as_ref().map(|token| token.0.clone()),
            ..User::default()
        };
        let context = Context {
            cluster: name.to_owned(),
            user: name.to_owned(),
            namespace: None,
        };
        Kubeconfig {
            api_version: "v1".to_owned(),
            kind: "Config".to_owned(),
            clusters: vec![NamedCluster {
                name: name.to_owned(),
                cluster,
            }],
            users: vec![NamedUser {
                name: name.to_owned(),
                user,
            }],
            contexts: vec![NamedContext {
                name: name.to_owned(),
                context,
            }],
            current_context: name.to_owned(),
        }
    }

    /// The file's text. JSON is YAML too, and every client reads it.
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a kubeconfig is plain data");
        text.push('\n');
        text
    }

    fn resolve(&self, context: Option<&str>, folder: &Path) -> Result<Config, String> {
        let wanted = context.unwrap_or(&self.current_context);
        let context = find(&self.contexts, wanted, |named| &named.name)
            .ok_or(format!("it has no context {wanted:?}"))?;
        let context = &context.context;
        let cluster = find(&self.clusters, &context.cluster, |named| &named.name)
            .ok_or(format!("it has no cluster {:?}", context.cluster))?;
        let user = find(&self.users, &context.user, |named| &named.name)
            .map(|named| named.user.clone())
            .unwrap_or_default();
        let cluster = &cluster.cluster;
        let ca_pem = data_or_file(
            "certificate-authority",
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
            folder,
        )?;
        let certificate = data_or_file(
            "client-certificate",
            &user.client_certificate_data,
            &user.client_certificate,
            folder,
        )?;
        let key = data_or_file(
            "client-key",
            &user.client_key_data,
            &user.client_key,
            folder,
        )?;
        let identity = certificate
            .zip(key)
            .map(|(certificate_pem, key_pem)| Identity {
                certificate_pem,
                key_pem,
            });
        Ok(Config {
            servers: cluster.all_servers(),
            ca_pem: ca_pem.unwrap_or_default(),
            identity,
            token: user.token.clone().map(Secret),
            namespace: context
                .namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
        })
    }
}

impl Cluster {
    fn all_servers(&self) -> Vec<String> {
        let mut servers = vec![self.server.trim_end_matches('/').to_owned()];
        let extension = find(&self.extensions, MASTERS_EXTENSION, |named| &named.name);
        let more = extension
            .and_then(|named| named.extension.as_array())
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        for server in more {
            if !servers.iter().any(|known| known == server) {
                servers.push(server.to_owned());
            }
        }
        servers
    }
}

fn find<'a, T>(items: &'a [T], name: &str, name_of: impl Fn(&T) -> &String) -> Option<&'a T> {
    items.iter().find(|item| name_of(item) == name)
}

fn data_or_file(
    what: &str,
    data: &Option<String>,
    file: &Option<PathBuf>,
    folder: &Path,
) -> Result<Option<String>, String> {
    if let Some(data) = data {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(data)
            .map_err(|error| format!("{what}-data is not base64: {error}"))?;
        return String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| format!("{what}-data is not PEM"));
    }
    let Some(file) = file else { return Ok(None) };
    let path = folder.join(file);
    std::fs::read_to_string(&path)
        .map(Some)
        .map_err(|error| format!("{what} {}: {error}", path.display()))
}

fn default_path() -> PathBuf {
    if let Some(path) = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()) {
        return std::env::split_paths(&path).next().unwrap_or_default();
    }
    PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".kube/config")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_reads_back() {
        let config = Config {
            servers: vec![
                "https://10.0.0.1:6443".to_owned(),
                "https://10.0.0.2:6443".to_owned(),
            ],
            ca_pem: "CA".to_owned(),
            identity: Some(Identity {
                certificate_pem: "CERT".to_owned(),
                key_pem: "KEY".to_owned(),
            }),
            token: None,
            namespace: String::new(),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        std::fs::write(&path, Kubeconfig::for_config("trireme", &config).to_text())
            .expect("writes");
        let read = Config::load(Some(&path), None).expect("loads");
        assert_eq!(
            (read.servers, read.ca_pem, read.identity),
            (config.servers, config.ca_pem, config.identity)
        );
        assert_eq!(read.namespace, "default");
        let error = Config::load(Some(&path), Some("other"))
            .expect_err("no such context")
            .to_string();
        assert!(error.contains("no context \"other\""), "{error}");
    }
}
