//! What an admission came to.

use crate::journal::entry::EventOutcome;

/// What the sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// No work follows from the event.
    Nothing(Decision, String),
    /// The run cannot be lost any more, or the answer is out.
    Accepted(Decision, String),
    /// A bug; the log has it.
    Panicked,
}

/// What an admission came to, in words that are no text of a config or an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Started,
    NoProject,
    NoConfig,
    NoMatch,
    SeenBefore,
    /// Keptn has the answer, and the Jobs are gone.
    AnsweredBefore,
    /// No task could be run, and Keptn was told so.
    TasksRefused,
    /// The config cannot be read or is invalid.
    BadConfig,
}

impl Decision {
    fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::NoProject => "no project",
            Self::NoConfig => "no config",
            Self::NoMatch => "no match",
            Self::SeenBefore => "seen before",
            Self::AnsweredBefore => "answered before",
            Self::TasksRefused => "tasks refused",
            Self::BadConfig => "bad config",
        }
    }
}

impl Admitted {
    pub(super) fn decision(&self) -> &'static str {
        match self {
            Self::Nothing(decision, _) | Self::Accepted(decision, _) => decision.name(),
            Self::Panicked => "panicked",
        }
    }

    pub(super) fn told(&self) -> (EventOutcome, &str) {
        match self {
            Self::Nothing(_, reason) => (EventOutcome::Nothing, reason),
            Self::Accepted(_, reason) => (EventOutcome::Accepted, reason),
            Self::Panicked => (
                EventOutcome::Panicked,
                "a bug of the service, its log has more",
            ),
        }
    }
}
