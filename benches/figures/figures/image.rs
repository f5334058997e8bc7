//! The size of the image.

use crate::service;
use crate::table::{Limit, Row, Samples, Unit};

pub(super) const NAME: &str = "image";

/// Of `gcr.io/distroless/static-debian12`, as its README says: about 2 MiB.
const BASE: f64 = 2.0 * 1024.0 * 1024.0;

pub(super) fn measure() -> anyhow::Result<Vec<Row>> {
    if cfg!(debug_assertions) {
        println!("  left out: a debug build tells nothing of the image");
        return Ok(Vec::new());
    }
    let program = std::fs::metadata(service::program())?;
    let bytes = f64::from(u32::try_from(program.len())?) + BASE;
    let row = Row::new(
        NAME,
        "program and base image",
        Samples::new(Unit::Megabytes, [bytes / 1e6]),
    )
    .must(Limit::AtMost(20.0));
    Ok(vec![row])
}
