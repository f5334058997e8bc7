//! What a task may use, as the operator of this service decides it.

mod allow_list;
mod volumes;

use std::collections::BTreeSet;

use crate::job_config::Task;
use crate::job_config::fields::{
    EnvFrom, EnvVar, KeyHolder, ObjectName, SecurityContext, ServiceAccount,
};
use crate::job_config::pod_parts::{PodParts, Volume};
use crate::run::RunTask;

pub(crate) use allow_list::AllowList;
pub(crate) use volumes::{VolumeTypes, secrets as secrets_of_volume};

/// Helm keeps the values of each release in a Secret of such a name; a chart's may be credentials.
const HELM_RELEASES: &str = "sh.helm.release.v1.";

/// The account of Pods that name none.
const DEFAULT_ACCOUNT: &str = "default";

#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    /// Over the whole text of an image.
    pub(crate) images: AllowList,
    pub(crate) privileged: Privileged,
    /// Where the Jobs of tasks run that name no namespace.
    pub(crate) namespace: String,
    /// Where tasks may run that name it.
    pub(crate) namespaces: BTreeSet<String>,
    /// Of accounts that tasks name.
    pub(crate) service_accounts: AllowList,
    pub(crate) secrets: AllowList,
    pub(crate) volumes: VolumeTypes,
    pub(crate) own: Own,
}

/// What is this service's own: whoever may push a job/config.yaml must not come by it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Own {
    /// Where this service runs.
    pub(crate) namespace: String,
    /// None where it runs outside of a cluster.
    pub(crate) service_account: Option<String>,
    /// With Keptn's token; init containers need it in every namespace.
    pub(crate) token_secret: String,
    /// Those that the service's own Pod uses.
    pub(crate) secrets: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Privileged {
    #[default]
    Refused,
    Allowed,
}

impl Policy {
    /// Tells why a task must not run; the texts are the original's where it had one. `account` is the one
    /// of tasks that name none.
    pub(crate) fn check(&self, task: &Task, account: Option<&str>) -> Result<(), String> {
        self.permits(&Wants::of(task, account))
    }

    /// The same of a task as a run record has it: whoever may create Jobs can write one.
    pub(crate) fn check_recorded(
        &self,
        task: &RunTask,
        default_account: Option<&str>,
    ) -> Result<(), String> {
        self.permits(&Wants::of_recorded(task, default_account))
    }

    fn permits(&self, wants: &Wants<'_>) -> Result<(), String> {
        let Wants {
            image,
            namespace,
            named_account,
            default_account,
            ..
        } = *wants;
        if !self.images.allows(image) {
            return Err(format!(
                "Forbidden: Image {image} does not match configured image allowlist.\n"
            ));
        }
        if self.privileged == Privileged::Refused {
            check_privileges(wants.security_context)?;
        }
        let namespace = namespace.unwrap_or(&self.namespace);
        self.check_namespace(namespace)?;
        self.check_account(named_account, default_account, namespace)?;
        for volume in wants.volumes {
            self.volumes.check(volume)?;
            self.check_volume_image(volume)?;
            if named_account.is_none() && volumes::has_account_token(volume) {
                return Err(format!(
                    "volume `{}` is the token of a service account, but the task names no `serviceAccount`",
                    volume.name
                ));
            }
        }
        for secret in &wants.secrets {
            self.check_secret(secret, namespace)?;
        }
        Ok(())
    }

    fn check_volume_image(&self, volume: &Volume) -> Result<(), String> {
        let image = volume
            .image
            .as_ref()
            .and_then(|image| image.reference.as_deref());
        match image {
            Some(image) if !self.images.allows(image) => Err(format!(
                "Forbidden: Image {image} of volume `{}` does not match configured image allowlist.\n",
                volume.name
            )),
            _ => Ok(()),
        }
    }

    /// Where the task runs, also if the settings change while it does.
    pub(crate) fn resolved_namespace(&self, task: &Task) -> Option<ObjectName> {
        ObjectName::parse(self.namespace_of(task)).ok()
    }

    /// Where the task wants to run.
    fn namespace_of<'a>(&'a self, task: &'a Task) -> &'a str {
        let named = task.namespace.as_ref();
        named.map_or(&self.namespace, |namespace| namespace.as_str())
    }

    fn check_namespace(&self, namespace: &str) -> Result<(), String> {
        if namespace == self.namespace || self.namespaces.contains(namespace) {
            return Ok(());
        }
        let others: Vec<String> = self
            .namespaces
            .iter()
            .map(|name| format!("`{name}`"))
            .collect();
        let allowed = if others.is_empty() {
            String::new()
        } else {
            format!(", allowed are also {}", others.join(", "))
        };
        Err(format!(
            "namespace `{namespace}` is not allowed, Jobs run in `{}`{allowed} (ALLOWED_NAMESPACES of the \
             service)",
            self.namespace
        ))
    }

    fn check_account(
        &self,
        named: Option<&str>,
        default: Option<&str>,
        namespace: &str,
    ) -> Result<(), String> {
        let account = named.or(default).unwrap_or(DEFAULT_ACCOUNT);
        if self.own.service_account.as_deref() == Some(account) && namespace == self.own.namespace {
            return Err(format!(
                "service account `{account}` is not allowed, it is the one of this service"
            ));
        }
        match named {
            Some(named) if !self.service_accounts.allows(named) => Err(format!(
                "service account `{named}` is not allowed (ALLOWED_SERVICE_ACCOUNTS of the service)"
            )),
            _ => Ok(()),
        }
    }

    /// Of an entry of the task's `env`.
    pub(crate) fn check_variable(&self, task: &Task, source: &EnvVar) -> Result<(), String> {
        match source {
            EnvVar::Secret(secret) => self.check_secret(secret.as_str(), self.namespace_of(task)),
            EnvVar::Key(key) => match &key.of {
                KeyHolder::Secret(secret) => {
                    self.check_secret(secret.as_str(), self.namespace_of(task))
                }
                KeyHolder::ConfigMap(_) => Ok(()),
            },
            EnvVar::Event { .. } | EnvVar::Literal(_) => Ok(()),
        }
    }

    /// Before Kubernetes 1.24 each account has a Secret with a token that does not expire.
    fn is_own_token(&self, secret: &str) -> bool {
        let account = self.own.service_account.as_deref();
        let rest = account.and_then(|account| secret.strip_prefix(account));
        rest.is_some_and(|rest| rest.starts_with("-token-"))
    }

    fn check_secret(&self, name: &str, namespace: &str) -> Result<(), String> {
        let is_here = namespace == self.own.namespace;
        let is_own = is_here && (self.own.secrets.contains(name) || self.is_own_token(name));
        if name.starts_with(HELM_RELEASES) {
            return Err(format!(
                "secret \"{name}\" is not allowed, it holds the values of a release of Helm"
            ));
        }
        if is_own || name == self.own.token_secret {
            return Err(format!(
                "secret \"{name}\" is not allowed, it holds the credentials of this service"
            ));
        }
        if !self.secrets.allows(name) {
            return Err(format!(
                "secret \"{name}\" is not allowed (ALLOWED_SECRETS of the service)"
            ));
        }
        Ok(())
    }
}

/// What the Pod Security Standard "baseline" admits: with more, root of a container is as good as
/// privileged and reads the Secrets of every Pod of its node.
fn check_privileges(context: &SecurityContext) -> Result<(), String> {
    const CAPABILITIES: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let refused = |what: String| {
        Err(format!(
            "{what} is not allowed, as privileged containers are not (ALLOW_PRIVILEGED_JOBS of the service)"
        ))
    };
    if context.privileged == Some(true) {
        return Err(
            "privileged containers are not allowed (ALLOW_PRIVILEGED_JOBS of the service)".into(),
        );
    }
    let added = context.capabilities.iter().flat_map(|of| &of.add);
    let is_more = |name: &&String| {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        !CAPABILITIES.contains(&name)
    };
    if let Some(name) = added.clone().find(is_more) {
        return refused(format!("the capability `{name}`"));
    }
    if context
        .proc_mount
        .as_deref()
        .is_some_and(|mount| mount != "Default")
    {
        return refused("a `procMount` other than `Default`".into());
    }
    let seccomp = context.seccomp_profile.as_ref();
    let kind = seccomp.and_then(|profile| profile.kind.as_deref());
    if kind == Some("Unconfined") {
        return refused("the `seccompProfile` `Unconfined`".into());
    }
    Ok(())
}

/// What the operator may not want a task to have.
struct Wants<'a> {
    image: &'a str,
    security_context: &'a SecurityContext,
    namespace: Option<&'a str>,
    named_account: Option<&'a str>,
    /// Of tasks that name none.
    default_account: Option<&'a str>,
    volumes: &'a [Volume],
    /// But for those of a config's `env`, which are told with their entry.
    secrets: Vec<String>,
}

impl<'a> Wants<'a> {
    fn of(task: &'a Task, default_account: Option<&'a str>) -> Self {
        // The empty name is the namespace's default account.
        let (named, default) = match &task.service_account {
            Some(ServiceAccount::OfNamespace) => (None, None),
            Some(ServiceAccount::Named(name)) => (Some(name.as_str()), default_account),
            None => (None, default_account),
        };
        Self {
            image: &task.image,
            security_context: &task.security_context,
            namespace: task.namespace.as_ref().map(ObjectName::as_str),
            named_account: named,
            default_account: default,
            volumes: &task.pod.volumes,
            secrets: secrets(&task.env_from, &task.pod),
        }
    }

    fn of_recorded(task: &'a RunTask, default_account: Option<&'a str>) -> Self {
        let account = task.service_account.as_deref();
        let mut all = secrets(&task.env_from, &task.pod);
        all.extend(task.secrets.iter().cloned());
        let keys = task.keys.iter();
        all.extend(keys.filter_map(|key| secret_of(&key.key.of)));
        Self {
            image: &task.image,
            security_context: &task.security_context,
            namespace: task.namespace.as_ref().map(ObjectName::as_str),
            // What the operator chose for all is in the record, too.
            named_account: account.filter(|account| Some(*account) != default_account),
            default_account: account,
            volumes: &task.pod.volumes,
            secrets: all,
        }
    }
}

fn secrets(env_from: &[EnvFrom], pod: &PodParts) -> Vec<String> {
    let of_keys = env_from.iter().filter_map(|entry| secret_of(&entry.of));
    let pulls = pod.image_pull_secrets.iter().map(ToString::to_string);
    let mounted = pod.volumes.iter().flat_map(volumes::secrets);
    of_keys.chain(pulls).chain(mounted).collect()
}

fn secret_of(holder: &KeyHolder) -> Option<String> {
    match holder {
        KeyHolder::Secret(name) => Some(name.to_string()),
        KeyHolder::ConfigMap(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job_config::reader;

    fn policy() -> Policy {
        Policy {
            namespace: "keptn".into(),
            namespaces: BTreeSet::from(["other".into()]),
            own: Own {
                namespace: "keptn".into(),
                service_account: Some("jes".into()),
                token_secret: "job-service-keptn-secrets".into(),
                secrets: BTreeSet::from(["jes-tls".into()]),
            },
            ..Policy::default()
        }
    }

    fn verdict(policy: &Policy, fields: &str) -> String {
        let config = format!(
            "apiVersion: v2\nactions: [{{name: a, events: [{{}}], tasks: [{{name: t, image: i, {fields}}}]}}]"
        );
        let config = reader::read(config.as_bytes()).unwrap().config;
        let task = &config.actions[0].tasks[0];
        let variables = || {
            let mut sources = task.env.iter().map(|entry| &entry.source);
            sources.try_for_each(|source| policy.check_variable(task, source))
        };
        match policy.check(task, Some("jobs")).and_then(|()| variables()) {
            Ok(()) => format!("{fields}: allowed"),
            Err(reason) => format!("{fields}: {reason}"),
        }
    }

    #[test]
    fn what_is_the_services_own_is_refused() {
        let policy = policy();
        let rows = [
            "serviceAccount: jes",
            "serviceAccount: jes, namespace: other",
            "serviceAccount: ''",
            "serviceAccount: mine",
            "namespace: other",
            "namespace: third",
            "env: [{name: job-service-keptn-secrets, valueFrom: secret}]",
            "namespace: other, env: [{name: job-service-keptn-secrets, valueFrom: secret}]",
            "env: [{name: jes-tls, valueFrom: secret}]",
            "env: [{name: jes-token-x7k2p, valueFrom: secret}]",
            "namespace: other, env: [{name: jes-tls, valueFrom: secret}]",
            "env: [{name: sh.helm.release.v1.jes.v1, valueFrom: secret}]",
        ]
        .map(|fields| verdict(&policy, fields));
        insta::assert_snapshot!(rows.join("\n"), @r#"
        serviceAccount: jes: service account `jes` is not allowed, it is the one of this service
        serviceAccount: jes, namespace: other: allowed
        serviceAccount: '': allowed
        serviceAccount: mine: allowed
        namespace: other: allowed
        namespace: third: namespace `third` is not allowed, Jobs run in `keptn`, allowed are also `other` (ALLOWED_NAMESPACES of the service)
        env: [{name: job-service-keptn-secrets, valueFrom: secret}]: secret "job-service-keptn-secrets" is not allowed, it holds the credentials of this service
        namespace: other, env: [{name: job-service-keptn-secrets, valueFrom: secret}]: secret "job-service-keptn-secrets" is not allowed, it holds the credentials of this service
        env: [{name: jes-tls, valueFrom: secret}]: secret "jes-tls" is not allowed, it holds the credentials of this service
        env: [{name: jes-token-x7k2p, valueFrom: secret}]: secret "jes-token-x7k2p" is not allowed, it holds the credentials of this service
        namespace: other, env: [{name: jes-tls, valueFrom: secret}]: allowed
        env: [{name: sh.helm.release.v1.jes.v1, valueFrom: secret}]: secret "sh.helm.release.v1.jes.v1" is not allowed, it holds the values of a release of Helm
        "#);
    }

    #[test]
    fn a_pod_of_no_named_account_is_one_of_the_default_account() {
        let mut policy = policy();
        policy.own.service_account = Some("default".into());
        insta::assert_snapshot!(verdict(&policy, "serviceAccount: ''"), @"serviceAccount: '': service account `default` is not allowed, it is the one of this service");
    }

    #[test]
    fn what_is_as_good_as_privileged_is_refused_with_it() {
        let rows = [
            "securityContext: {privileged: true}",
            "securityContext: {capabilities: {add: [NET_BIND_SERVICE, chown]}}",
            "securityContext: {capabilities: {add: [DAC_READ_SEARCH]}}",
            "securityContext: {capabilities: {add: [ALL]}}",
            "securityContext: {seccompProfile: {type: Unconfined}}",
            "securityContext: {procMount: Unmasked}",
            "securityContext: {runAsUser: 0, runAsNonRoot: false}",
        ];
        let refused = rows.map(|fields| verdict(&policy(), fields));
        insta::assert_snapshot!(refused.join("\n"), @"
        securityContext: {privileged: true}: privileged containers are not allowed (ALLOW_PRIVILEGED_JOBS of the service)
        securityContext: {capabilities: {add: [NET_BIND_SERVICE, chown]}}: allowed
        securityContext: {capabilities: {add: [DAC_READ_SEARCH]}}: the capability `DAC_READ_SEARCH` is not allowed, as privileged containers are not (ALLOW_PRIVILEGED_JOBS of the service)
        securityContext: {capabilities: {add: [ALL]}}: the capability `ALL` is not allowed, as privileged containers are not (ALLOW_PRIVILEGED_JOBS of the service)
        securityContext: {seccompProfile: {type: Unconfined}}: the `seccompProfile` `Unconfined` is not allowed, as privileged containers are not (ALLOW_PRIVILEGED_JOBS of the service)
        securityContext: {procMount: Unmasked}: a `procMount` other than `Default` is not allowed, as privileged containers are not (ALLOW_PRIVILEGED_JOBS of the service)
        securityContext: {runAsUser: 0, runAsNonRoot: false}: allowed
        ");
        let all = Policy {
            privileged: Privileged::Allowed,
            ..policy()
        };
        assert!(
            rows.iter()
                .all(|fields| verdict(&all, fields).ends_with(": allowed"))
        );
    }

    #[test]
    fn lists_restrict_accounts_and_secrets() {
        let policy = Policy {
            service_accounts: AllowList::parse("job-*").unwrap(),
            secrets: AllowList::parse("app-*, db").unwrap(),
            ..policy()
        };
        let rows = [
            "serviceAccount: job-a",
            "serviceAccount: root",
            "env: [{name: app-x, valueFrom: secret}]",
            "env: [{name: db, valueFrom: secret}]",
            "env: [{name: dbx, valueFrom: secret}]",
        ]
        .map(|fields| verdict(&policy, fields));
        insta::assert_snapshot!(rows.join("\n"), @r#"
        serviceAccount: job-a: allowed
        serviceAccount: root: service account `root` is not allowed (ALLOWED_SERVICE_ACCOUNTS of the service)
        env: [{name: app-x, valueFrom: secret}]: allowed
        env: [{name: db, valueFrom: secret}]: allowed
        env: [{name: dbx, valueFrom: secret}]: secret "dbx" is not allowed (ALLOWED_SECRETS of the service)
        "#);
    }
}
