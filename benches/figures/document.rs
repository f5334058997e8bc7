//! docs/benchmarks.md: rows of earlier runs stay where this one did not measure the figure.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use crate::cluster;
use crate::keptn;
use crate::table::{self, Row};

const METHOD: &str = include_str!("method.md");

pub(crate) async fn write(path: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let before = std::fs::read_to_string(path).unwrap_or_default();
    let text = text(&before, rows, &machine().await?);
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn text(before: &str, rows: &[Row], machine: &str) -> String {
    let measured = rows.iter().map(|row| (row.key(), row.as_markdown()));
    let measured: BTreeMap<String, String> = measured.collect();
    // The page has another table, of what is measured.
    let is_row = |line: &&str| {
        let mut figures = crate::FIGURES.iter();
        line.starts_with("| `") && figures.any(|figure| figure.name == name_of(line))
    };
    let of_figures = before.lines().take_while(|line| !line.starts_with("## "));
    let kept = of_figures.filter(is_row).filter(|line| {
        let has_name = |key: &String| name_of(line) == name_of(key);
        !measured.keys().any(has_name)
    });
    let mut lines: Vec<String> = kept.map(ToOwned::to_owned).collect();
    lines.extend(rows.iter().map(Row::as_markdown));
    let order = |line: &String| {
        let name = name_of(line).to_owned();
        crate::FIGURES.iter().position(|figure| figure.name == name)
    };
    lines.sort_by_key(order);
    METHOD
        .replace(
            "TABLE\n",
            &(table::HEAD.to_owned() + &lines.join("\n") + "\n"),
        )
        .replace("MACHINE", machine)
        .replace("DELAY", &keptn::DELAY.as_millis().to_string())
}

/// What is between the first backticks.
fn name_of(line: &str) -> &str {
    line.split('`').nth(1).unwrap_or_default()
}

async fn machine() -> anyhow::Result<String> {
    let line = |path: &str, name: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or_else(
            || "unknown".to_owned(),
            |(_, value)| value.trim().to_owned(),
        )
    };
    let cores = std::thread::available_parallelism()?;
    let kib: u64 = line("/proc/meminfo", "MemTotal")
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or_default();
    let kubernetes = cluster::client()
        .await?
        .apiserver_version()
        .await?
        .git_version;
    Ok(format!(
        "{cores} cores ({}), {} GB, Linux {}; Kubernetes {kubernetes} with its etcd, its node and this \
         benchmark on the same machine; service {} on {}",
        line("/proc/cpuinfo", "model name"),
        kib / 1_000_000,
        std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        env!("CARGO_PKG_VERSION"),
        jiff::Timestamp::now().strftime("%F"),
    ))
}
