//! The message of a `.finished` event: how each task ended, with the logs of its containers, in the
//! words of the original's 0.2.5 and within a number of bytes.
//!
//! Bytes are counted as JSON writes them, since the limit that matters is the one of Keptn's
//! distributor on the whole event.

use crate::event::answer::Verdict;
use crate::job_config::fields::OnFailure;

pub(crate) use extract::{Extract, boundary};
pub(crate) use log_text::LogText;
pub(crate) use masks::{Masking, Masks, Patterns};

mod extract;
mod log_text;
mod masks;
mod plain;

/// How one task of an action ended.
#[derive(Debug)]
pub(crate) struct TaskReport {
    pub(crate) task: String,
    pub(crate) on_failure: OnFailure,
    pub(crate) ending: Ending,
    pub(crate) logs: Vec<ContainerLog>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    Succeeded,
    /// With the reason, for the person who reads the message.
    Failed(String),
}

/// What one container printed.
#[derive(Debug)]
pub(crate) struct ContainerLog {
    pub(crate) container: String,
    pub(crate) pod: String,
    /// `Reason: R, Message: M` of a container that ended badly.
    pub(crate) error: Option<String>,
    pub(crate) text: Result<Extract, String>,
}

pub(crate) fn verdict(reports: &[TaskReport]) -> Verdict {
    let failed = reports
        .iter()
        .filter(|report| matches!(report.ending, Ending::Failed(_)));
    match failed.map(|report| report.on_failure).max() {
        None => Verdict::Succeeded,
        Some(OnFailure::Warn) => Verdict::Warned,
        Some(OnFailure::Fail) => Verdict::Errored,
    }
}

/// Writes the message in at most `budget` bytes of JSON. What failed comes first: it is what the
/// reader looks for, and what a later cut must not reach.
pub(crate) fn message(reports: &[TaskReport], budget: usize) -> String {
    let shares = fair_shares(reports, budget);
    let mut failed = String::new();
    let mut succeeded = String::new();
    let mut shares = shares.into_iter();
    for report in reports {
        let logs: String = report
            .logs
            .iter()
            .map(|log| log.render(shares.next().unwrap_or(0)))
            .collect();
        let task = &report.task;
        match &report.ending {
            Ending::Succeeded => succeeded.push_str(&format!(
                "Task '{task}' finished successfully!\n\nLogs:\n{logs}\n\n"
            )),
            Ending::Failed(reason) => {
                if !failed.is_empty() {
                    failed.push_str("\n\n");
                }
                failed.push_str(&format!("Task '{task}' failed: {reason}"));
                if !logs.is_empty() {
                    failed.push_str(&format!("\n\nLogs: \n{logs}"));
                }
            }
        }
    }
    if !failed.is_empty() && !succeeded.is_empty() {
        failed.push_str("\n\n");
    }
    shortened(&(failed + &succeeded), budget)
}

/// Cuts a text in its middle until JSON writes it in at most `budget` bytes.
pub(crate) fn shortened(text: &str, budget: usize) -> String {
    Extract::from(text).render(budget)
}

/// Divides what the headings leave of the budget among the tasks, and the share of each among its
/// containers. In the order of the logs.
fn fair_shares(reports: &[TaskReport], budget: usize) -> Vec<usize> {
    let headings: usize = reports.iter().map(TaskReport::json_len_without_logs).sum();
    let needs = |report: &TaskReport| -> Vec<usize> {
        let logs = report.logs.iter();
        logs.map(|log| log.text.as_ref().map_or(0, Extract::json_len))
            .collect()
    };
    let needs: Vec<Vec<usize>> = reports.iter().map(needs).collect();
    let of_tasks: Vec<usize> = needs.iter().map(|of_task| of_task.iter().sum()).collect();
    let shares = divided(budget.saturating_sub(headings), &of_tasks);
    let of_logs = needs.iter().zip(shares);
    of_logs
        .flat_map(|(needs, share)| divided(share, needs))
        .collect()
}

/// Who needs less than a fair share leaves the rest to the others.
fn divided(total: usize, needs: &[usize]) -> Vec<usize> {
    let mut by_need: Vec<usize> = (0..needs.len()).collect();
    by_need.sort_by_key(|&index| needs[index]);
    let mut left = total;
    let mut shares = vec![0; needs.len()];
    for (done, &index) in by_need.iter().enumerate() {
        shares[index] = needs[index].min(left / (needs.len() - done));
        left -= shares[index];
    }
    shares
}

impl TaskReport {
    /// Of what `message` writes, at most.
    fn json_len_without_logs(&self) -> usize {
        let reason = match &self.ending {
            Ending::Succeeded => 0,
            Ending::Failed(reason) => extract::json_len(reason),
        };
        let logs = self.logs.iter().map(|log| {
            let error = log.text.as_ref().err();
            let error = error.map_or(0, |error| 40 + extract::json_len(error));
            extract::json_len(&log.heading()) + 16 + error
        });
        64 + extract::json_len(&self.task) + reason + logs.sum::<usize>()
    }
}

impl ContainerLog {
    fn heading(&self) -> String {
        let Self { container, pod, .. } = self;
        match &self.error {
            None => format!("Container {container} of pod {pod}:\n"),
            Some(error) => {
                format!("Container {container} of pod {pod} terminated with an error ({error}):\n")
            }
        }
    }

    /// A container without output is not mentioned, unless it ended badly.
    fn render(&self, budget: usize) -> String {
        match &self.text {
            Ok(text) if text.is_empty() && self.error.is_none() => String::new(),
            Ok(text) => format!("{}{}\n\n", self.heading(), text.render(budget)),
            Err(error) => format!(
                "{}Unable to query logs of container: {error}\n\n",
                self.heading()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn log(text: &str) -> ContainerLog {
        ContainerLog {
            container: "job".into(),
            pod: "job-x".into(),
            error: None,
            text: Ok(Extract::from(text)),
        }
    }

    fn report(task: &str, ending: Ending, logs: Vec<ContainerLog>) -> TaskReport {
        TaskReport {
            task: task.into(),
            on_failure: OnFailure::Fail,
            ending,
            logs,
        }
    }

    #[test]
    fn the_texts_are_those_of_the_original() {
        let success = [
            report("a", Ending::Succeeded, vec![log("hello\n")]),
            report("b", Ending::Succeeded, vec![log("")]),
        ];
        assert_snapshot!(message(&success, 10_000).replace('\n', "⏎"), @"Task 'a' finished successfully!⏎⏎Logs:⏎Container job of pod job-x:⏎hello⏎⏎⏎⏎⏎Task 'b' finished successfully!⏎⏎Logs:⏎⏎⏎");
        let mut bad = log("boom\n");
        bad.error = Some("Reason: Error, ExitCode: 3".into());
        let failed = [report(
            "c",
            Ending::Failed("job c failed".into()),
            vec![bad],
        )];
        assert_eq!(verdict(&failed), Verdict::Errored);
        assert_snapshot!(message(&failed, 10_000), @r"
        Task 'c' failed: job c failed

        Logs: 
        Container job of pod job-x terminated with an error (Reason: Error, ExitCode: 3):
        boom
        ");
        let refused = [report("d", Ending::Failed("refused".into()), vec![])];
        assert_snapshot!(message(&refused, 10_000), @"Task 'd' failed: refused");
    }

    #[test]
    fn a_long_log_leaves_the_short_ones_whole() {
        let reports = [
            report("long", Ending::Succeeded, vec![log(&"x".repeat(100_000))]),
            report(
                "short",
                Ending::Failed("why".into()),
                vec![log("the reason\n")],
            ),
        ];
        let message = message(&reports, 4_000);
        assert!(extract::json_len(&message) <= 4_000, "{}", message.len());
        assert!(message.starts_with("Task 'short' failed: why"));
        assert!(message.contains("the reason"));
        assert!(message.contains("bytes left out"));
        assert!(
            message.len() > 3_500,
            "the budget is used: {}",
            message.len()
        );
    }

    #[test]
    fn tasks_share_the_room_whatever_number_of_containers_they_have() {
        let long = || log(&"x".repeat(100_000));
        let reports = [
            report("one", Ending::Succeeded, vec![long()]),
            report("three", Ending::Succeeded, vec![long(), long(), long()]),
            report("short", Ending::Succeeded, vec![log("short\n")]),
        ];
        let message = message(&reports, 20_000);
        let of = |task: &str| {
            let mut parts = message
                .split("Task '")
                .filter(|part| part.starts_with(task));
            parts.next().unwrap().matches('x').count()
        };
        let (one, three) = (of("one"), of("three"));
        assert!(one.abs_diff(three) < 300, "{one} {three}");
        assert!(one + three > 18_500, "{one} {three}");
        assert_eq!(message.matches("bytes left out").count(), 4);
    }

    #[test]
    fn any_number_of_tasks_fits_the_budget() {
        let reports: Vec<_> = (0..900)
            .map(|n| {
                report(
                    &format!("task {n}"),
                    Ending::Succeeded,
                    vec![log("\u{1}\"é\n")],
                )
            })
            .collect();
        assert!(extract::json_len(&message(&reports, 5_000)) <= 5_000);
    }
}
