//! Image references, normalised as Docker does: `busybox` is `docker.io/library/busybox:latest`.
//! Pure. Grammar: distribution/reference.

use std::fmt;

use crate::error::{Error, Result};

/// A normalised reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host, with its port if it has one: `docker.io`.
    pub registry: String,
    /// Path: `library/busybox`.
    pub repository: String,
    /// Tag; `latest` where neither tag nor digest was given.
    pub tag: Option<String>,
    /// `sha256:…`; it wins over the tag.
    pub digest: Option<String>,
}

impl Reference {
    /// Parses what a user writes as `image:`.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |message: &str| Error::Reference {
            reference: text.into(),
            message: message.into(),
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_string())),
            None => (text, None),
        };
        if digest.as_ref().is_some_and(|digest| !is_digest(digest)) {
            return Err(invalid(
                "the digest must be sha256: and 64 hexadecimal digits",
            ));
        }
        // A colon after the last slash begins the tag; before it, a port.
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].find(':') {
            Some(colon) => (
                &rest[..slash + colon],
                Some(rest[slash + colon + 1..].to_string()),
            ),
            None => (rest, None),
        };
        if tag.as_ref().is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid(
                "invalid reference format: the tag has characters that are not allowed",
            ));
        }
        let (registry, path) = split_registry(name);
        if !is_host(registry) {
            return Err(invalid(
                "invalid reference format: the registry is not a host name",
            ));
        }
        if path.is_empty() || !path.split('/').all(is_component) {
            return Err(invalid(
                "invalid reference format: repository names are lower case letters, digits and separators",
            ));
        }
        let repository = if registry == "docker.io" && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_string()
        };
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_string()));
        Ok(Self {
            registry: registry.to_string(),
            repository,
            tag,
            digest,
        })
    }

    /// `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What a registry is asked for: the digest, or the tag.
    pub fn version(&self) -> &str {
        self.digest
            .as_deref()
            .or(self.tag.as_deref())
            .unwrap_or("latest")
    }

    /// The registry is reached without TLS: loopback is, as in Docker.
    pub fn is_loopback(&self) -> bool {
        let host = self
            .registry
            .rsplit_once(':')
            .map_or(self.registry.as_str(), |(host, _)| host);
        host == "localhost"
            || host == "[::1]"
            || host
                .parse::<std::net::Ipv4Addr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.repository)?;
        match (&self.tag, &self.digest) {
            (_, Some(digest)) => write!(formatter, "@{digest}"),
            (Some(tag), None) => write!(formatter, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

/// `sha256:` and 64 lower-case hexadecimal digits: safe as a file name too.
pub(crate) fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (
            if host == "index.docker.io" {
                "docker.io"
            } else {
                host
            },
            path,
        ),
        _ => ("docker.io", name),
    }
}

fn is_host(registry: &str) -> bool {
    let (host, port) = registry
        .rsplit_once(':')
        .filter(|_| !registry.ends_with(']'))
        .unwrap_or((registry, "0"));
    let named = host.split('.').all(|label| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    });
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    (named || address) && port.parse::<u16>().is_ok()
}

fn is_component(component: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !component.is_empty()
        && component
            .bytes()
            .all(|byte| inner(byte) || matches!(byte, b'.' | b'_' | b'-'))
        && component.bytes().next().is_some_and(inner)
        && component.bytes().last().is_some_and(inner)
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && tag
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        && !tag.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_as_docker_does() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (given, expected) in [
            ("busybox", "docker.io/library/busybox:latest".to_string()),
            ("busybox:1.36", "docker.io/library/busybox:1.36".to_string()),
            ("user/app", "docker.io/user/app:latest".to_string()),
            ("localhost/app", "localhost/app:latest".to_string()),
            ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1".to_string()),
            (
                "registry.k8s.io/pause:3.9",
                "registry.k8s.io/pause:3.9".to_string(),
            ),
            (
                "index.docker.io/library/a",
                "docker.io/library/a:latest".to_string(),
            ),
            (
                &format!("a/b:v1@{digest}"),
                format!("docker.io/a/b@{digest}"),
            ),
        ] {
            assert_eq!(
                Reference::parse(given).expect(given).to_string(),
                expected,
                "{given}"
            );
        }
    }

    #[test]
    fn refuses_what_docker_refuses() {
        for given in [
            "",
            "Busybox",
            "a:",
            "a:b c",
            "a@sha256:12",
            "host:5000/",
            "-a",
            "a//b",
            "../x",
            "a.b:port/c",
        ] {
            assert!(Reference::parse(given).is_err(), "{given:?}");
        }
    }

    #[test]
    fn loopback_needs_no_tls() {
        for (given, expected) in [
            ("localhost:5000/a", true),
            ("127.0.0.1:5000/a", true),
            ("127.9.0.1/a", true),
            ("[::1]:5000/a", true),
            ("a", false),
            ("10.0.0.1:5000/a", false),
        ] {
            assert_eq!(
                Reference::parse(given).expect(given).is_loopback(),
                expected,
                "{given}"
            );
        }
    }
}
