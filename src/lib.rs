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
//! start                the Jobs that are not reported → the same executor, the same path
//! ```
//!
//! A *run* is all the work for one event: every task of every action that matches, in order. Its
//! *record* travels on each of its Jobs as an annotation, so that Kubernetes is the only store: a
//! process that starts lists the Jobs whose run was not reported and executes those runs again. Every
//! step may be repeated: names of Jobs and ids of answers follow from the event.
//!
//! Read `executor` first. Then follow an event through the modules in the order below.
//!
//! # Invariants
//!
//! 1. `event`, `job_config`, `policy`, `resolve`, `run` and `report` do no I/O, are not async, and name
//!    neither kube, axum nor reqwest.
//! 2. Only `cluster` names Kubernetes, only `keptn` sends HTTP requests, only `endpoint` answers them.
//!    `cli` and `serve` see all, to wire them.
//! 3. Calls go one way: endpoint → admission → executor → cluster, keptn.
//! 4. 202 is answered only for what a crash in the next instruction cannot lose.
//! 5. Every step of `executor` may run twice.
//! 6. Whatever comes from outside has a bound: body, config, JSONPath, logs, answers, the time of every
//!    call.
//! 7. A task's failure, a panic or a bad config never touches another run.
//! 8. An answer is a function of the run record and of what the cluster shows, not of this process.
//!
//! The test `tests::project` holds 1 to 3.

mod cli;
mod serve;

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
mod telemetry;

pub use cli::main;

#[cfg(test)]
mod tests;
