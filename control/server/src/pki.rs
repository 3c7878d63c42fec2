//! The cluster's own certificate authority and the certificates it issues.
//!
//! Every master holds the CA's key, so that any of them can take in a node. Names follow Kubernetes: a certificate's common
//! name is the user, its organisations are the groups.

use crate::clock;
use anyhow::{Context, Result, anyhow, bail, ensure};
use client::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::time::Duration;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer};

const CA_DAYS: u64 = 3650;
const CERTIFICATE_DAYS: u64 = 365;
/// X.520's organizationName.
const ORGANIZATION_OID: [u64; 4] = [2, 5, 4, 10];
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

    /// A certificate of what was requested and found right, for a server or a client, valid for so long. The chain carries the CA.
    pub fn sign(&self, requested: &Requested, serves: bool, life: Duration) -> Result<String> {
        let mut request = CertificateSigningRequestParams::from_pem(&requested.csr_pem)
            .context("the certificate signing request is unusable")?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = DistinguishedName::new();
        let subject = &mut params.distinguished_name;
        subject.push(DnType::CommonName, requested.common_name.as_str());
        for (at, organization) in requested.organizations.iter().enumerate() {
            // The library keeps one value a type; a second organisation goes by the type's number.
            let kind = match at {
                0 => DnType::OrganizationName,
                1 => DnType::CustomDnType(ORGANIZATION_OID.to_vec()),
                _ => bail!("more than two organizations cannot be issued"),
            };
            subject.push(kind, organization.as_str());
        }
        params.subject_alt_names = requested.names.clone();
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![match serves {
            true => ExtendedKeyUsagePurpose::ServerAuth,
            false => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let now = std::time::UNIX_EPOCH + Duration::from_millis(clock::now().unix_ms().try_into()?);
        params.not_before = (now - CLOCK_SKEW.min(life / 10)).into();
        params.not_after = (now + life).into();
        request.params = params;
        Ok(self.chain(&request.signed_by(&self.issuer()?)?.pem()))
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

/// What a certificate signing request says, its signature verified.
#[derive(Clone, Debug)]
pub struct Requested {
    csr_pem: String,
    /// The user.
    pub common_name: String,
    /// The groups.
    pub organizations: Vec<String>,
    names: Vec<SanType>,
    /// Whether it names what is neither a DNS name nor an IP address.
    pub has_other_names: bool,
}

impl Requested {
    /// Reads a request in PEM.
    pub fn read(csr_pem: &str) -> Result<Self> {
        let parsed = CertificateSigningRequestParams::from_pem(csr_pem)
            .context("the certificate signing request is unusable")?;
        let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes())
            .map_err(|error| anyhow!("the certificate signing request is no PEM: {error}"))?;
        let (_, request) = X509CertificationRequest::from_der(&der)
            .map_err(|error| anyhow!("the certificate signing request is malformed: {error}"))?;
        let subject = &request.certification_request_info.subject;
        let names = texts(subject.iter_common_name())?;
        ensure!(
            names.len() <= 1,
            "the request has more than one common name"
        );
        let (known, other): (Vec<SanType>, Vec<SanType>) = parsed
            .params
            .subject_alt_names
            .into_iter()
            .partition(|name| matches!(name, SanType::DnsName(_) | SanType::IpAddress(_)));
        Ok(Requested {
            csr_pem: csr_pem.to_owned(),
            common_name: names.into_iter().next().unwrap_or_default(),
            organizations: texts(subject.iter_organization())?,
            has_other_names: !other.is_empty(),
            names: known,
        })
    }

    /// The DNS names and IP addresses, as texts.
    pub fn alternative_names(&self) -> Vec<String> {
        let text = |name: &SanType| match name {
            SanType::DnsName(name) => name.as_str().to_owned(),
            SanType::IpAddress(address) => address.to_string(),
            _ => String::new(),
        };
        self.names.iter().map(text).collect()
    }

    /// One that says this, for the signers' rules.
    #[cfg(test)]
    pub fn of_test(common_name: &str, organizations: &[&str], names: &[&str]) -> Self {
        let name = |name: &&str| SanType::DnsName((*name).try_into().expect("a name"));
        Requested {
            csr_pem: String::new(),
            common_name: common_name.to_owned(),
            organizations: organizations.iter().map(|it| (*it).to_owned()).collect(),
            names: names.iter().map(name).collect(),
            has_other_names: false,
        }
    }
}

fn texts<'a, 'b: 'a>(
    attributes: impl Iterator<Item = &'a AttributeTypeAndValue<'b>>,
) -> Result<Vec<String>> {
    attributes
        .map(|attribute| attribute.as_str().map(str::to_owned))
        .collect::<Result<_, _>>()
        .map_err(|error| anyhow!("the request's subject is no text: {error}"))
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
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use objects::identities::{MASTERS_GROUP, NODES_GROUP, node_user};

    #[test]
    fn signs_what_a_request_says_and_no_more() {
        let authority = Authority::generate("c1").expect("generates");
        let key = KeyPair::generate().expect("a key");
        let mut asked = CertificateParams::new(vec!["n1".to_owned()]).expect("params");
        let subject = &mut asked.distinguished_name;
        subject.push(DnType::CommonName, "ann");
        subject.push(DnType::OrganizationName, "devs");
        subject.push(DnType::CustomDnType(ORGANIZATION_OID.to_vec()), "ops");
        let csr = asked.serialize_request(&key).expect("a request");
        let requested = Requested::read(&csr.pem().expect("PEM")).expect("readable");
        assert_eq!(requested.common_name, "ann");
        assert_eq!(requested.organizations, ["devs", "ops"]);
        assert_eq!(requested.alternative_names(), ["n1"]);
        let chain = authority
            .sign(&requested, false, Duration::from_secs(600))
            .expect("signs");
        let der = CertificateDer::from_pem_slice(chain.as_bytes()).expect("PEM");
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).expect("parses");
        assert!(!certificate.is_ca());
        let groups: Vec<_> = certificate
            .subject()
            .iter_organization()
            .map(|group| group.as_str().expect("a text"))
            .collect();
        assert_eq!(groups, ["devs", "ops"]);
        let validity = certificate.validity();
        let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert_eq!(seconds, 660);
        let broken = csr.pem().expect("PEM").replace("MII", "MIJ");
        assert!(Requested::read(&broken).is_err());
    }

    #[test]
    fn a_changed_request_is_refused_or_says_the_same() {
        let key = KeyPair::generate().expect("a key");
        let mut asked = CertificateParams::new(vec!["n1".to_owned()]).expect("params");
        asked.distinguished_name.push(DnType::CommonName, "ann");
        let csr = asked.serialize_request(&key).expect("a request");
        let pem = |der: &[u8]| {
            let text = STANDARD.encode(der);
            format!(
                "-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"
            )
        };
        let der: &[u8] = csr.der();
        assert!(Requested::read(&pem(der)).is_ok());
        let flips = (0..der.len() * 8).map(|bit| {
            let mut changed = der.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            changed
        });
        let cuts = (0..der.len()).map(|end| der[..end].to_vec());
        for changed in flips.chain(cuts) {
            if let Ok(read) = Requested::read(&pem(&changed)) {
                assert_eq!(read.common_name, "ann");
                assert_eq!(read.alternative_names(), ["n1"]);
            }
        }
    }

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
