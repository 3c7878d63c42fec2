//! Certificate requests: who approves or signs must be allowed to for that signer.
//! Rules and words: Kubernetes' CertificateApproval, CertificateSigning and CertificateSubjectRestriction plugins.

use super::Attributes;
use crate::pipeline::Pipeline;
use crate::rbac::Request;
use crate::strategy::field_value;
use crate::{Caller, Target};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use objects::identities::MASTERS_GROUP;
use objects::{Object, Status};
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

const GROUP: &str = "certificates.k8s.io";

fn is_request(target: &Target) -> bool {
    target.resource.group == GROUP && target.resource.resource == "certificatesigningrequests"
}

/// Whether the caller may decide on the request, or sign it.
pub fn may_sign(
    pipeline: &Pipeline,
    caller: &Caller,
    target: &Target,
    object: &Object,
) -> Result<(), Status> {
    let verb = match target.subresource.as_deref() {
        Some("approval") => "approve",
        Some("status") => "sign",
        _ => return Ok(()),
    };
    if !is_request(target) {
        return Ok(());
    }
    let spec = object.body.get("spec");
    let signer = spec.and_then(|spec| spec.get("signerName")?.as_str());
    let signer = signer.unwrap_or_default();
    let domain = signer.split_once('/').map_or("", |(domain, _)| domain);
    let of_domain = format!("{domain}/*");
    let allowed = [signer, &of_domain].into_iter().any(|name| {
        let request = Request {
            verb,
            group: GROUP,
            resource: "signers",
            name,
            ..Request::default()
        };
        pipeline.access().decide(caller, &request).is_allowed()
    });
    match allowed {
        true => Ok(()),
        false => {
            let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
            let name = &object.metadata.name;
            Err(Status::forbidden(&target.group_resource(), name, &why))
        }
    }
}

/// Whether the request asks for what its signer may certify: nobody becomes one of the masters so.
pub fn may_ask(asked: &Attributes<'_>, object: &Object) -> Result<(), Status> {
    const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
    if !asked.creates(GROUP, "certificatesigningrequests") {
        return Ok(());
    }
    let text = |name: &str| field_value(&object.body, name).and_then(Value::as_str);
    if text("spec.signerName") != Some(SIGNER) {
        return Ok(());
    }
    let pem = STANDARD.decode(text("spec.request").unwrap_or_default());
    let names_masters = pem
        .ok()
        .and_then(|pem| organizations(&pem))
        .is_some_and(|names| names.iter().any(|name| name == MASTERS_GROUP));
    if !names_masters {
        return Ok(());
    }
    let why = format!("use of {SIGNER} signer with {MASTERS_GROUP} group is not allowed");
    Err(asked.forbidden(&object.metadata.name, &why))
}

/// The organizations that a certificate request's subject names; None for what is no request.
fn organizations(pem: &[u8]) -> Option<Vec<String>> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    let subject = &request.certification_request_info.subject;
    let names = subject.iter_organization();
    Some(
        names
            .filter_map(|name| name.as_str().ok())
            .map(str::to_owned)
            .collect(),
    )
}
