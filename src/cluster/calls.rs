//! Calls of the Kubernetes API: how long one may take, and which are tried again.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::time::timeout;
use tracing::warn;

use crate::telemetry::error_chain;

/// For one call; the API server answers in milliseconds or is in trouble.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("{}", .0.message)]
    Api(Box<kube::core::Status>),
    #[error("{0}")]
    Unreachable(#[source] kube::Error),
    #[error("no answer of the Kubernetes API within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
}

impl Failed {
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(status) if status.is_not_found())
    }

    pub(super) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Api(status) if status.code == 403)
    }

    pub(super) fn is_already_exists(&self) -> bool {
        matches!(self, Self::Api(status) if status.is_already_exists())
    }

    /// Whether this is the API server's verdict on what was asked, and not a state that passes.
    pub(super) fn is_verdict(&self) -> bool {
        match self {
            Self::Api(status) => match status.code {
                // 401: the account's token is being renewed. 409: something else was faster.
                401 | 408 | 429 => false,
                409 => status.is_already_exists(),
                code => code < 500,
            },
            Self::Unreachable(_) | Self::Timeout => false,
        }
    }
}

/// On the heap while it is made: a run that waits for the end of a task, as it does for most of its
/// life, then takes no room for calls.
pub(super) fn call<'a, T: 'a>(
    request: impl Future<Output = kube::Result<T>> + Send + 'a,
) -> impl Future<Output = Result<T, Failed>> + Send + 'a {
    let request = Box::pin(timeout(CALL_TIMEOUT, request));
    async {
        match request.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(kube::Error::Api(status))) => Err(Failed::Api(status)),
            Ok(Err(error)) => Err(Failed::Unreachable(error)),
            Err(_) => Err(Failed::Timeout),
        }
    }
}

/// Tries until there is a result, or an error that `is_final`. Every call made with it may be executed
/// twice.
pub(super) async fn retried<T, F, C>(
    verb: &'static str,
    name: &str,
    is_final: fn(&Failed) -> bool,
    attempt: C,
) -> Result<T, Failed>
where
    C: FnMut() -> F,
    F: Future<Output = Result<T, Failed>>,
{
    attempt
        .retry(
            ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(50))
                .with_max_delay(Duration::from_secs(5))
                .without_max_times()
                .with_jitter(),
        )
        .when(|error| !is_final(error))
        .notify(|error, pause| {
            let retry_in_seconds = pause.as_secs_f64();
            let error = error_chain(error);
            warn!(
                verb,
                name, error, retry_in_seconds, "the Kubernetes API call failed"
            );
        })
        .await
}
