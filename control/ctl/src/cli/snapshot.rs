//! What can be typed about snapshots and recovery.

use super::{OutputArg, parse_duration};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// `ctl snapshot`.
#[derive(Subcommand)]
pub enum Snapshot {
    /// Save the whole state in a file or an object, while the cluster works on
    Save {
        /// The file, or s3://bucket/name (keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the service from
        /// AWS_ENDPOINT_URL and AWS_REGION)
        file: String,
        #[command(flatten)]
        seal: Seal,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Check a saved state's checksums and tell what it holds
    Status {
        /// The file, or s3://bucket/name
        file: String,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Restore a saved state into a scratch folder, compare it with what its source held, and tell what it holds
    Verify {
        /// The file, or s3://bucket/name
        file: String,
        /// Where the scratch folder is made; it needs room for the whole state. Default: the folder of temporary files
        #[arg(long, value_name = "DIR")]
        scratch_dir: Option<PathBuf>,
        /// Also open the keys with the passphrase in this file
        #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
        passphrase_file: Option<PathBuf>,
        /// Also open the keys with this key file
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Make a new cluster of a saved state, on a master whose data directory is empty
    Restore {
        /// The file, or s3://bucket/name
        file: String,
        /// The master's data directory
        #[arg(long)]
        data_dir: PathBuf,
        /// The master's name
        #[arg(long)]
        name: String,
        /// The master's address
        #[arg(long)]
        address: String,
        /// A file with the passphrase that seals the keys
        #[arg(
            long,
            required_unless_present = "key_file",
            conflicts_with = "key_file"
        )]
        passphrase_file: Option<PathBuf>,
        /// The key file for which the keys are sealed
        #[arg(long)]
        key_file: Option<PathBuf>,
    },
    /// Make a key file: what is sealed with its public half, only it opens
    Keygen {
        /// The file; it must not exist
        file: PathBuf,
    },
    /// The snapshots that schedules made
    List(OutputArg),
    /// Snapshots by themselves, at set times
    #[command(subcommand)]
    Schedule(Schedule),
}

/// For whom the cluster's keys are sealed.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Seal {
    /// A file with the passphrase under which the cluster's keys are sealed
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// The key file for which the cluster's keys are sealed; only its public key is used
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Without the cluster's keys, and plain: good for `snapshot verify` and for looking at, but no cluster can be restored from it
    #[arg(long)]
    pub no_keys: bool,
}

/// `ctl snapshot schedule`.
#[derive(Subcommand)]
pub enum Schedule {
    /// Make a schedule, or change what is given of one that exists
    Set(Box<Set>),
    /// Everything of one schedule: what is wanted, what runs, what came of the last runs
    Get {
        /// Its name
        name: String,
        #[command(flatten)]
        output: OutputArg,
    },
    /// All schedules
    List(OutputArg),
    /// Run a schedule now, and wait for what comes of it
    Run {
        /// Its name
        name: String,
        /// Do not wait
        #[arg(long)]
        no_wait: bool,
        /// How long to wait
        #[arg(long, default_value = "30m", value_parser = parse_duration)]
        timeout: Duration,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Forget a schedule; the snapshots that it made stay
    Remove {
        /// Its name
        name: String,
    },
}

/// `ctl snapshot schedule set`.
#[derive(Args)]
pub struct Set {
    /// Its name
    pub name: String,
    /// How often: 6h is at 00:00, 06:00, 12:00 and 18:00 UTC
    #[arg(long, value_parser = parse_duration)]
    pub every: Option<Duration>,
    /// At these times of each day, in UTC: 03:00; in the place of --every, or beside it
    #[arg(long, value_name = "HH:MM", value_delimiter = ',')]
    pub at: Vec<String>,
    /// Keep the newest so many; without this and --keep-days, 7
    #[arg(long)]
    pub keep_last: Option<u32>,
    /// Keep those of so many days, however many
    #[arg(long)]
    pub keep_days: Option<u32>,
    /// Save into this folder of the master that leads when it is due; each master deletes what is old in its own
    #[arg(long, value_name = "DIR", conflicts_with = "s3_bucket")]
    pub folder: Option<String>,
    /// Save into this bucket of S3-compatible storage
    #[arg(long, value_name = "NAME")]
    pub s3_bucket: Option<String>,
    /// What the objects' names begin with
    #[arg(long, requires = "s3_bucket")]
    pub s3_prefix: Option<String>,
    /// The service's URL, where it is not AWS
    #[arg(long, value_name = "URL", requires = "s3_bucket")]
    pub s3_endpoint: Option<String>,
    /// The region
    #[arg(long, value_name = "NAME", requires = "s3_bucket")]
    pub s3_region: Option<String>,
    /// Tell the bucket by the host's name rather than in the path
    #[arg(long, requires = "s3_bucket")]
    pub s3_virtual_hosted: bool,
    /// A file with the CA of the service, where the masters do not know it
    #[arg(long, value_name = "FILE", requires = "s3_bucket")]
    pub s3_ca_file: Option<PathBuf>,
    /// The access key; without one, what the leading master's environment gives
    #[arg(long, value_name = "ID", requires = "s3_bucket")]
    pub s3_access_key: Option<String>,
    /// A file with the access key's secret; it is kept locked for the masters, and never shown again
    #[arg(long, value_name = "FILE", requires = "s3_access_key")]
    pub s3_secret_file: Option<PathBuf>,
    /// Restore each into a scratch folder and compare it before it counts
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub verify: Option<bool>,
    /// A file with the passphrase under which the cluster's keys are sealed; it is not kept, only a key that seals
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key_file", "no_keys"])]
    pub passphrase_file: Option<PathBuf>,
    /// The key file for which the cluster's keys are sealed; only its public key is used
    #[arg(long, value_name = "FILE", conflicts_with = "no_keys")]
    pub key_file: Option<PathBuf>,
    /// Without the cluster's keys, and plain: good for `snapshot verify` and for looking at, but no cluster can be restored from it
    #[arg(long)]
    pub no_keys: bool,
    #[command(flatten)]
    pub output: OutputArg,
}

/// `ctl recover`.
#[derive(Args)]
pub struct Recover {
    /// From one master that is left, while the majority is gone for good
    #[arg(long, required = true)]
    pub from_survivor: bool,
    /// The stopped master's data directory
    #[arg(long, value_name = "DIR", default_value = "/var/lib/trireme/control")]
    pub data_dir: PathBuf,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Only tell what there is and what may be lost
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    #[command(flatten)]
    pub output: OutputArg,
}
