//! The figures of this service beside their floors, measured on the cluster of `KUBECONFIG`.
//!
//! ```text
//! keptn ◀── serve (a process of its own) ──▶ cluster      figures   what is measured, one module a topic
//!   ▲                                          ▲          floors    the same Jobs by a bare client
//!   └────────── this process: posts, watches ──┘          table     median beside floor, reached or not
//! ```
//!
//! docs/benchmarks.md has the values and the method. `cargo bench` measures all; names choose some:
//!
//! ```sh
//! cargo bench -- run-one post-to-job       # only these
//! cargo bench -- --write docs/benchmarks.md
//! cargo bench --profile dev -- --quick     # guards by ratio, for a noisy machine
//! ```
//!
//! The images are named as for the end-to-end tests: `E2E_IMAGE` is this service's, `E2E_BUSYBOX` one with
//! `true`, `E2E_HOST` the address by which Pods reach this machine, `E2E_CLUSTER` a program that takes `stop` or
//! `start` and `kubelet`.

#![expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]

mod cluster;
mod document;
mod figures;
mod floors;
mod keptn;
mod proxy;
mod service;
mod sightings;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;

use figures::{FIGURES, Scale};
use table::{Row, Verdict};

/// Measures the service beside its floors.
#[derive(Parser)]
struct Arguments {
    /// Figures to measure; all without any.
    names: Vec<String>,
    /// Few rounds, and only what a ratio guards: fails where one is broken.
    #[arg(long)]
    quick: bool,
    /// Puts the rows into this document, in place of those of the same figures.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let known: Vec<&str> = FIGURES.iter().map(|figure| figure.name).collect();
    if let Some(name) = arguments
        .names
        .iter()
        .find(|name| !known.contains(&name.as_str()))
    {
        bail!(
            "there is no figure `{name}`, there are {}",
            known.join(", ")
        );
    }
    anyhow::ensure!(
        !(arguments.quick && arguments.write.is_some()),
        "--quick measures too little for a document"
    );
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let scale = if arguments.quick {
        Scale::Quick
    } else {
        Scale::Full
    };
    let measured = tokio::select! {
        rows = measure(&arguments.names, scale) => rows,
        // What was stopped or started is so no more when the measurement is dropped.
        signal = tokio::signal::ctrl_c() => signal.map_err(Into::into).and_then(|()| bail!("interrupted")),
    };
    if measured.is_err() {
        cluster::clear().await?;
    }
    let rows = measured?;
    println!("\n{}", table::markdown(&rows));
    if let Some(path) = &arguments.write {
        document::write(path, &rows).await?;
        println!("written to {}", path.display());
    }
    Ok(match scale {
        Scale::Quick => guards(&rows),
        Scale::Full => ExitCode::SUCCESS,
    })
}

async fn measure(names: &[String], scale: Scale) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for figure in FIGURES {
        let is_chosen = if names.is_empty() {
            figure.is_part_of(scale)
        } else {
            names.iter().any(|name| name == figure.name)
        };
        if !is_chosen {
            continue;
        }
        println!("measuring {} …", figure.name);
        let measured = figure.measure(scale).await?;
        for row in &measured {
            println!("  {}", row.as_text());
        }
        rows.extend(measured);
    }
    Ok(rows)
}

/// A target that is missed is for people to read; a guard that is broken ends the build.
fn guards(rows: &[Row]) -> ExitCode {
    let broken: Vec<&Row> = rows
        .iter()
        .filter(|row| row.guarded() == Verdict::Missed)
        .collect();
    for row in &broken {
        println!("BROKEN: {}", row.as_text());
    }
    if broken.is_empty() {
        println!("all guards hold");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
