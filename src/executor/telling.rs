//! What the log and the traces are told of a run that is over.

use jiff::Timestamp;
use tracing::info;

use crate::event::answer::Verdict;
use crate::job_config::fields::OnFailure;
use crate::keptn::answers::Delivered;
use crate::report::Ending;
use crate::run::Run;
use crate::traces::{self, AnswerTold, RunTold, TaskTold};

use super::Executor;
use super::course::Course;
use super::done::Done;

impl Executor {
    pub(super) fn tasks_told<'a>(&self, done: &[Done<'a>]) -> Vec<TaskTold<'a>> {
        let told = |done: &Done<'a>| {
            let (place, end) = done.job.as_ref()?;
            let (began, ended) = done.time?;
            Some(TaskTold {
                place: *place,
                namespace: self.cluster.name_of_namespace(*place).to_owned(),
                pod: end.pod.as_ref().map(|(name, _)| name.clone()),
                began,
                ended,
                result: match (&done.ending, done.on_failure) {
                    (Ending::Succeeded, _) => traces::Result::Succeeded,
                    (Ending::Failed(reason), OnFailure::Warn) => {
                        traces::Result::Warned(self.masks.text(reason))
                    }
                    (Ending::Failed(reason), OnFailure::Fail) => {
                        traces::Result::Failed(self.masks.text(reason))
                    }
                },
            })
        };
        done.iter().filter_map(told).collect()
    }

    /// Tells of a run that is over.
    pub(super) fn tell(
        &self,
        run: &Run,
        course: &Course,
        verdict: Verdict,
        failed: usize,
        tasks: &[TaskTold<'_>],
        answers: &[AnswerTold],
    ) {
        let lasted = Timestamp::now().duration_since(run.arrived);
        info!(
            result = verdict.result(),
            tasks = tasks.len(),
            failed,
            attempts = answers.iter().map(|told| told.attempts).sum::<u32>(),
            seconds = lasted.as_secs_f64(),
            "Successfully finished processing of event: {}",
            run.event.id
        );
        self.traces.run_is_over(&RunTold {
            id: &run.id,
            event: &run.event,
            arrived: run.arrived,
            over: Timestamp::now(),
            verdict,
            beginning: course.beginning,
            tasks,
            answers,
        });
    }
}

pub(super) fn told(event_type: String, delivered: Delivered) -> AnswerTold {
    AnswerTold {
        event_type,
        attempts: delivered.attempts,
        began: delivered.began,
        ended: delivered.ended,
    }
}
