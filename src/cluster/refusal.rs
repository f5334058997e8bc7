//! Why the API server does not create a Job, and what helps. Pure.

use super::Refused;
use super::calls::Failed;
use super::hindrance::{MESSAGE_BYTES, bare};
use crate::report::shortened;

/// Its verdict on the Job of a task. Another task's may get the same name.
pub(super) fn of(verdict: &Failed) -> Refused {
    let (code, reason) = match verdict {
        Failed::Api(status) => (status.code, status.reason.as_str()),
        Failed::Unreachable(_) | Failed::Timeout => (0, "Unknown"),
    };
    let message = verdict.to_string();
    let advice = advice(code, &message);
    let message = shortened(bare(&message), MESSAGE_BYTES);
    Refused(format!(
        "its Job was not created. Reason: {reason}, Message: {message}; {advice}"
    ))
}

fn advice(code: u16, message: &str) -> &'static str {
    let says = |words: &str| message.contains(words);
    if says("exceeded quota") {
        "Jobs that have ended count, too: delete some, lower `ttlSecondsAfterFinished` of tasks, or raise the \
         quota"
    } else if says("denied the request") || says("denied request") {
        "the rules of the cluster do not admit such a Job: correct the task, or the rules"
    } else if says("being terminated") || code == 404 {
        "choose another `namespace`, or create this one"
    } else if says("forbidden: User ") {
        "give the service's account its Role in the task's namespace"
    } else if code == 422 {
        "correct the field of the task that becomes this part of the Job"
    } else {
        "correct the task, or what keeps the cluster from having it"
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    /// In the words of Kubernetes 1.33.
    #[test]
    fn each_refusal_says_what_helps() {
        let rows = [
            (
                403,
                "jobs.batch \"j\" is forbidden: exceeded quota: q, requested: count/jobs.batch=1",
            ),
            (
                400,
                "admission webhook \"w.example.com\" denied the request: no such team",
            ),
            (
                422,
                "jobs.batch \"j\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
            ),
            (
                403,
                "jobs.batch \"j\" is forbidden: unable to create new content in namespace n because it is being terminated",
            ),
            (404, "namespaces \"n\" not found"),
            (
                403,
                "jobs.batch is forbidden: User \"system:serviceaccount:keptn:jes\" cannot create resource \"jobs\"",
            ),
            (
                422,
                "Job.batch \"j\" is invalid: spec.template.spec.containers[0].image: Required value",
            ),
            (413, "the request is too large."),
        ];
        let told = rows.map(|(code, message)| {
            let status = Status::failure(message, "R").with_code(code);
            let Refused(text) = of(&Failed::Api(status.boxed()));
            text.split_once("Message: ")
                .map(|(_, rest)| rest.to_owned())
                .unwrap_or(text)
        });
        insta::assert_snapshot!(told.join("\n"), @r#"
        jobs.batch "j" is forbidden: exceeded quota: q, requested: count/jobs.batch=1; Jobs that have ended count, too: delete some, lower `ttlSecondsAfterFinished` of tasks, or raise the quota
        admission webhook "w.example.com" denied the request: no such team; the rules of the cluster do not admit such a Job: correct the task, or the rules
        jobs.batch "j" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no; the rules of the cluster do not admit such a Job: correct the task, or the rules
        jobs.batch "j" is forbidden: unable to create new content in namespace n because it is being terminated; choose another `namespace`, or create this one
        namespaces "n" not found; choose another `namespace`, or create this one
        jobs.batch is forbidden: User "system:serviceaccount:keptn:jes" cannot create resource "jobs"; give the service's account its Role in the task's namespace
        Job.batch "j" is invalid: spec.template.spec.containers[0].image: Required value; correct the field of the task that becomes this part of the Job
        the request is too large; correct the task, or what keeps the cluster from having it
        "#);
    }
}
