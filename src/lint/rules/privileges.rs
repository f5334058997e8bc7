//! What of a `securityContext` the Pod Security Standard "restricted" refuses. A cluster that holds Pods to
//! it creates none for the Job.

use crate::job_config::fields::SecurityContext;
use crate::job_config::problem::cited;

/// The one capability that the standard lets a container add.
const ADDABLE: &str = "NET_BIND_SERVICE";

/// The field, and what of it is refused.
pub(super) fn refused(context: &SecurityContext) -> Vec<(&'static str, String)> {
    let mut refused = Vec::new();
    let mut weak = |is_weak: bool, field, what: &str| {
        if is_weak {
            refused.push((field, what.to_owned()));
        }
    };
    weak(
        context.privileged == Some(true),
        "privileged",
        "`privileged: true`",
    );
    weak(
        context.run_as_user == Some(0),
        "runAsUser",
        "`runAsUser: 0`",
    );
    weak(
        context.run_as_non_root == Some(false),
        "runAsNonRoot",
        "`runAsNonRoot: false`",
    );
    weak(
        context.allow_privilege_escalation == Some(true),
        "allowPrivilegeEscalation",
        "`allowPrivilegeEscalation: true`",
    );
    weak(
        context.proc_mount.as_deref() == Some("Unmasked"),
        "procMount",
        "`procMount: Unmasked`",
    );
    let seccomp = context.seccomp_profile.as_ref();
    weak(
        seccomp.and_then(|profile| profile.kind.as_deref()) == Some("Unconfined"),
        "seccompProfile.type",
        "`seccompProfile` with `type: Unconfined`",
    );
    if let Some(capabilities) = &context.capabilities {
        let is_all = |name: &String| name == "ALL";
        // Present, it replaces the default, which drops them all.
        weak(
            !capabilities.drop.iter().any(is_all),
            "capabilities",
            "`capabilities` without `drop: [ALL]`",
        );
        for name in capabilities.add.iter().filter(|name| *name != ADDABLE) {
            let what = format!("the added capability `{}`", cited(name));
            weak(true, "capabilities.add", &what);
        }
    }
    refused
}
