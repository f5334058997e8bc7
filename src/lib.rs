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
mod slots;
mod report;
mod cluster;
mod keptn;
mod init_container;
mod telemetry;

pub use cli::main;

#[cfg(test)]
mod tests;
