//! The things that are told, with the shape that `--output json` gives them.

use serde::Serialize;
use serde_json::Value;

use crate::event::Event;
use crate::job_config::problem::Problem;

/// One thing that happened.
#[derive(Debug, Serialize)]
#[serde(
    tag = "what",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub(crate) enum Told<'a> {
    Event {
        id: &'a str,
        #[serde(rename = "type")]
        event_type: &'a str,
        project: Option<&'a str>,
        stage: Option<&'a str>,
        service: Option<&'a str>,
    },
    /// The config that was found.
    Config {
        event: &'a str,
        file: &'a str,
    },
    /// What is wrong with it.
    Problem {
        event: &'a str,
        file: &'a str,
        #[serde(flatten)]
        problem: &'a ProblemTold,
    },
    Action {
        event: &'a str,
        name: &'a str,
        line: u32,
        silent: bool,
        matches: bool,
        /// Why the action is not for the event, or which of its tasks are refused.
        reasons: &'a [String],
    },
    TaskStarted {
        /// The id of the event.
        event: &'a str,
        action: &'a str,
        task: &'a str,
        /// From 1.
        number: usize,
        of: usize,
        image: &'a str,
        job: &'a str,
    },
    Output {
        event: &'a str,
        job: &'a str,
        /// Whether other tasks work meanwhile.
        #[serde(skip)]
        beside_others: bool,
        action: &'a str,
        task: &'a str,
        container: &'a str,
        line: &'a str,
    },
    TaskEnded {
        event: &'a str,
        action: &'a str,
        task: &'a str,
        job: &'a str,
        result: TaskResult,
        #[serde(skip_serializing_if = "Option::is_none")]
        exit_code: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        seconds: f64,
    },
    /// An attempt failed, and another follows.
    TaskRetried {
        event: &'a str,
        action: &'a str,
        task: &'a str,
        job: &'a str,
        exit_code: i64,
        /// From 1.
        attempt: usize,
        of: usize,
    },
    /// What the sender of an event was told.
    Answered {
        /// The ids of the events; a batch has several.
        events: &'a [String],
        status: u16,
        text: &'a str,
    },
    Listening {
        address: &'a str,
        /// By their numbers, from 1.
        test_events: &'a [String],
    },
    Note {
        text: &'a str,
    },
    EventSent {
        /// Whether answers to several events are told.
        #[serde(skip)]
        of_several: bool,
        event: &'a Value,
    },
    Ended {
        result: RunResult,
        #[serde(skip_serializing_if = "str::is_empty")]
        reason: &'a str,
        tasks: usize,
        failed: usize,
        seconds: f64,
    },
}

impl<'a> Told<'a> {
    pub(crate) fn event(event: &'a Event) -> Self {
        let envelope = &event.envelope;
        Self::Event {
            id: &envelope.id,
            event_type: envelope.event_type.as_str(),
            project: envelope.scope.project.as_deref(),
            stage: envelope.scope.stage.as_deref(),
            service: envelope.scope.service.as_deref(),
        }
    }
}

/// A problem with its place, and as `lint` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct ProblemTold {
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
    pub(crate) path: String,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) help: Option<String>,
    #[serde(skip)]
    pub(crate) text: String,
}

impl From<&Problem> for ProblemTold {
    fn from(problem: &Problem) -> Self {
        Self {
            line: problem.place.map(|place| place.line),
            column: problem.place.map(|place| place.column),
            path: problem.path.clone(),
            message: problem.message.clone(),
            help: problem.help.clone(),
            text: String::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum TaskResult {
    Succeeded,
    Failed,
}

/// How one event fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum RunResult {
    Succeeded,
    Errored,
    BadInput,
    NothingMatched,
    Interrupted,
}
