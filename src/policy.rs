//! What a task may use, as the operator of this service decides it.

mod allow_list;
mod volumes;

use std::collections::BTreeSet;

use crate::job_config::Task;
use crate::job_config::fields::{EnvVar, KeyHolder};

pub(crate) use allow_list::AllowList;
pub(crate) use volumes::VolumeTypes;

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
        if !self.images.allows(&task.image) {
            return Err(format!(
                "Forbidden: Image {} does not match configured image allowlist.\n",
                task.image
            ));
        }
        let privileged = task.security_context.privileged == Some(true);
        if privileged && self.privileged == Privileged::Refused {
            return Err("privileged containers are not allowed".into());
        }
        let namespace = self.namespace_of(task);
        self.check_namespace(namespace)?;
        self.check_account(task.service_account.as_deref(), account, namespace)?;
        let names_account = task
            .service_account
            .as_ref()
            .is_some_and(|named| !named.is_empty());
        for volume in &task.pod.volumes {
            self.volumes.check(volume)?;
            if !names_account && volumes::has_account_token(volume) {
                return Err(format!(
                    "volume `{}` is the token of a service account, but the task names no `serviceAccount`",
                    volume.name
                ));
            }
        }
        for secret in secrets_beside_env(task) {
            self.check_secret(&secret, namespace)?;
        }
        Ok(())
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
        let account = named.or(default).filter(|account| !account.is_empty());
        let account = account.unwrap_or(DEFAULT_ACCOUNT);
        if self.own.service_account.as_deref() == Some(account) && namespace == self.own.namespace {
            return Err(format!(
                "service account `{account}` is not allowed, it is the one of this service"
            ));
        }
        match named {
            Some(named) if !named.is_empty() && !self.service_accounts.allows(named) => {
                Err(format!(
                    "service account `{named}` is not allowed (ALLOWED_SERVICE_ACCOUNTS of the service)"
                ))
            }
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

    fn check_secret(&self, name: &str, namespace: &str) -> Result<(), String> {
        let is_own = namespace == self.own.namespace && self.own.secrets.contains(name);
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

/// The Secrets that a task wants in other ways than by its `env`.
fn secrets_beside_env(task: &Task) -> Vec<String> {
    let of_keys = task.env_from.iter().filter_map(|entry| match &entry.of {
        KeyHolder::Secret(name) => Some(name.to_string()),
        KeyHolder::ConfigMap(_) => None,
    });
    let pulls = task.pod.image_pull_secrets.iter().map(ToString::to_string);
    let mounted = task.pod.volumes.iter().flat_map(volumes::secrets);
    of_keys.chain(pulls).chain(mounted).collect()
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
