//! What the settings decide about the tasks of every event.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::cli::{Access, ServeSettings, TaskSettings};
use crate::cluster::{
    AccessVariables, Graces, InitContainer, JobSettings, OwnAccount, OwnPod, SecretKey,
};
use crate::job_config::fields::{Amounts, Resources};
use crate::keptn::Certificates;
use crate::keptn::addresses::Origin;
use crate::keptn::oauth::TokenServer;
use crate::policy::{Own, Policy, Privileged};
use crate::report::Masks;
use crate::resolve::{Files, TaskDefaults};

pub(crate) struct Rules {
    pub(crate) policy: Policy,
    pub(crate) defaults: TaskDefaults,
    pub(crate) jobs: JobSettings,
    pub(crate) masks: Masks,
    pub(crate) graces: Graces,
}

/// What is known of this service itself.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Where it runs.
    pub(crate) namespace: String,
    pub(crate) pod: OwnPod,
    pub(crate) account: Option<OwnAccount>,
    /// Values of Secrets, beside its own ones.
    pub(crate) secrets: Vec<SecretString>,
}

impl Rules {
    /// `namespace` is where Jobs run.
    pub(crate) fn of(settings: &ServeSettings, namespace: &str, known: &Known) -> Self {
        let defaults = defaults(settings, &known.pod);
        Self {
            policy: policy(&settings.tasks, namespace, known),
            jobs: job_settings(settings, namespace, &known.pod, &defaults),
            masks: masks(settings, &known.secrets),
            graces: graces(&settings.tasks),
            defaults,
        }
    }
}

fn graces(settings: &TaskSettings) -> Graces {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    Graces {
        image_pull: seconds(settings.image_pull_grace_seconds),
        unschedulable: seconds(settings.unschedulable_grace_seconds),
    }
}

fn policy(settings: &TaskSettings, namespace: &str, known: &Known) -> Policy {
    Policy {
        images: settings.allowed_image_list.clone(),
        privileged: if settings.allow_privileged_jobs {
            Privileged::Allowed
        } else {
            Privileged::Refused
        },
        namespace: namespace.to_owned(),
        namespaces: settings.allowed_namespaces.0.clone(),
        service_accounts: settings.allowed_service_accounts.clone(),
        secrets: settings.allowed_secrets.clone(),
        volumes: settings.allowed_volumes.clone(),
        own: own(settings, known),
    }
}

/// A service reads no Secrets: it knows those that it was given itself.
fn masks(settings: &ServeSettings, others: &[SecretString]) -> Masks {
    let access = &settings.access;
    let oauth = access.oauth.iter().map(|oauth| &oauth.secret);
    let known = access.token.iter().chain(oauth).chain(others);
    let known = known.map(SecretString::expose_secret);
    Masks::new(known, &settings.tasks.log_mask_file)
}

/// What the API server says of the account goes before what the Pod says.
fn own(settings: &TaskSettings, known: &Known) -> Own {
    let account = known.account.as_ref();
    Own {
        namespace: account.map_or_else(|| known.namespace.clone(), |of| of.namespace.clone()),
        service_account: account
            .map(|account| account.name.clone())
            .or_else(|| known.pod.service_account.clone()),
        token_secret: settings.keptn_api_token_secret.to_string(),
        secrets: known.pod.secrets.clone(),
    }
}

fn defaults(settings: &ServeSettings, own_pod: &OwnPod) -> TaskDefaults {
    let image_known = settings.init_container_image.is_some() || own_pod.image.is_some();
    TaskDefaults {
        resources: Resources {
            limits: Amounts {
                cpu: settings.tasks.default_resource_limits_cpu.clone(),
                memory: settings.tasks.default_resource_limits_memory.clone(),
            },
            requests: Amounts {
                cpu: settings.tasks.default_resource_requests_cpu.clone(),
                memory: settings.tasks.default_resource_requests_memory.clone(),
            },
        },
        deadline: (settings.tasks.task_deadline_seconds > 0)
            .then_some(settings.tasks.task_deadline_seconds),
        service_account: settings
            .tasks
            .default_job_service_account
            .as_ref()
            .map(ToString::to_string),
        files: if image_known {
            Files::Available
        } else {
            Files::NoImage
        },
    }
}

fn job_settings(
    settings: &ServeSettings,
    namespace: &str,
    own_pod: &OwnPod,
    defaults: &TaskDefaults,
) -> JobSettings {
    let configuration_service = settings.resources_for_init_containers();
    let access = match configuration_service.origin() {
        Origin::Setting => access(settings),
        Origin::Default => AccessVariables::default(),
    };
    JobSettings {
        managed_by: settings.tasks.full_deployment_name.clone(),
        home: namespace.to_owned(),
        labels: settings.tasks.job_labels_file.clone(),
        container_defaults: settings.tasks.job_security_context_file.clone(),
        pod_defaults: settings.tasks.pod_security_context_file.clone(),
        init_container: InitContainer {
            image: settings
                .init_container_image
                .as_ref()
                .map(ToString::to_string)
                .or_else(|| own_pod.image.clone())
                .unwrap_or_default(),
            configuration_service: configuration_service.to_string(),
            access,
            resources: defaults.resources.clone(),
        },
    }
}

/// How init containers are let in by Keptn. No secret is in a Job.
fn access(settings: &ServeSettings) -> AccessVariables {
    let Access {
        token,
        oauth,
        certificates,
    } = &settings.access;
    let (mut plain, mut secret) = (Vec::new(), Vec::new());
    let in_secret = |key: &str| SecretKey {
        secret: settings.tasks.keptn_api_token_secret.to_string(),
        key: key.into(),
    };
    if *certificates == Certificates::Unverified {
        plain.push(("HTTP_SSL_VERIFY", "false".into()));
    }
    if token.is_some() {
        secret.push(("KEPTN_API_TOKEN", in_secret("token")));
    }
    if let Some(client) = oauth {
        plain.push(("OAUTH_CLIENT_ID", client.id.clone()));
        plain.push(("OAUTH_SCOPES", client.scopes.listed()));
        plain.push(match &client.server {
            TokenServer::TokenUrl(url) => ("OAUTH_TOKEN_URL", url.to_string()),
            TokenServer::Discovery(url) => ("OAUTH_DISCOVERY", url.to_string()),
        });
        secret.push(("OAUTH_CLIENT_SECRET", in_secret("oauth_client_secret")));
    }
    AccessVariables { plain, secret }
}
