//! `securityContext`: of a task, and by the same rules of the operator's files.

use super::fields::{Capabilities, SeccompProfile, SecurityContext};
use super::problem::{Problems, cited, quoted};
use super::reader::value::{Fields, Keys, Value};

pub(super) const SECURITY_CONTEXT: [&str; 9] = [
    "capabilities",
    "privileged",
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "readOnlyRootFilesystem",
    "allowPrivilegeEscalation",
    "procMount",
    "seccompProfile",
];
pub(super) const CAPABILITIES: [&str; 2] = ["add", "drop"];
pub(super) const SECCOMP_PROFILE: [&str; 2] = ["type", "localhostProfile"];

const PROC_MOUNTS: [(&str, ()); 2] = [("Default", ()), ("Unmasked", ())];
const SECCOMP_TYPES: [(&str, ()); 3] =
    [("RuntimeDefault", ()), (LOCALHOST, ()), ("Unconfined", ())];
const LOCALHOST: &str = "Localhost";

/// Of users and groups; Kubernetes takes 31 bits.
const MAX_ID: i32 = i32::MAX;

pub(super) fn read(value: &Value<'_>, problems: &mut Problems) -> Option<SecurityContext> {
    let fields = value.fields(&SECURITY_CONTEXT, Keys::Strict, |_| None, problems)?;
    let proc_mount = fields.get("procMount").and_then(|value| {
        value.one_of(&PROC_MOUNTS, problems)?;
        value.text(problems)
    });
    let privileged = fields.boolean("privileged", problems);
    let escalation = fields.boolean("allowPrivilegeEscalation", problems);
    if (privileged, escalation) == (Some(true), Some(false)) {
        let message = "`false` contradicts `privileged: true`, expected `true` or nothing";
        if let Some(value) = fields.get("allowPrivilegeEscalation") {
            problems.add(value.error(message));
        }
    }
    Some(SecurityContext {
        capabilities: fields
            .get("capabilities")
            .and_then(|value| capabilities(&value, problems)),
        privileged,
        run_as_user: id(&fields, "runAsUser", problems),
        run_as_group: id(&fields, "runAsGroup", problems),
        run_as_non_root: fields.boolean("runAsNonRoot", problems),
        read_only_root_filesystem: fields.boolean("readOnlyRootFilesystem", problems),
        allow_privilege_escalation: escalation,
        proc_mount,
        seccomp_profile: fields
            .get("seccompProfile")
            .and_then(|value| seccomp_profile(&value, problems)),
    })
}

fn id(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> Option<i64> {
    let value = fields.get(name)?;
    let expected = format!("a whole number from 0 to {MAX_ID}");
    let number = value.whole_number(&expected, problems)?;
    let id = i64::try_from(number)
        .ok()
        .filter(|id| check_id(*id).is_ok());
    if id.is_none() {
        problems.add(value.error(format!("expected {expected}")));
    }
    id
}

fn capabilities(value: &Value<'_>, problems: &mut Problems) -> Option<Capabilities> {
    let fields = value.fields(&CAPABILITIES, Keys::Strict, |_| None, problems)?;
    Some(Capabilities {
        add: fields.texts("add", "a list", problems),
        drop: fields.texts("drop", "a list", problems),
    })
}

fn seccomp_profile(value: &Value<'_>, problems: &mut Problems) -> Option<SeccompProfile> {
    let fields = value.fields(&SECCOMP_PROFILE, Keys::Strict, |_| None, problems)?;
    let written_kind = fields.get("type");
    let kind = match &written_kind {
        None => None,
        Some(value) => {
            value.one_of(&SECCOMP_TYPES, problems)?;
            value.text(problems)
        }
    };
    let written_profile = fields.get("localhostProfile");
    let profile = match &written_profile {
        None => None,
        Some(value) => Some(value.text(problems)?),
    };
    if let Err(error) = check_localhost(kind.as_deref(), profile.as_deref()) {
        let at = written_profile.as_ref().unwrap_or(value);
        let error = match &profile {
            Some(profile) => error.replace(profile, &cited(profile)),
            None => error,
        };
        problems.add(at.error(error));
    }
    Some(SeccompProfile {
        kind,
        localhost_profile: profile,
    })
}

/// Whether a user or group can have this number.
pub(crate) fn check_id(id: i64) -> Result<(), String> {
    if (0..=i64::from(MAX_ID)).contains(&id) {
        return Ok(());
    }
    Err(format!("expected a whole number from 0 to {MAX_ID}"))
}

pub(crate) fn check_proc_mount(text: &str) -> Result<(), String> {
    check_known(text, &PROC_MOUNTS)
}

pub(crate) fn check_seccomp_type(text: &str) -> Result<(), String> {
    check_known(text, &SECCOMP_TYPES)
}

fn check_known(text: &str, allowed: &[(&'static str, ())]) -> Result<(), String> {
    let names: Vec<&str> = allowed.iter().map(|(name, ())| *name).collect();
    if names.contains(&text) {
        return Ok(());
    }
    Err(format!(
        "unknown value `{}`, expected one of {}",
        cited(text),
        quoted(&names)
    ))
}

/// A profile of the node's goes with just one type.
pub(crate) fn check_localhost(kind: Option<&str>, profile: Option<&str>) -> Result<(), String> {
    match (kind, profile) {
        (Some(LOCALHOST), None) => {
            Err("`type: Localhost` needs `localhostProfile`, a file on the node".into())
        }
        (Some(LOCALHOST), Some(profile)) => {
            let leaves = profile.starts_with('/') || profile.split('/').any(|part| part == "..");
            if profile.is_empty() || leaves {
                return Err(format!(
                    "`{profile}` is no profile of the node, expected a relative path without `..` such as \
                     `profiles/audit.json`"
                ));
            }
            Ok(())
        }
        (_, Some(_)) => Err("allowed only with `type: Localhost`".into()),
        (_, None) => Ok(()),
    }
}
