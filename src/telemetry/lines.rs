//! One line of the log: what happened first, then with what, the ids of the event and its run included.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::error_chain;

/// Of a terminal that nobody made wider.
const COLUMNS: usize = 80;

/// `15:36:34 INFO  `, below which long lines go on.
const INDENT: usize = 15;

/// As many as tell the runs of a terminal apart.
const RUN_DIGITS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    Json,
    /// With all fields, for a file.
    Text,
    /// Of 80 columns, with the run as the only id.
    Terminal,
}

impl<S> FormatEvent<S, JsonFields> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = String::new();
        let mut fields = Fields::default();
        let spans = context.event_scope().into_iter();
        for span in spans.flat_map(tracing_subscriber::registry::Scope::from_root) {
            let extensions = span.extensions();
            let formatted = extensions.get::<FormattedFields<JsonFields>>();
            let json = formatted.map(|formatted| formatted.fields.as_str());
            let of_span: Map<String, Value> = json
                .and_then(|json| serde_json::from_str(json).ok())
                .unwrap_or_default();
            for (name, value) in of_span {
                fields.set(&name, value);
            }
        }
        let of_spans = fields.0.len();
        event.record(&mut fields);
        if let Some((_, Value::String(text))) = fields.take("message") {
            message = text;
        }
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        match self {
            Self::Json => {
                let head = [
                    ("timestamp", now()),
                    ("level", level.as_str().into()),
                    ("message", message.into()),
                ];
                let tail = [("target", Value::from(target))];
                let all = head.iter().map(|(name, value)| (*name, value));
                let all = all.chain(fields.0.iter().map(|(name, value)| (name.as_str(), value)));
                let all = all.chain(tail.iter().map(|(name, value)| (*name, value)));
                writeln!(writer, "{}", object(all))
            }
            Self::Text => {
                let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
                write!(writer, "{time} {level:<5} {message}")?;
                for (name, value) in &fields.0 {
                    write!(writer, " {name}={}", shown(value))?;
                }
                writeln!(writer)
            }
            Self::Terminal => {
                let run = |name: &str| name == "run";
                let mut words: Vec<String> = message.split(' ').map(str::to_owned).collect();
                let mut fields = fields.0;
                // Which event it is of, the first and the last line of a run say in their texts.
                let mut index = 0;
                fields.retain(|(name, _)| {
                    index += 1;
                    index > of_spans || run(name)
                });
                for (name, value) in &fields {
                    let mut value = shown(value);
                    if run(name) {
                        value.truncate(RUN_DIGITS);
                    }
                    words.extend(format!("{name}={value}").split(' ').map(str::to_owned));
                }
                let time = Timestamp::now().strftime("%H:%M:%S");
                let (colour, plain) = match (writer.has_ansi_escapes(), level) {
                    (false, _) => ("", ""),
                    (true, Level::ERROR) => ("\u{1b}[31m", "\u{1b}[0m"),
                    (true, Level::WARN) => ("\u{1b}[33m", "\u{1b}[0m"),
                    (true, Level::INFO) => ("\u{1b}[32m", "\u{1b}[0m"),
                    (true, _) => ("\u{1b}[2m", "\u{1b}[0m"),
                };
                let text = wrapped(&words);
                writeln!(writer, "{time} {colour}{level:<5}{plain} {text}")
            }
        }
    }
}

pub(super) fn now() -> Value {
    Value::String(format!("{:.6}", Timestamp::now()))
}

/// In their order.
pub(super) fn object<'a>(fields: impl Iterator<Item = (&'a str, &'a Value)>) -> String {
    let fields: Vec<String> = fields
        .map(|(name, value)| format!("{}:{value}", Value::from(name)))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() || text.contains([' ', '"', '\n']) => {
            format!("{text:?}")
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Words in lines; one that is too long has a line for itself.
fn wrapped(words: &[String]) -> String {
    let mut text = String::new();
    let mut column = INDENT;
    for word in words {
        let width = word.chars().count();
        if column > INDENT && column + 1 + width > COLUMNS {
            text.push('\n');
            text.push_str(&" ".repeat(INDENT));
            column = INDENT;
        } else if column > INDENT {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
    }
    text
}

/// In the order in which they were recorded; the later value of a name counts.
#[derive(Default)]
struct Fields(Vec<(String, Value)>);

impl Fields {
    fn set(&mut self, name: &str, value: Value) {
        // `event.type` cannot be written without it.
        let name = name.replace("r#", "");
        match self.0.iter_mut().find(|(of, _)| *of == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    fn take(&mut self, name: &str) -> Option<(String, Value)> {
        let index = self.0.iter().position(|(of, _)| of == name)?;
        Some(self.0.remove(index))
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // Nobody reads parts of a millisecond.
        let rounded = (value * 1000.0).round() / 1000.0;
        self.set(field.name(), rounded.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set(field.name(), error_chain(value).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_below_their_message() {
        let words = "the Kubernetes API call failed verb=create name=job-executor-service-job-5632d8c36b2c387f09b84999-000-001 retry_in_seconds=0.05";
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        insta::assert_snapshot!(wrapped(&words), @r"
        the Kubernetes API call failed verb=create
                       name=job-executor-service-job-5632d8c36b2c387f09b84999-000-001
                       retry_in_seconds=0.05
        ");
    }
}
