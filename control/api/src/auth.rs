//! Who asks: by a client certificate, by a bearer token, or nobody; and whom the caller may speak for.
//!
//! Of a certificate CN is the user, every O a group, as Kubernetes' x509 authenticator reads them; the certificate itself was
//! verified in the handshake. Tokens are [`crate::tokens`]'. Who proves nothing is `system:anonymous`; a proof that fails is
//! 401. Whether the caller may do what it asks is decided by `registry::rbac`.

use crate::ApiServer;
use crate::query::decode_segment;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use objects::Status;
use objects::identities::{
    ANONYMOUS_USER, AUTHENTICATED_GROUP, NODES_GROUP, UNAUTHENTICATED_GROUP,
    service_account_groups, service_account_of,
};
use registry::Caller;
use registry::rbac::Request;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use x509_parser::prelude::{FromDer, X509Certificate};

const EXTRA_PREFIX: &str = "impersonate-extra-";

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
}

/// Who a request is from.
#[derive(Clone, Debug)]
pub struct Identified {
    /// Who proved itself.
    pub user: Caller,
    /// Who it acts as, when it impersonates.
    pub acting: Option<Caller>,
}

impl Identified {
    /// As whom the request is decided and done.
    pub fn caller(&self) -> &Caller {
        self.acting.as_ref().unwrap_or(&self.user)
    }
}

impl ApiServer {
    /// Who asks; 401 when a proof fails, 403 when the caller may not speak for whom it names.
    pub(crate) async fn identify(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Result<Identified, Status> {
        let user = match (&peer.caller, bearer_token(headers)) {
            (Some(caller), _) => caller.clone(),
            (None, Some(token)) => self.authenticate(token).await?,
            (None, None) if headers.contains_key(AUTHORIZATION) => {
                return Err(Status::unauthorized());
            }
            (None, None) => anonymous(),
        };
        let acting = self.impersonate(&user, headers).await?;
        Ok(Identified { user, acting })
    }

    /// Whom the headers name, if the caller may speak for all of it.
    async fn impersonate(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
    ) -> Result<Option<Caller>, Status> {
        let Some(named) = impersonated(headers)? else {
            return Ok(None);
        };
        let asked = |group, resource, subresource, namespace, name| Request {
            verb: "impersonate",
            group,
            resource,
            subresource,
            namespace,
            name,
            ..Request::default()
        };
        const AUTHENTICATION: &str = "authentication.k8s.io";
        let user = match service_account_of(&named.user) {
            Some((namespace, name)) => asked("", "serviceaccounts", "", namespace, name),
            None => asked("", "users", "", "", &named.user),
        };
        self.allow(caller, &user).await?;
        for group in &named.groups {
            self.allow(caller, &asked("", "groups", "", "", group))
                .await?;
        }
        if !named.uid.is_empty() {
            let uid = asked(AUTHENTICATION, "uids", "", "", &named.uid);
            self.allow(caller, &uid).await?;
        }
        for (key, values) in &named.extra {
            for value in values {
                let extra = asked(AUTHENTICATION, "userextras", key, "", value);
                self.allow(caller, &extra).await?;
            }
        }
        Ok(Some(with_implied_groups(named)))
    }
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

fn anonymous() -> Caller {
    Caller {
        user: ANONYMOUS_USER.to_owned(),
        groups: vec![UNAUTHENTICATED_GROUP.to_owned()],
        ..Caller::default()
    }
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

/// Whom the headers name; None when they name nobody.
fn impersonated(headers: &HeaderMap) -> Result<Option<Caller>, Status> {
    let texts = |name: &str| {
        let values = headers.get_all(name).into_iter();
        values
            .map(|value| {
                let text = value.to_str();
                text.map(str::to_owned).map_err(|_| {
                    Status::bad_request(format!("the header {name} is no readable text"))
                })
            })
            .collect::<Result<Vec<String>, Status>>()
    };
    let mut named = Caller {
        user: texts("impersonate-user")?
            .into_iter()
            .next()
            .unwrap_or_default(),
        groups: texts("impersonate-group")?,
        uid: texts("impersonate-uid")?
            .into_iter()
            .next()
            .unwrap_or_default(),
        ..Caller::default()
    };
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            let decoded = decode_segment(key).unwrap_or_else(|| key.to_owned());
            named
                .extra
                .insert(decoded.to_lowercase(), texts(name.as_str())?);
        }
    }
    let names_more = !named.groups.is_empty() || !named.uid.is_empty() || !named.extra.is_empty();
    match (named.user.is_empty(), names_more) {
        (false, _) => Ok(Some(named)),
        (true, false) => Ok(None),
        (true, true) => Err(Status::bad_request(
            "groups, uid or extra were given to impersonate without a user: set Impersonate-User too",
        )),
    }
}

/// The groups that follow from a name.
fn with_implied_groups(mut named: Caller) -> Caller {
    if named.groups.is_empty()
        && let Some((namespace, _)) = service_account_of(&named.user)
    {
        named.groups = service_account_groups(namespace);
    }
    let implied = if named.user == ANONYMOUS_USER {
        UNAUTHENTICATED_GROUP
    } else {
        AUTHENTICATED_GROUP
    };
    if !named.groups.iter().any(|group| group == implied) {
        named.groups.push(implied.to_owned());
    }
    named
}
