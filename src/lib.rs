mod admission;
mod cli;
mod cluster;
mod endpoint;
mod event;
mod executor;
mod init_container;
mod job_config;
mod keptn;
mod policy;
mod report;
mod resolve;
mod run;
mod serve;
mod slots;
mod telemetry;

pub use cli::main;

#[cfg(test)]
mod tests;
