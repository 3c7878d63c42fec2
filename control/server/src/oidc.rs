//! The OpenID Connect issuer that the command line names.

use crate::cli::OidcFlags;
use anyhow::{Context, Result, bail};
use api::{Oidc, OidcConfig};
use std::path::{Path, PathBuf};

/// Where systems keep the CAs that they trust: Debian's place, Fedora's, Alpine's.
const SYSTEM_CAS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

impl OidcFlags {
    /// The issuer; None where none is named.
    pub fn issuer(&self) -> Result<Option<Oidc>> {
        let Some(issuer_url) = self.oidc_issuer_url.clone() else {
            return Ok(None);
        };
        let path = match &self.oidc_ca_file {
            Some(path) => path.clone(),
            None => system_cas()?,
        };
        let ca_pem = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read the issuer's CAs in {}", path.display()))?;
        let config = OidcConfig {
            issuer_url,
            client_id: self.oidc_client_id.clone().unwrap_or_default(),
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            required_claims: self.oidc_required_claim.iter().cloned().collect(),
            ca_pem,
        };
        Ok(Some(Oidc::new(config)?))
    }
}

fn system_cas() -> Result<PathBuf> {
    let found = SYSTEM_CAS.iter().find(|path| Path::new(path).exists());
    match found {
        Some(path) => Ok(PathBuf::from(path)),
        None => bail!(
            "this system keeps no CAs in {}; name the issuer's with --oidc-ca-file",
            SYSTEM_CAS.join(", ")
        ),
    }
}
