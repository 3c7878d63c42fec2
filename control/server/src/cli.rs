//! What can be typed.

use clap::{Args, Parser, Subcommand, ValueEnum};
use objects::Quantity;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A master of a Trireme cluster: store, API server, controllers and scheduler in one program.
#[derive(Parser)]
#[command(
    name = "control",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// How to write the log, which goes to standard error
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// How to write the log.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line, for machines
    Json,
}

/// The subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Run a master: the first of a new cluster (--init), one that joins (--join), or one that was here before
    Run(Box<Run>),
    /// Make a new cluster of a snapshot, in an empty data directory; then `control run` it
    Restore(Restore),
    /// Make a cluster of this one master, whose majority is gone for good; the others then join it anew
    Recover(Recover),
    /// Check a snapshot's checksums and tell what it holds
    SnapshotStatus(SnapshotStatus),
    /// Restore a snapshot into a scratch folder, compare it with what its source held, and tell what it holds
    SnapshotVerify(SnapshotVerify),
    /// Store what comes on standard input as an object of S3-compatible storage
    SnapshotPut(SnapshotPut),
    /// Make a key file for snapshots: it opens what is sealed with its public key
    SnapshotKeygen(SnapshotKeygen),
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// `control run`.
#[derive(Args, Clone)]
pub struct Run {
    /// Where everything of this master lies
    #[arg(long, value_name = "DIR", default_value = "/var/lib/trireme/control")]
    pub data_dir: PathBuf,
    /// The master's name; default: the host's
    #[arg(long)]
    pub name: Option<String>,
    /// The address at which clients, nodes and the other masters reach this one
    #[arg(long)]
    pub address: IpAddr,
    /// Make a new cluster, unless the data directory holds a master already
    #[arg(long, conflicts_with = "join")]
    pub init: bool,
    /// Join the cluster of these masters, unless the data directory holds a master already
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        requires = "token_file"
    )]
    pub join: Vec<String>,
    /// Take the place of this member (its name or id): it goes when this master has caught up and votes
    #[arg(long, value_name = "MEMBER", requires = "join")]
    pub replace: Option<String>,
    /// A file with the join token; a master keeps one in its data directory, as `join-token`
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Should the data directory be that of a master of a former cluster (before a restore or recovery), set what it holds aside in a
    /// folder `former-...` within it, and join anew; nothing is deleted
    #[arg(long, requires = "join")]
    pub rejoin: bool,
    /// The port of the API
    #[arg(long, default_value_t = 6443)]
    pub api_port: u16,
    /// The port for the other masters
    #[arg(long, default_value_t = 2380)]
    pub peer_port: u16,
    /// Where the cluster's state is kept
    #[arg(
        long,
        value_enum,
        default_value = "own",
        requires_if("etcd", "etcd_endpoints")
    )]
    pub store: StoreKind,
    /// The etcd, where the state is kept in one
    #[command(flatten)]
    pub etcd: OnEtcd,
    /// Serve etcd's v3 API on this port too, the same on every master: for etcdctl and etcd's clients with a certificate of
    /// the group system:masters; default: not at all
    #[arg(long, value_name = "PORT")]
    pub etcd_port: Option<u16>,
    /// The network of all pods; fixed when the cluster is made
    #[arg(long, value_name = "CIDR", requires = "init")]
    pub cluster_cidr: Option<String>,
    /// The network of services' addresses; fixed when the cluster is made
    #[arg(long, value_name = "CIDR", requires = "init")]
    pub service_cidr: Option<String>,
    /// For how long a new cluster keeps its past (24h); changed later with `ctl history --keep`
    #[arg(long, value_name = "DURATION", requires = "init", value_parser = parse_duration)]
    pub history: Option<Duration>,
    /// How many bytes of changes a new cluster keeps at most (2Gi); the oldest go first
    #[arg(long, value_name = "BYTES", requires = "init", value_parser = parse_bytes)]
    pub history_bytes: Option<u64>,
    /// Whose tokens are taken beside the cluster's own
    #[command(flatten)]
    pub oidc: OidcFlags,
    /// What is noted of requests
    #[command(flatten)]
    pub audit: AuditFlags,
}

/// The audit log, as kube-apiserver's flags name it.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Audit log")]
pub struct AuditFlags {
    /// Note requests by this policy (audit.k8s.io/v1), which also says how much of each
    #[arg(long, value_name = "FILE", requires = "audit_log_path")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where to, one JSON object a line; `-` for standard output
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    pub audit_log_path: Option<PathBuf>,
    /// Megabytes after which a file is set aside and a new one begun
    #[arg(long, value_name = "MB", default_value_t = 100)]
    pub audit_log_maxsize: u64,
    /// Files set aside that are kept
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub audit_log_maxbackup: usize,
}

/// An OpenID Connect issuer, as kube-apiserver's flags name it.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "OpenID Connect")]
pub struct OidcFlags {
    /// Take the tokens of this issuer; begins with https://
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    pub oidc_issuer_url: Option<String>,
    /// The audience that a token must have
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    pub oidc_client_id: Option<String>,
    /// The claim that is the user's name
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    pub oidc_username_claim: String,
    /// What is put before the name; `-` for nothing; default: the issuer and `#`, but for the claim email
    #[arg(long, value_name = "PREFIX")]
    pub oidc_username_prefix: Option<String>,
    /// The claim that lists the user's groups
    #[arg(long, value_name = "CLAIM")]
    pub oidc_groups_claim: Option<String>,
    /// What is put before each group
    #[arg(long, value_name = "PREFIX", default_value = "")]
    pub oidc_groups_prefix: String,
    /// A claim that must have this value; may be given more than once
    #[arg(long, value_name = "CLAIM=VALUE", value_parser = parse_pair)]
    pub oidc_required_claim: Vec<(String, String)>,
    /// The CAs of the issuer, as PEM; default: those that the system trusts
    #[arg(long, value_name = "FILE")]
    pub oidc_ca_file: Option<PathBuf>,
}

/// `NAME=VALUE`.
fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no claim: write it as NAME=VALUE")),
    }
}

/// Where the cluster's state is kept.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// In the masters' own store
    Own,
    /// In an etcd (v3) that runs elsewhere; without history, snapshots and members of the masters' own
    Etcd,
}

/// An etcd that runs elsewhere.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "etcd as the store (--store etcd)")]
pub struct OnEtcd {
    /// Its members, as https://10.0.0.1:2379
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub etcd_endpoints: Vec<String>,
    /// The CA that signed its certificates
    #[arg(long, value_name = "FILE")]
    pub etcd_ca: Option<PathBuf>,
    /// The certificate with which it is asked
    #[arg(long, value_name = "FILE", requires_all = ["etcd_key", "etcd_ca"])]
    pub etcd_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "etcd_cert")]
    pub etcd_key: Option<PathBuf>,
}

/// `90s`, `24h`, `7d`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let seconds = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => 0,
    };
    match digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(seconds))
    {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(format!(
            "{text:?} is no duration: write it as 90m, 24h or 7d"
        )),
    }
}

/// A quantity as Kubernetes writes it.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let bytes = Quantity::parse(text)
        .map_err(|error| error.to_string())?
        .units();
    u64::try_from(bytes).map_err(|_| format!("{text:?} must not be negative"))
}

/// `control restore`.
#[derive(Args)]
pub struct Restore {
    /// The snapshot: a file, or s3://bucket/name
    pub file: String,
    /// The master's data directory; it must be empty or absent
    #[arg(long, value_name = "DIR", default_value = "/var/lib/trireme/control")]
    pub data_dir: PathBuf,
    /// The master's name
    #[arg(long)]
    pub name: String,
    /// The address at which this master is reached
    #[arg(long)]
    pub address: IpAddr,
    /// The port of the API
    #[arg(long, default_value_t = 6443)]
    pub api_port: u16,
    /// The port for the other masters
    #[arg(long, default_value_t = 2380)]
    pub peer_port: u16,
    /// How the snapshot's keys are opened
    #[command(flatten)]
    pub opener: OpenerArgs,
    /// How the storage is reached
    #[command(flatten)]
    pub s3: S3Args,
}

/// What opens the keys in a snapshot.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct OpenerArgs {
    /// A file with the passphrase that seals the snapshot's keys
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// The key file for which the snapshot's keys are sealed
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// How S3-compatible storage is reached; keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's role.
#[derive(Args, Clone, Default)]
pub struct S3Args {
    /// The service's URL, where it is not AWS
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL")]
    pub s3_endpoint: Option<String>,
    /// The region
    #[arg(long, value_name = "NAME", env = "AWS_REGION")]
    pub s3_region: Option<String>,
    /// A file with the CA of the service, where this machine does not know it
    #[arg(long, value_name = "FILE", env = "AWS_CA_BUNDLE")]
    pub s3_ca_file: Option<PathBuf>,
    /// Tell the bucket by the host's name rather than in the path
    #[arg(long)]
    pub s3_virtual_hosted: bool,
}

/// `control recover`.
#[derive(Args)]
pub struct Recover {
    /// The stopped master's data directory
    #[arg(long, value_name = "DIR", default_value = "/var/lib/trireme/control")]
    pub data_dir: PathBuf,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Only tell what there is and what may be lost
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// How to print
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

/// `control snapshot-verify`.
#[derive(Args)]
pub struct SnapshotVerify {
    /// The snapshot: a file, or s3://bucket/name
    pub file: String,
    /// Where the scratch folder is made; it needs room for the whole state. Default: the folder of temporary files
    #[arg(long, value_name = "DIR")]
    pub scratch_dir: Option<PathBuf>,
    /// Also open the keys with this passphrase
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    pub passphrase_file: Option<PathBuf>,
    /// Also open the keys with this key file
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// How to print
    #[arg(short, long, default_value = "table")]
    pub output: Output,
    /// How the storage is reached
    #[command(flatten)]
    pub s3: S3Args,
}

/// `control snapshot-put`.
#[derive(Args)]
pub struct SnapshotPut {
    /// The object: s3://bucket/name
    pub url: String,
    /// How the storage is reached
    #[command(flatten)]
    pub s3: S3Args,
}

/// `control snapshot-keygen`.
#[derive(Args)]
pub struct SnapshotKeygen {
    /// The file; it must not exist
    pub file: PathBuf,
}

/// `control snapshot-status`.
#[derive(Args)]
pub struct SnapshotStatus {
    /// The snapshot: a file, or s3://bucket/name
    pub file: String,
    /// How to print
    #[arg(short, long, default_value = "table")]
    pub output: Output,
    /// How the storage is reached
    #[command(flatten)]
    pub s3: S3Args,
}

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For machines
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn history_is_bounded_in_words() {
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86400)));
        assert!(parse_duration("1y").is_err() && parse_duration("").is_err());
        assert_eq!(parse_bytes("2Gi"), Ok(2 << 30));
        assert!(parse_bytes("-1").is_err() && parse_bytes("x").is_err());
    }
}
