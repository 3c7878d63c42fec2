//! Certificate requests: who approves or signs must be allowed to for that signer.
//! Rules and words: Kubernetes' CertificateApproval, CertificateSigning and CertificateSubjectRestriction plugins.

use crate::pipeline::Pipeline;
use crate::rbac::Request;
use crate::{Caller, Target};
use objects::{Object, Status};

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
