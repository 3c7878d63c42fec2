//! Pulls an image for a pod, with the users of registries that its `imagePullSecrets` hold.

use base64::Engine;
use lifecycle::Desired;
use node_runtime::{PullOptions, RegistryCredentials};
use serde_json::Value;

use super::references;
use crate::context::Context;

/// Pulls; the error is the container's waiting reason and message.
pub async fn pull(
    context: &Context,
    desired: &Desired,
    image: &str,
) -> Result<(), (String, String)> {
    let mut credentials = vec![];
    for reference in desired.spec().image_pull_secrets.iter().flatten() {
        match references::secret(&context.client, &desired.namespace, &reference.name).await {
            Ok(Some(secret)) => {
                let config = secret
                    .data
                    .as_ref()
                    .and_then(|data| data.get(".dockerconfigjson"));
                credentials.extend(config.into_iter().flat_map(|config| users(&config.0)));
            }
            Ok(None) => {
                tracing::warn!(pod = %desired.name, secret = %reference.name, "the image pull secret does not exist; pulling without it")
            }
            Err(error) => {
                tracing::warn!(pod = %desired.name, %error, "cannot read the image pull secret; pulling without it")
            }
        }
    }
    let options = PullOptions {
        credentials,
        ..PullOptions::default()
    };
    match context.pods.images().pull(image, options).await {
        Ok(_) => Ok(()),
        Err(error) => Err((error.reason().to_owned(), error.to_string())),
    }
}

/// The users in a Docker configuration.
fn users(config: &[u8]) -> Vec<RegistryCredentials> {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    let user = |(registry, entry): (&String, &Value)| {
        let text = |field: &str| entry[field].as_str().map(str::to_owned);
        let both = text("auth")
            .and_then(|auth| base64::engine::general_purpose::STANDARD.decode(auth).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let (username, password) = match both.as_deref().and_then(|both| both.split_once(':')) {
            Some((username, password)) => (username.to_owned(), password.to_owned()),
            None => (text("username")?, text("password")?),
        };
        let registry = registry
            .trim_start_matches("https://")
            .trim_start_matches("http://")
            .split('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        Some(RegistryCredentials {
            registry,
            username,
            password,
        })
    };
    config["auths"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(user)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_a_docker_configuration() {
        let found = users(br#"{"auths":{"https://r.example/v1/":{"auth":"YTpiOmM="},"q:5000":{"username":"u","password":"p"},"x":{}}}"#);
        let expected = [("r.example", "a", "b:c"), ("q:5000", "u", "p")];
        let found: Vec<_> = found
            .iter()
            .map(|user| {
                (
                    user.registry.as_str(),
                    user.username.as_str(),
                    user.password.as_str(),
                )
            })
            .collect();
        assert_eq!(found, expected);
    }
}
