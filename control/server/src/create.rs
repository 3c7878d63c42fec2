//! How a data directory gets its master: of a new cluster, by joining one, or out of a snapshot. `identity.json` is written
//! last, so that a directory without it holds nothing of worth and may be filled again.

use crate::cli::Run;
use crate::pki::{Authority, Subject};
use crate::settings::{self, DataDir, MasterIdentity};
use crate::{clock, former};
use anyhow::{Context, Result, bail, ensure};
use client::{Identity, JoinToken};
use objects::Reason;
use objects::cluster::{ClusterSettings, JoinRequest, JoinResponse, MemberAdd};
use objects::identities::{ADMIN_USER, MASTER_USER, MASTERS_GROUP};
use std::net::IpAddr;

/// The name by which masters know one another in TLS, whatever their addresses.
pub const MASTER_NAME: &str = "trireme-control";
/// The service through which pods reach the API.
const API_NAMES: [&str; 4] = [
    MASTER_NAME,
    "kubernetes",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];
/// How long a joining master keeps asking; the others may still be starting.
const JOIN_ATTEMPTS: u32 = 60;
/// A former self that was killed just now counts as alive for a moment; one that still does then is.
const ALIVE_ATTEMPTS: u32 = 10;
const JOIN_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// The master that the directory holds, made first when it holds none.
pub async fn identity(dir: &DataDir, args: &Run, name: &str) -> Result<MasterIdentity> {
    if args.rejoin {
        former::set_aside(dir, args).await?;
    }
    if let Some(identity) = dir.identity()? {
        ensure!(
            identity.name == name,
            "the data directory {} belongs to the master {:?}, not to {name:?}; give it that name or choose another directory",
            dir.root().display(),
            identity.name
        );
        former::refuse(dir, &identity, args).await?;
        return Ok(identity);
    }
    if args.init {
        return found(dir, args, name);
    }
    ensure!(
        !args.join.is_empty(),
        "the data directory {} holds no master yet: say --init to make a new cluster, or --join URL --token-file FILE to join one",
        dir.root().display()
    );
    join(dir, args, name).await
}

/// A new cluster.
fn found(dir: &DataDir, args: &Run, name: &str) -> Result<MasterIdentity> {
    let defaults = settings::defaults();
    let settings = settings::checked(ClusterSettings {
        cluster_cidr: args.cluster_cidr.clone().unwrap_or(defaults.cluster_cidr),
        service_cidr: args.service_cidr.clone().unwrap_or(defaults.service_cidr),
        ..defaults
    })?;
    let cluster_id = clock::new_uid().0;
    let authority = Authority::generate(&cluster_id)?;
    let identity = MasterIdentity {
        cluster_id,
        member_id: 1,
        name: name.to_owned(),
        founder: true,
        opened: false,
        settings,
        store: None,
    };
    establish(dir, &authority, &identity, args.address)?;
    Ok(identity)
}

/// A member of a cluster that runs.
async fn join(dir: &DataDir, args: &Run, name: &str) -> Result<MasterIdentity> {
    let token = token(args)?;
    let request = JoinRequest::Master {
        member: own_addresses(args, name),
        replaces: args.replace.clone(),
    };
    let response = ask_to_join(async || client::join(&args.join, &token, &request).await).await?;
    let JoinResponse::Master {
        cluster_id,
        member_id,
        ca_pem,
        ca_key_pem,
        settings,
        ..
    } = response
    else {
        bail!(
            "the cluster answered the join as though this were a node; is it of another version?"
        );
    };
    let authority = Authority {
        certificate_pem: ca_pem,
        key_pem: ca_key_pem.0,
    };
    ensure!(
        authority.sha256()? == token.ca_sha256,
        "the cluster's CA is not the one that the join token names"
    );
    let identity = MasterIdentity {
        cluster_id,
        member_id,
        name: name.to_owned(),
        founder: false,
        opened: false,
        settings,
        store: None,
    };
    establish(dir, &authority, &identity, args.address)?;
    Ok(identity)
}

/// The name of this master and where it is reached.
pub fn own_addresses(args: &Run, name: &str) -> MemberAdd {
    MemberAdd {
        name: name.to_owned(),
        peer_address: host_port(args.address, args.peer_port),
        api_url: format!("https://{}", host_port(args.address, args.api_port)),
    }
}

/// The join token that the command line names.
pub fn token(args: &Run) -> Result<JoinToken> {
    let path = args
        .token_file
        .as_deref()
        .context("--join needs --token-file")?;
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the token file {}", path.display()))?;
    Ok(text.parse()?)
}

/// Asks until some master can answer; a refusal is final.
pub async fn ask_to_join(
    ask: impl AsyncFn() -> Result<JoinResponse, client::Error>,
) -> Result<JoinResponse> {
    let mut attempt = 1;
    loop {
        let error = match ask().await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let is_final = match &error {
            client::Error::Untrusted { .. } => true,
            error => error.status().is_some_and(|status| {
                let is_alive = status.is(Reason::AlreadyExists) && attempt >= ALIVE_ATTEMPTS;
                is_alive || !matches!(status.code, 409 | 429 | 500..)
            }),
        };
        if is_final || attempt == JOIN_ATTEMPTS {
            return Err(error).context("this master could not join");
        }
        tracing::info!(%error, attempt, "cannot join yet; trying again");
        attempt += 1;
        tokio::time::sleep(JOIN_PAUSE).await;
    }
}

/// Writes what a master keeps: the CA, its own certificate, a kubeconfig, and at last who it is.
pub fn establish(
    dir: &DataDir,
    authority: &Authority,
    identity: &MasterIdentity,
    address: IpAddr,
) -> Result<()> {
    dir.keep_authority(authority)?;
    dir.keep_certificate(&master_certificate(authority, identity, address)?)?;
    dir.keep_identity(identity)
}

/// A certificate for serving, for the other masters, and for the nodes.
pub fn master_certificate(
    authority: &Authority,
    identity: &MasterIdentity,
    address: IpAddr,
) -> Result<Identity> {
    let service = settings::api_service_address(&identity.settings)?;
    let addresses = [address, service, IpAddr::from([127, 0, 0, 1])];
    let mut names = API_NAMES.to_vec();
    names.extend(["localhost", identity.name.as_str()]);
    authority.issue(&Subject {
        user: MASTER_USER,
        groups: &[MASTERS_GROUP],
        addresses: &addresses,
        names: &names,
    })
}

/// A kubeconfig that may do everything.
pub fn admin_kubeconfig(authority: &Authority, servers: Vec<String>) -> Result<String> {
    let subject = Subject {
        user: ADMIN_USER,
        groups: &[MASTERS_GROUP],
        ..Subject::default()
    };
    let config = client::Config {
        servers,
        ca_pem: authority.certificate_pem.clone(),
        identity: Some(authority.issue(&subject)?),
        ..client::Config::default()
    };
    Ok(client::Kubeconfig::for_config("trireme", &config).to_text())
}

/// `address:port`, with the brackets that IPv6 needs.
pub fn host_port(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}
