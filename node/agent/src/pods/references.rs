//! ConfigMaps and Secrets that a pod names, asked for when they are needed. None is kept.

use client::{Client, Error, encode_segment};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Secret};
use lifecycle::env::{self, Sources};
use serde::de::DeserializeOwned;

use crate::context::Context;

/// A ConfigMap; none if it does not exist.
pub async fn config_map(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<ConfigMap>, Error> {
    optional(client, "configmaps", namespace, name).await
}

/// A Secret; none if it does not exist.
pub async fn secret(client: &Client, namespace: &str, name: &str) -> Result<Option<Secret>, Error> {
    optional(client, "secrets", namespace, name).await
}

async fn optional<T: DeserializeOwned>(
    client: &Client,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<T>, Error> {
    let path = format!(
        "/api/v1/namespaces/{}/{resource}/{}",
        encode_segment(namespace),
        encode_segment(name)
    );
    match client.get(&path).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_code(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the environment of `container` refers to.
pub async fn sources(
    context: &Context,
    namespace: &str,
    container: &Container,
) -> Result<Sources, Error> {
    let (config_maps, secrets) = env::references(container);
    let mut sources = Sources {
        services: api_variables(context),
        node_name: context.node.clone(),
        node_capacity: (context.cpu_milli, context.around.memory_bytes),
        ..Sources::default()
    };
    for name in config_maps {
        if let Some(found) = config_map(&context.client, namespace, &name).await? {
            sources.config_maps.insert(name, found);
        }
    }
    for name in secrets {
        if let Some(found) = secret(&context.client, namespace, &name).await? {
            sources.secrets.insert(name, found);
        }
    }
    Ok(sources)
}

/// By these, clients inside of pods find the API.
fn api_variables(context: &Context) -> Vec<(String, String)> {
    let Some(address) = context.api_service else {
        return vec![];
    };
    let url = format!("tcp://{address}:443");
    let pairs = [
        ("KUBERNETES_SERVICE_HOST", address.to_string()),
        ("KUBERNETES_SERVICE_PORT", "443".to_owned()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443".to_owned()),
        ("KUBERNETES_PORT", url.clone()),
        ("KUBERNETES_PORT_443_TCP", url),
        ("KUBERNETES_PORT_443_TCP_PROTO", "tcp".to_owned()),
        ("KUBERNETES_PORT_443_TCP_PORT", "443".to_owned()),
        ("KUBERNETES_PORT_443_TCP_ADDR", address.to_string()),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
