//! The cluster's own certificate authority and the certificates it issues.
//!
//! Every master holds the CA's key, so that any of them can take in a node. Names follow Kubernetes: a certificate's common
//! name is the user, its organisations are the groups.

use crate::clock;
use anyhow::{Context, Result, anyhow};
use client::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::time::Duration;

const CA_DAYS: u64 = 3650;
const CERTIFICATE_DAYS: u64 = 365;
/// Clocks of machines differ; a certificate is valid from a little before its issue.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// A certificate authority: certificate and key, as PEM. It has no `Debug`, so that no log can show the key.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Authority {
    /// The certificate.
    pub certificate_pem: String,
    /// The key.
    pub key_pem: String,
}

/// To whom a certificate is issued.
#[derive(Clone, Debug, Default)]
pub struct Subject<'a> {
    /// The user.
    pub user: &'a str,
    /// The groups.
    pub groups: &'a [&'a str],
    /// Addresses at which it serves.
    pub addresses: &'a [IpAddr],
    /// Names at which it serves.
    pub names: &'a [&'a str],
}

impl Authority {
    /// A new authority, named after the cluster.
    pub fn generate(cluster_id: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("trireme-ca-{cluster_id}"));
        valid_for(&mut params, CA_DAYS)?;
        let certificate = params.self_signed(&key)?;
        Ok(Authority {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// SHA-256 of the certificate in DER: what a join token pins.
    pub fn sha256(&self) -> Result<[u8; 32]> {
        let der = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())
            .map_err(|error| anyhow!("the CA's certificate is no PEM: {error}"))?;
        Ok(Sha256::digest(&der).into())
    }

    /// A new key with a certificate; the chain carries the CA too, so that a joining machine can check its hash.
    pub fn issue(&self, subject: &Subject) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = params_for(subject)?.signed_by(&key, &self.issuer()?)?;
        Ok(Identity {
            certificate_pem: self.chain(&certificate.pem()),
            key_pem: key.serialize_pem(),
        })
    }

    /// A certificate for somebody else's key: what the request says of its subject does not count.
    pub fn sign_request(&self, csr_pem: &str, subject: &Subject) -> Result<String> {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem)
            .context("the certificate signing request is unusable")?;
        request.params = params_for(subject)?;
        let certificate = request.signed_by(&self.issuer()?)?;
        Ok(self.chain(&certificate.pem()))
    }

    fn chain(&self, certificate_pem: &str) -> String {
        format!("{certificate_pem}{}", self.certificate_pem)
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>> {
        let key = KeyPair::from_pem(&self.key_pem).context("the CA's key is unusable")?;
        Issuer::from_ca_cert_pem(&self.certificate_pem, key)
            .context("the CA's certificate is unusable")
    }
}

fn params_for(subject: &Subject) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, subject.user);
    for group in subject.groups {
        params
            .distinguished_name
            .push(DnType::OrganizationName, *group);
    }
    for address in subject.addresses {
        params.subject_alt_names.push(SanType::IpAddress(*address));
    }
    for name in subject.names {
        params
            .subject_alt_names
            .push(SanType::DnsName((*name).try_into()?));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    valid_for(&mut params, CERTIFICATE_DAYS)?;
    Ok(params)
}

fn valid_for(params: &mut CertificateParams, days: u64) -> Result<()> {
    let now = std::time::UNIX_EPOCH + Duration::from_millis(clock::now().unix_ms().try_into()?);
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + Duration::from_secs(days * 24 * 3600)).into();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use objects::identities::{MASTERS_GROUP, NODES_GROUP, node_user};

    #[test]
    fn issues_what_was_asked_and_ignores_what_a_request_claims() {
        let authority = Authority::generate("c1").expect("generates");
        let address = [IpAddr::from([10, 0, 0, 7])];
        let subject = Subject {
            user: &node_user("n1"),
            groups: &[NODES_GROUP],
            addresses: &address,
            names: &["n1"],
        };
        let key = KeyPair::generate().expect("a key");
        let mut claim = CertificateParams::new(Vec::new()).expect("params");
        claim
            .distinguished_name
            .push(DnType::OrganizationName, MASTERS_GROUP);
        let csr = claim
            .serialize_request(&key)
            .expect("a request")
            .pem()
            .expect("PEM");
        let chain = authority.sign_request(&csr, &subject).expect("signs");
        let ders: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .map(|der| der.expect("PEM"))
            .collect();
        assert_eq!(
            <[u8; 32]>::from(Sha256::digest(&ders[1])),
            authority.sha256().expect("hash")
        );
        let (_, certificate) = x509_parser::parse_x509_certificate(&ders[0]).expect("parses");
        let text = certificate.subject().to_string();
        assert!(
            text.contains(&node_user("n1")) && text.contains(NODES_GROUP),
            "{text}"
        );
        assert!(!text.contains(MASTERS_GROUP), "{text}");
    }
}
