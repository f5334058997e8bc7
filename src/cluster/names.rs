//! Names and labels that this service puts on Jobs and Pods.

pub(crate) fn init_container_name(job: &str) -> String {
    format!("init-{job}")
}

pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Of a Job in another namespace: where the service that made it has the others. Several may share one.
pub(crate) const HOME: &str = "keptn.sh/jes-home";
/// The run that a Job and its Pod belong to.
pub(crate) const RUN: &str = "keptn.sh/jes-run";
/// On a Job whose run's `.finished` was delivered; nobody has to look at it again.
pub(crate) const REPORTED: &str = "keptn.sh/jes-reported";
/// Annotation: the run record.
pub(crate) const RECORD: &str = "keptn.sh/jes-record";
/// Annotation on the first Job: `.started` was delivered.
pub(crate) const STARTED: &str = "keptn.sh/jes-started";
/// Annotation: the task succeeded, whatever becomes of the Job.
pub(crate) const SUCCEEDED: &str = "keptn.sh/jes-succeeded";
/// Annotation: why the task failed, where nothing else will tell for long.
pub(crate) const FAILED: &str = "keptn.sh/jes-failed";
/// Annotation on the first Job: `.finished` was delivered, or nobody was to be told. Marks may be missing.
pub(crate) const ANSWERED: &str = "keptn.sh/jes-answered";

/// Selects what this installation made.
pub(crate) fn ours(managed_by: &str, home: Option<&str>) -> String {
    let home = home.map_or_else(String::new, |home| format!(",{HOME}={home}"));
    format!("{MANAGED_BY}={managed_by},{RUN}{home}")
}

/// Selects the Jobs whose run's answer is not out.
pub(crate) fn unreported(managed_by: &str, home: Option<&str>) -> String {
    format!("{},!{REPORTED}", ours(managed_by, home))
}

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
}
