//! What the log says of the settings when the service starts.

use tracing::{info, warn};

use crate::cli::{ServeSettings, TaskSettings};
use crate::cluster::OwnPod;
use crate::keptn::Certificates;
use crate::keptn::addresses::{Addresses, Origin};
use crate::rules::Known;

pub(super) fn tell_of_start(settings: &ServeSettings, namespace: &str) {
    info!(
        port = settings.rcv_port,
        path = settings.rcv_path,
        namespace,
        version = env!("CARGO_PKG_VERSION"),
        "Starting job-executor-service..."
    );
}

/// What an operator may not have meant.
pub(super) fn warn(settings: &ServeSettings, known: &Known) {
    warn_of_settings(&settings.tasks);
    warn_of_what_is_unknown(known);
    warn_of_certificates(settings.access.certificates);
    warn_of_idle_oauth(settings);
    warn_of_this_pod(&settings.resources_for_init_containers());
}

/// In the original's words.
fn warn_of_settings(settings: &TaskSettings) {
    if settings.allow_privileged_jobs {
        warn!("Privileged job workloads are allowed!");
    }
    if settings.default_job_service_account.is_none() {
        warn!(
            "No default service account for jobs configured: using kubernetes default service account!"
        );
    }
    if settings.allowed_image_list.is_empty() {
        info!("Found empty allowlist for images, all images are allowed!");
    }
}

/// What cannot be refused to tasks, where this service is an account of a cluster.
fn warn_of_what_is_unknown(known: &Known) {
    if known.account.is_some() && known.pod == OwnPod::default() {
        warn!(
            "the service does not know its own Pod (POD_NAME, and the permission to get pods), so it refuses \
             tasks only the Secret KEPTN_API_TOKEN_SECRET and not the others that its Pod uses"
        );
    }
}

fn warn_of_certificates(certificates: Certificates) {
    match certificates {
        Certificates::Verified => {}
        Certificates::Unverified => warn!(
            "HTTP_SSL_VERIFY is false: whoever is in the way to Keptn can read and change what is sent, \
             credentials too"
        ),
    }
}

fn warn_of_idle_oauth(settings: &ServeSettings) {
    if settings.access.oauth.is_some() && settings.resources().origin() == Origin::Default {
        warn!(
            "OAuth is not used: neither CONFIGURATION_SERVICE nor KEPTN_API_ENDPOINT says where Keptn is, and \
             inside of its cluster it asks for nothing"
        );
    }
}

fn warn_of_this_pod(of_init_containers: &Addresses) {
    if of_init_containers.is_inside_of_the_pod() {
        warn!(
            url = %of_init_containers,
            "init containers cannot reach this address, tasks with `files` will fail: set \
             KEPTN_API_ENDPOINT or INIT_CONTAINER_CONFIGURATION_SERVICE_API_ENDPOINT"
        );
    }
}
