//! The store beside Debian's etcd: three processes each on loopback, all six at once, loaded in turns by the same clients, so
//! that a disturbance of the machine meets both. Neither encrypts, both sync each write; both write below the same folder
//! (`TRIREME_BENCH_DIR` says where).
//!
//! `cargo bench -p trireme-etcd --bench against_etcd -- [FIGURE...] [--rounds N --seconds N -o json]`.

mod figures;
mod http2;
mod load;
mod member;
mod report;
mod requests;
mod sides;
mod wire;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use figures::{Pair, Plan, crash, rates, size, stages, watch};
use report::Row;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc; // As in `control`.

/// The store against etcd.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    member: Option<Role>,
    /// Which figures; all of them when none is named
    #[arg(value_enum)]
    figures: Vec<Figure>,
    /// Rounds of each side
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that a round takes
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Bytes of a value
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// How often our leader is killed
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Minutes of full load without an election
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Clients of the full load
    #[arg(long, default_value_t = 512)]
    clients: usize,
    /// MiB of state at the restart
    #[arg(long, default_value_t = 1024)]
    state_mib: u64,
    /// How to print
    #[arg(short, long, default_value = "table")]
    output: Output,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(clap::Subcommand)]
enum Role {
    /// One member of ours, started by the comparison itself
    Member(member::Args),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// Puts a second of 64 and of 512 clients
    Puts,
    /// How long a put of a lone client takes
    Latency,
    /// Linearizable gets a second of 64 clients
    Gets,
    /// Puts and gets as in a master, from within
    Within,
    /// From a put's answer to its event at 1,000 watchers
    Watch,
    /// Bytes written to disk for a put
    Bytes,
    /// A range of 10,000 keys
    Range,
    /// Where the time of a put goes
    Stages,
    /// Elections under full load
    Election,
    /// Memory at 100,000 keys of 1 KiB
    Memory,
    /// The write gap after kill -9 of the leader
    Failover,
    /// A restart with much state
    Restart,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> Result<()> {
    let mut cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match cli.member.take() {
        Some(Role::Member(args)) => runtime.block_on(member::run(args)),
        None => runtime.block_on(async {
            let mut terminated = signal(SignalKind::terminate())?;
            tokio::select! {
                done = compare(&cli) => done,
                // The processes end with their owners.
                _ = terminated.recv() => anyhow::bail!("ended before the comparison was done"),
                _ = tokio::signal::ctrl_c() => anyhow::bail!("ended before the comparison was done"),
            }
        }),
    }
}

async fn compare(cli: &Cli) -> Result<()> {
    let dir = match std::env::var_os("TRIREME_BENCH_DIR") {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    let plan = Plan {
        dir: dir.path().to_owned(),
        rounds: cli.rounds.max(1),
        time: Duration::from_secs_f64(cli.seconds),
        value_bytes: cli.value_bytes,
        kills: cli.kills.max(1),
        full_load: Duration::from_secs_f64(60.0 * cli.minutes),
        full_load_clients: cli.clients,
        state_bytes: cli.state_mib << 20,
    };
    let all = Figure::value_variants();
    let wanted = |figure: &Figure| cli.figures.is_empty() || cli.figures.contains(figure);
    let version = sides::etcd_version().await?;
    let mut pair = None;
    let mut rows: Vec<Row> = Vec::new();
    let mut not_measured = Vec::new();
    for figure in all.iter().filter(|figure| wanted(figure)) {
        match measure(*figure, &mut pair, &plan).await {
            Ok(measured) => rows.extend(measured),
            Err(err) => {
                let name = figure.to_possible_value();
                let name = name.map_or_else(String::new, |name| name.get_name().to_owned());
                eprintln!("{name} cannot be measured: {err:#}");
                not_measured.push(name);
                // What the failure left of the sides is not known.
                pair = None;
            }
        }
    }
    match cli.output {
        Output::Table => report::print(&rows, &version),
        Output::Json => println!(
            "{}",
            serde_json::json!({
                "etcdVersion": version, "rounds": plan.rounds, "rows": rows, "notMeasured": not_measured,
            })
        ),
    }
    if cli.output == Output::Table && !not_measured.is_empty() {
        anyhow::bail!("could not be measured: {}", not_measured.join(", "));
    }
    Ok(())
}

/// The sides that stay alive are shared by the figures that do not need new ones.
async fn measure(figure: Figure, shared: &mut Option<Pair>, plan: &Plan) -> Result<Vec<Row>> {
    match figure {
        Figure::Memory => {
            *shared = None;
            return size::memory(plan).await;
        }
        Figure::Failover => {
            *shared = None;
            return crash::failover(plan).await;
        }
        Figure::Election => {
            *shared = None;
            return crash::election(plan).await;
        }
        Figure::Restart => {
            *shared = None;
            return crash::restart(plan).await;
        }
        _ => {}
    }
    let pair = match shared {
        Some(pair) => pair,
        None => shared.insert(Pair::start(plan, "rates").await?),
    };
    match figure {
        Figure::Puts => {
            let mut rows = rates::puts(pair, plan, 64).await?;
            rows.extend(rates::puts(pair, plan, 512).await?);
            Ok(rows)
        }
        Figure::Latency => rates::latency(pair, plan).await,
        Figure::Gets => rates::gets(pair, plan, 64).await,
        Figure::Within => rates::within(pair, plan, 64).await,
        Figure::Watch => watch::watch(pair, plan).await,
        Figure::Bytes => rates::bytes(pair, plan).await,
        Figure::Range => size::range(pair, plan).await,
        _ => stages::stages(pair, plan).await,
    }
}
