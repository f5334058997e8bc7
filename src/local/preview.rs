//! What is told before an event is run: its config, and which actions are for it.

use super::explain::rules;
use super::keptn::FoundConfig;
use super::serve_settings;
use super::story::{ProblemTold, Story, Told};
use crate::cli::DeskSettings;
use crate::event::Event;
use crate::explain::{Explanation, explain};
use crate::job_config::problem::ConfigErrors;
use crate::lint::output::{Colours, Form, Output};

/// What the event will come to.
pub(super) enum Preview {
    /// There is no config, with where it was looked for.
    NoConfig(String),
    /// No action is for it, which has been told.
    NoAction,
    /// The files cannot be used, with the reason.
    BadInput(String),
    /// The config is invalid, which has been told.
    Invalid,
    /// At least one action is for it, of which something may be refused.
    Run { refused: bool },
}

pub(super) fn preview(
    settings: &DeskSettings,
    event: &Event,
    story: &Story,
) -> anyhow::Result<Preview> {
    let repository = settings.resources.repository();
    let found = match repository.config(&event.envelope.scope) {
        Ok(Some(found)) => found,
        Ok(None) => {
            return Ok(Preview::NoConfig(
                repository.no_config(&event.envelope.scope),
            ));
        }
        Err(reason) => return Ok(Preview::BadInput(reason)),
    };
    let id = &event.envelope.id;
    story.tell(&Told::Config {
        event: id,
        file: &found.path.display().to_string(),
    });
    let serve = serve_settings(settings)?;
    let rules = rules(&serve);
    let installation = &serve.tasks.full_deployment_name;
    let explanation = match explain(event, &found.bytes, &rules, installation) {
        Ok(explanation) => explanation,
        Err(errors) => {
            tell_problems(id, &found, &errors, story);
            return Ok(Preview::Invalid);
        }
    };
    tell_actions(id, &explanation, story);
    if !explanation.matches() {
        return Ok(Preview::NoAction);
    }
    if let Err(error) = tempfile::tempdir() {
        let directory = std::env::temp_dir();
        return Ok(Preview::BadInput(format!(
            "the files of tasks go to {} (TMPDIR), where nothing can be written: {error}",
            directory.display()
        )));
    }
    let known = settings.secrets();
    let missing = explanation
        .secrets()
        .find(|(_, secret)| !known.contains_key(*secret));
    if let Some((task, secret)) = missing.filter(|_| !explanation.is_refused()) {
        return Ok(Preview::BadInput(format!(
            "task `{}` takes variables from the Secret {secret}, give it with `--secret {secret}=FILE`, a \
             file with lines `KEY=value`",
            task.name
        )));
    }
    Ok(Preview::Run {
        refused: explanation.is_refused(),
    })
}

fn tell_problems(event: &str, found: &FoundConfig, errors: &ConfigErrors, story: &Story) {
    let file = found.path.display().to_string();
    for problem in &errors.problems {
        let mut text = Vec::new();
        let mut output = Output::new(Form::Text, Colours::Ansi);
        let problems = std::slice::from_ref(problem);
        // Writing to memory does not fail.
        output
            .problems(&file, &found.bytes, problems, &mut text)
            .ok();
        story.tell(&Told::Problem {
            event,
            file: &file,
            problem: &ProblemTold {
                text: String::from_utf8_lossy(&text).into_owned(),
                ..ProblemTold::from(problem)
            },
        });
    }
}

fn tell_actions(event: &str, explanation: &Explanation, story: &Story) {
    for action in &explanation.actions {
        let refused = action.tasks.iter().filter_map(|task| {
            let reason = task.refused.as_deref()?;
            Some(format!(
                "line {}: task `{}`: {reason}",
                task.line, task.name
            ))
        });
        let reasons: Vec<String> = action.reasons.iter().cloned().chain(refused).collect();
        story.tell(&Told::Action {
            event,
            name: &action.name,
            line: action.line,
            silent: action.silent,
            matches: action.matches,
            reasons: &reasons,
        });
    }
}
