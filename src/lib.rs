//! Runs container images as Kubernetes Jobs in answer to Keptn events.
//!
//! # The story of one event
//!
//! ```text
//! POST / ─ endpoint    bytes → CloudEvent → Event                    400 · 413 · 415 · 429
//!        └ admission   job/config.yaml from Keptn → matching actions 200 nothing to do
//!                      → run with its record → first Job created     202 the run cannot be lost
//!                                                                    503 not durable in time
//! watch  ─ executor    for each run: .started → task by task → .finished
//!        ─ runs        a Job whose run is not over and not known here → the same executor
//! ```
//!
//! A *run* is all the work for one event: every task of every action that matches, in order. Its
//! *record* travels on each of its Jobs as an annotation, so that Kubernetes is the only store: the
//! watch shows the Jobs whose run is not marked as over, and those runs are executed again, whoever
//! began them. Every step may be repeated: names of Jobs and ids of answers follow from the event. Of
//! several processes any admits events, and the one that holds the Lease executes.
//!
//! Read `executor` first. Then follow an event through the modules in the order below.
//!
//! `journal` hears of all that happens, and `admin` shows it; nothing that is executed depends on them.
//!
//! `local` has a Kubernetes and a Keptn in this process, on which the same service runs at a desk and in the
//! tests. `explain` tells of an event what admission would decide, `lint` of a config what its reader does.
//!
//! # Invariants
//!
//! 1. `event`, `job_config`, `policy`, `resolve`, `run`, `report`, `journal`, `explain` and the modules below `lint` do
//!    no I/O, are not async, and name neither kube, axum nor reqwest.
//! 2. Only `cluster` names Kubernetes (and `job_config::pod_parts` some of its types, as data), only `keptn`
//!    and `traces` send HTTP requests, only `endpoint` and `admin` answer them; and `local`, which is the other
//!    side of all three. `cli` and `serve` see all, to wire them. Nothing of the service knows `local`.
//! 3. Calls go one way: endpoint → admission → executor → cluster, keptn, traces.
//! 4. 202 is answered only for what a crash in the next instruction cannot lose.
//! 5. Every step of `executor` may run twice. An answer that may have been sent is not sent before Keptn's
//!    event store was asked for it.
//! 6. Whatever comes from outside has a bound: body, config, JSONPath, logs, answers, the time of every
//!    call.
//! 7. A task's failure, a panic or a bad config never touches another run; a panic is answered as errored.
//! 8. An answer is a function of the run record and of what the cluster shows, not of this process.
//! 9. No secret is in a log, an answer or a Job, and no text of a config or an event in a log above debug.
//!
//! The test `tests::project` holds 1 to 3, `tests::faults` and `tests::schedules` hold 4, 5 and 8,
//! `tests::discretion` holds 9.

mod cli;
mod rules;
mod serve;

mod admin;
mod endpoint;
mod event;

mod admission;
mod job_config;
mod policy;
mod resolve;
mod run;

mod executor;
mod report;
mod slots;

mod cluster;
mod keptn;

mod init_container;
mod journal;
mod metrics;
mod telemetry;
mod terminal;
mod traces;

mod explain;
mod lint;
mod local;

pub use cli::main;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;

#[cfg(test)]
mod tests;
