//! Who asks: the client certificate's subject, and whom an administrator may speak for.
//!
//! CN is the user, every O a group, as Kubernetes' x509 authenticator reads them. The certificate itself was verified in
//! the handshake. Whether the caller may do what it asks is decided by `registry::authorize`.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use objects::identities::{AUTHENTICATED_GROUP, MASTERS_GROUP, NODES_GROUP};
use objects::{GroupResource, Status};
use registry::Caller;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Who it is; None without a client certificate.
    pub caller: Option<Caller>,
}

impl Peer {
    /// Reads the certificates of a finished handshake.
    pub fn new(address: SocketAddr, certificates: Option<&[CertificateDer<'_>]>) -> Self {
        let leaf = certificates.and_then(|chain| chain.first());
        Peer {
            address,
            caller: leaf.and_then(|certificate| caller_of(certificate)),
        }
    }

    /// Who asks, with the identity that it takes on by `Impersonate-User`; 401 without a certificate.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Status> {
        let caller = self.caller.clone().ok_or_else(Status::unauthorized)?;
        impersonate(caller, headers)
    }
}

/// Whether the caller is an administrator.
pub fn is_master(caller: &Caller) -> bool {
    caller.groups.iter().any(|group| group == MASTERS_GROUP)
}

/// Whether the caller is a node's agent.
pub fn is_node(caller: &Caller) -> bool {
    caller.groups.iter().any(|group| group == NODES_GROUP)
}

/// The token of `Authorization: Bearer …`.
pub fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn caller_of(certificate: &CertificateDer<'_>) -> Option<Caller> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<String> = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok())
        .map(str::to_owned)
        .collect();
    groups.push(AUTHENTICATED_GROUP.to_owned());
    Some(Caller {
        user,
        groups,
        ..Caller::default()
    })
}

/// Only administrators may impersonate.
fn impersonate(caller: Caller, headers: &HeaderMap) -> Result<Caller, Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(user) = text("impersonate-user").filter(|user| !user.is_empty()) else {
        return Ok(caller);
    };
    if !is_master(&caller) {
        let why = format!(
            "User {:?} cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
            caller.user
        );
        return Err(Status::forbidden(
            &GroupResource::new("", "users"),
            user,
            &why,
        ));
    }
    let mut groups: Vec<String> = headers
        .get_all("impersonate-group")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned)
        .collect();
    groups.push(AUTHENTICATED_GROUP.to_owned());
    Ok(Caller {
        user: user.to_owned(),
        groups,
        ..Caller::default()
    })
}
