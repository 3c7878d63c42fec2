//! The store beside Debian's etcd: three processes each on loopback, all six at once, loaded in turns, so that a disturbance
//! of the machine meets both. Neither encrypts; both write below the same folder (`TRIREME_BENCH_DIR` says where).
//!
//! etcd is asked through its gRPC, as its users must. Ours is asked from within its members' processes, as the API server of
//! a master does; and a second time through the same gRPC by the same clients, which shows the stores without that advantage.
//!
//! `cargo bench -p trireme-raft-store --bench etcd [-- --rounds N --seconds N -o json]`.

mod kv;
mod load;
mod member;
mod sides;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use load::{Load, Sample, Work};
use sides::Side;
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
    /// Rounds of each side
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Seconds that a round of puts takes; a round of gets takes half
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Clients that wait for each answer before they ask again
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Bytes of a value
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Measure writes only
    #[arg(long)]
    puts_only: bool,
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
    let parent = std::env::var_os("TRIREME_BENCH_DIR");
    let dir = match parent {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    let mut ours = Side::trireme(dir.path()).await?;
    let mut etcd = Side::etcd(dir.path()).await?;
    let mut results = vec![];
    for (name, work, within) in [
        ("put", Work::Put, true),
        ("put over gRPC", Work::Put, false),
        ("linearizable get", Work::Get, true),
        ("linearizable get over gRPC", Work::Get, false),
    ] {
        if cli.puts_only && matches!(work, Work::Get) {
            continue;
        }
        let part = if matches!(work, Work::Get) { 0.5 } else { 1.0 };
        let load = Load {
            work,
            within,
            first: 0,
            clients: cli.clients,
            value_bytes: cli.value_bytes,
            time: Duration::from_secs_f64(cli.seconds * part),
        };
        let pairs = rounds(&mut ours, &mut etcd, &load, cli.rounds).await?;
        results.push((name, pairs));
    }
    match cli.output {
        Output::Table => print_table(cli, &etcd.version, &results),
        Output::Json => print_json(cli, &etcd.version, &results),
    }
    Ok(())
}

/// One round of ours beside one of etcd's.
type Pair = [Sample; 2];

/// Each side in turn, and the first of a pair is the second of the next one.
async fn rounds(ours: &mut Side, etcd: &mut Side, load: &Load, count: usize) -> Result<Vec<Pair>> {
    let warm_up = Load {
        time: Duration::from_secs(1),
        ..*load
    };
    load::run(ours, &warm_up).await?;
    load::run(etcd, &warm_up).await?;
    let mut pairs = Vec::new();
    for round in 0..count {
        eprintln!(
            "{} clients, {}{}: round {} of {count}",
            load.clients,
            load.work.name(),
            if load.within { "" } else { " over gRPC" },
            round + 1
        );
        pairs.push(if round % 2 == 0 {
            let first = load::run(ours, load).await?;
            [first, load::run(etcd, load).await?]
        } else {
            let first = load::run(etcd, load).await?;
            [load::run(ours, load).await?, first]
        });
    }
    Ok(pairs)
}

/// One side over all its rounds.
struct Figures {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    server_cpu_us: f64,
    failed: u64,
}

fn figures(pairs: &[Pair], side: usize) -> Figures {
    let samples: Vec<&Sample> = pairs.iter().map(|pair| &pair[side]).collect();
    let mut micros: Vec<u32> = samples
        .iter()
        .flat_map(|sample| sample.micros.iter().copied())
        .collect();
    micros.sort_unstable();
    let done = micros.len().max(1);
    let at = |part: f64| {
        let place = ((done - 1) as f64 * part) as usize;
        f64::from(micros.get(place).copied().unwrap_or(0)) / 1000.0
    };
    let cpu: Duration = samples.iter().map(|sample| sample.server_cpu).sum();
    Figures {
        per_second: median(samples.iter().map(|sample| sample.per_second()).collect()),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        server_cpu_us: cpu.as_micros() as f64 / done as f64,
        failed: samples.iter().map(|sample| sample.failed).sum(),
    }
}

/// The median over the rounds of ours divided by etcd's in the same round.
fn ratio(pairs: &[Pair]) -> f64 {
    let ratio = |[ours, etcd]: &Pair| ours.per_second() / etcd.per_second();
    median(pairs.iter().map(ratio).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

fn print_table(cli: &Cli, etcd_version: &str, results: &[(&str, Vec<Pair>)]) {
    println!(
        "three processes a side on loopback without TLS; {} clients, ours within the members unless over gRPC, on {} \
         connections; {}-byte values; medians of {} rounds in turns",
        cli.clients,
        3 * load::CONNECTIONS_A_MEMBER,
        cli.value_bytes,
        cli.rounds
    );
    println!(
        "{:<34}{:>12}{:>14}{:>10}",
        "",
        "trireme",
        format!("etcd {etcd_version}"),
        "ratio"
    );
    for (name, pairs) in results {
        let [ours, etcd] = [figures(pairs, 0), figures(pairs, 1)];
        let row = |label: String, ours: f64, etcd: f64, ratio: f64, digits: usize| {
            println!("{label:<34}{ours:>12.digits$}{etcd:>14.digits$}{ratio:>10.2}");
        };
        row(
            format!("{name}/s"),
            ours.per_second,
            etcd.per_second,
            ratio(pairs),
            0,
        );
        for (label, ours, etcd, digits) in [
            ("p50, ms", ours.p50_ms, etcd.p50_ms, 2),
            ("p99, ms", ours.p99_ms, etcd.p99_ms, 2),
            (
                "CPU of the processes each, us",
                ours.server_cpu_us,
                etcd.server_cpu_us,
                0,
            ),
        ] {
            row(format!("  {label}"), ours, etcd, ours / etcd, digits);
        }
        if ours.failed + etcd.failed > 0 {
            println!("  failed{:>40}{:>14}", ours.failed, etcd.failed);
        }
    }
}

fn print_json(cli: &Cli, etcd_version: &str, results: &[(&str, Vec<Pair>)]) {
    let side = |figures: Figures| {
        serde_json::json!({
            "perSecond": figures.per_second, "p50Ms": figures.p50_ms, "p99Ms": figures.p99_ms,
            "serverCpuUs": figures.server_cpu_us, "failed": figures.failed,
        })
    };
    let works: Vec<serde_json::Value> = results
        .iter()
        .map(|(name, pairs)| {
            serde_json::json!({
                "work": name, "ratio": ratio(pairs),
                "trireme": side(figures(pairs, 0)), "etcd": side(figures(pairs, 1)),
            })
        })
        .collect();
    let all = serde_json::json!({
        "clients": cli.clients, "valueBytes": cli.value_bytes, "rounds": cli.rounds,
        "etcdVersion": etcd_version, "works": works,
    });
    println!("{all}");
}
