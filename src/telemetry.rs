//! Log output: JSON for machines, text on a terminal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Checks filter directives without keeping them: the type cannot be cloned.
pub(crate) fn filter(directives: &str) -> Result<String, String> {
    // A bare word is a target to the library, and `loud` would silence everything.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let bare = |part: &&str| !part.contains('=') && !levels.contains(part);
    if let Some(part) = directives.split(',').map(str::trim).find(bare) {
        return Err(format!(
            "`{part}` is no level, expected one of {}, or `target=level`",
            levels.join(", ")
        ));
    }
    EnvFilter::try_new(directives)
        .map(|_| directives.to_owned())
        .map_err(|error| format!("{error}, expected a level such as `info` or `debug`"))
}

/// An error with its causes, in one line.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Starts logging to standard error.
pub(crate) fn start(directives: &str, format: Option<Format>) {
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { Format::Text } else { Format::Json });
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal && std::env::var_os("NO_COLOR").is_none());
    // A second start, as in tests, changes nothing.
    match format {
        Format::Text => builder.try_init().ok(),
        Format::Json => builder
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .try_init()
            .ok(),
    };
}
