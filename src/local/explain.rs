//! The command `explain`: why an event runs what it runs, and the Jobs.

mod text;
mod yaml;

use std::io::Write;

use anyhow::Context;
use serde_json::json;

use super::NAMESPACE;
use super::story::{Format, ProblemTold, RunResult};
use crate::cli::{Exit, ExplainSettings, ServeSettings};
use crate::explain::explain;
use crate::lint::output::{Colours, Form, Output};
use crate::rules::Known;
use crate::rules::Rules;

/// Of a service with these settings that knows nothing of its own Pod.
pub(crate) fn rules(settings: &ServeSettings) -> Rules {
    let namespace = settings.tasks.namespace(NAMESPACE);
    Rules::of(settings, &namespace, &Known::default())
}

/// The command `explain`.
pub(crate) fn main(settings: &ExplainSettings) -> anyhow::Result<Exit> {
    told(
        settings,
        &mut anstream::stdout().lock(),
        &mut anstream::stderr(),
    )
}

/// The same, told to somebody else.
pub(crate) fn told(
    settings: &ExplainSettings,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<Exit> {
    let mut bad_input = |reason: &str| {
        match settings.output {
            Format::Text => writeln!(err, "error: {reason}")?,
            Format::Json => failure(out, RunResult::BadInput, reason, &[])?,
        }
        Ok(Exit::BadInput)
    };
    let (_, event) = match settings.event.read() {
        Ok(read) => read,
        Err(reason) => return bad_input(&reason),
    };
    let repository = settings.resources.repository();
    let found = match repository.config(&event.envelope.scope) {
        Ok(Some(found)) => found,
        Ok(None) => {
            let reason = repository.no_config(&event.envelope.scope);
            match settings.output {
                Format::Text => writeln!(err, "{reason}")?,
                Format::Json => failure(out, RunResult::NothingMatched, &reason, &[])?,
            }
            return Ok(Exit::NothingMatched);
        }
        Err(reason) => return bad_input(&reason),
    };
    let serve = settings.serve();
    let rules = rules(&serve);
    match explain(
        &event,
        &found.bytes,
        &rules,
        &serve.tasks.full_deployment_name,
    ) {
        Ok(explanation) => {
            let text = text::of(settings.output, &event, &found.path, &explanation);
            let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            written.context("cannot write the explanation")?;
            Ok(match (explanation.matches(), explanation.is_refused()) {
                (false, _) => Exit::NothingMatched,
                (true, true) => Exit::Errored,
                (true, false) => Exit::Succeeded,
            })
        }
        Err(errors) => {
            let file = found.path.display().to_string();
            match settings.output {
                Format::Text => Output::new(Form::Text, Colours::Ansi).problems(
                    &file,
                    &found.bytes,
                    &errors.problems,
                    err,
                )?,
                Format::Json => {
                    let problems: Vec<ProblemTold> =
                        errors.problems.iter().map(ProblemTold::from).collect();
                    let reason = format!("{file} is invalid");
                    failure(out, RunResult::BadInput, &reason, &problems)?;
                }
            }
            Ok(Exit::BadInput)
        }
    }
}

/// For programs, why there is no explanation.
fn failure(
    out: &mut dyn Write,
    result: RunResult,
    reason: &str,
    problems: &[ProblemTold],
) -> anyhow::Result<()> {
    let mut told = json!({"result": result, "reason": reason});
    if !problems.is_empty() {
        told["problems"] = json!(problems);
    }
    writeln!(out, "{told}").context("cannot write the explanation")
}
