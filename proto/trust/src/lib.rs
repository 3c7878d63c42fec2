//! Whom the TLS client of a part believes, where roots alone do not say it: each part has a judgement of its own on the certificate
//! that a server shows. That the server holds the certificate's key is checked here, always.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::sync::Arc;

/// What a server shows, and to whom and when.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Its own certificate.
    pub end_entity: &'a CertificateDer<'a>,
    /// The others that it sent along.
    pub intermediates: &'a [CertificateDer<'a>],
    /// The name under which it was called.
    pub server_name: &'a ServerName<'a>,
    /// Now.
    pub now: UnixTime,
}

impl Shown<'_> {
    /// What `chains` says of it.
    pub fn verify_with(&self, chains: &dyn ServerCertVerifier) -> Result<(), Error> {
        let Shown {
            end_entity,
            intermediates,
            server_name,
            now,
        } = *self;
        // Stapled revocation answers are not asked for, so there are none.
        let verified = chains.verify_server_cert(end_entity, intermediates, server_name, &[], now);
        verified.map(drop)
    }
}

/// Believes the servers of which `judge` says so.
pub fn servers(
    provider: Arc<CryptoProvider>,
    judge: impl Fn(Shown<'_>) -> Result<(), Error> + Send + Sync + 'static,
) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Judged {
        judge: Box::new(judge),
        provider,
    })
}

/// Believes any server that holds the key of the certificate that it shows.
pub fn anybody(provider: Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    servers(provider, |_| Ok(()))
}

type Judge = dyn Fn(Shown<'_>) -> Result<(), Error> + Send + Sync;

struct Judged {
    judge: Box<Judge>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judged").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Judged {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Shown {
            end_entity,
            intermediates,
            server_name,
            now,
        };
        (self.judge)(shown)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::ring;
    use rustls::{
        CertificateError, ClientConfig, ClientConnection, ServerConfig, ServerConnection,
    };
    use rustls_pki_types::PrivateKeyDer;

    /// What a client with this verifier says to a server that made its certificate itself.
    fn shake_hands(verifier: Arc<dyn ServerCertVerifier>) -> Result<(), Error> {
        let made = rcgen::generate_simple_self_signed(vec!["m1".to_owned()]).expect("made");
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.into()], key)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let mut server = ServerConnection::new(Arc::new(server))?;
        let name = ServerName::try_from("m1").expect("a name");
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        while client.is_handshaking() {
            let mut sent = Vec::new();
            client.write_tls(&mut sent).expect("memory takes it");
            server.read_tls(&mut &sent[..]).expect("memory gives it");
            server.process_new_packets()?;
            sent.clear();
            server.write_tls(&mut sent).expect("memory takes it");
            client.read_tls(&mut &sent[..]).expect("memory gives it");
            client.process_new_packets()?;
        }
        Ok(())
    }

    fn provider() -> Arc<CryptoProvider> {
        Arc::new(ring::default_provider())
    }

    #[test]
    fn the_judge_decides_and_sees_what_is_shown() {
        assert_eq!(shake_hands(anybody(provider())), Ok(()));
        let refused = || Error::from(CertificateError::ApplicationVerificationFailure);
        let nobody = servers(provider(), move |shown| {
            assert_eq!(shown.server_name.to_str(), "m1");
            Err(refused())
        });
        assert_eq!(shake_hands(nobody), Err(refused()));
    }
}
