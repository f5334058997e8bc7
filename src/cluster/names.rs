//! Names and labels of Jobs. Names are a function of run, action and task, so that creating a Job a
//! second time finds the first.

use crate::run::RunId;

/// 57 characters, as many as leave a Pod's name whole (63 less 6 of `-xxxxx`) = 25 of this prefix + 24
/// of the run id + 8 of `-AAA-TTT`.
const PREFIX: &str = "job-executor-service-job-";

/// As the original numbered them: actions from 0, tasks from 1. `task` is from 0 here.
pub(crate) fn job_name(run: &RunId, action: usize, task: usize) -> String {
    format!("{PREFIX}{run}-{action:03}-{:03}", task + 1)
}

pub(crate) fn init_container_name(job: &str) -> String {
    format!("init-{job}")
}

pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The run that a Job and its Pod belong to.
pub(crate) const RUN: &str = "keptn.sh/jes-run";
/// On a Job whose run's `.finished` was delivered; nobody has to look at it again.
pub(crate) const REPORTED: &str = "keptn.sh/jes-reported";
/// Annotation: the run record.
pub(crate) const RECORD: &str = "keptn.sh/jes-record";
/// Annotation on the first Job: `.started` was delivered.
pub(crate) const STARTED: &str = "keptn.sh/jes-started";

/// Any text as a label's value, as the original did it: what is not allowed becomes one `_`, at most
/// 63 characters, `-_.` trimmed at both ends.
pub(crate) fn label_value(text: &str) -> String {
    let mut value = String::new();
    let mut replaced = false;
    for character in text.chars() {
        let allowed = character.is_ascii_alphanumeric() || "-_.".contains(character);
        if allowed {
            value.push(character);
        } else if !replaced {
            value.push('_');
        }
        replaced = !allowed;
    }
    value.truncate(63);
    value.trim_matches(['-', '_', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::envelope;

    #[test]
    fn labels_are_those_of_the_original() {
        for (text, value) in [
            ("some_action", "some_action"),
            ("Some fancy action name ...", "Some_fancy_action_name"),
            (
                "--NameThat's not Compatible with k8s []{}///// a....",
                "NameThat_s_not_Compatible_with_k8s_a",
            ),
            ("", ""),
            ("ä", ""),
        ] {
            assert_eq!(label_value(text), value);
        }
        assert_eq!(label_value(&"x".repeat(100)).len(), 63);
    }

    #[test]
    fn names_leave_room_for_the_init_container() {
        for id in ["1", "UPPER_case", &"long".repeat(100)] {
            let name = job_name(&RunId::of(&envelope(id)), 998, 998);
            assert_eq!(name.len(), 57, "{name}");
            assert!(init_container_name(&name).len() <= 63);
        }
        let id = RunId::of(&envelope("1"));
        assert_ne!(job_name(&id, 0, 11), job_name(&id, 1, 1));
    }
}
