//! The workspace's checks and generators: `cargo xtask layers`, `licences`, `schema`.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

mod layers;
mod licences;
mod schema;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Checks and generators of the workspace")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Fails when a dependency breaks an arrow of the design's layout.
    Layers,
    /// Fails when a linked crate has a licence that was not agreed to.
    Licences,
    /// Writes control/registry/data/schema.txt from the Go sources of the API types.
    Schema {
        /// The folder that holds `api` and `apimachinery`.
        #[arg(long)]
        go_sources: PathBuf,
        /// The kinds wanted, a package a line.
        #[arg(long, default_value = "control/registry/data/kinds.txt")]
        kinds: PathBuf,
        /// The file to write.
        #[arg(long, default_value = "control/registry/data/schema.txt")]
        out: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Layers => layers::check(),
        Task::Licences => licences::check(),
        Task::Schema {
            go_sources,
            kinds,
            out,
        } => schema::generate(&go_sources, &kinds, &out),
    }
}
