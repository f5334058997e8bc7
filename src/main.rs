//! The binary: see the library's documentation for the story of one event.

fn main() -> std::process::ExitCode {
    job_executor_service::main()
}
