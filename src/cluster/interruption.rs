//! How a watch is asked for, so that its end is noticed, and what follows when it breaks off.

use std::time::Duration;

use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::namespace::Needed;
use crate::telemetry::error_chain;

/// Between the attempts of a watch: the library's own pauses reach 30 s, and after an outage every
/// task that ended meanwhile waits for the watch. Two watches are no load.
pub(super) struct Pauses {
    attempts: u32,
    /// After so many attempts the pauses get no longer.
    longest: u32,
}

impl Default for Pauses {
    fn default() -> Self {
        Self::of(Needed::Always)
    }
}

impl Pauses {
    pub(super) fn of(needed: Needed) -> Self {
        Self {
            attempts: 0,
            longest: match needed {
                Needed::Always => 3,
                // Permissions that are missing are no outage: up to 51 s.
                Needed::WherePermitted => 8,
            },
        }
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    /// 0.2, 0.4, 0.8 and 1.6 seconds, and so on.
    fn next(&mut self) -> Option<Duration> {
        let pause = Duration::from_millis(200) * 2_u32.pow(self.attempts.min(self.longest));
        self.attempts += 1;
        Some(pause)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// A watch is asked for anew after this many seconds, so that one whose connection died without a word
/// is noticed.
pub(super) const WATCH_SECONDS: u32 = 60;

/// Of a list. A page is in memory as a whole; a Job may take some 200 KiB, and has less than 10 as a rule.
pub(super) const PAGE_SIZE: u32 = 200;

/// Whether something can be followed: an outage of the API server is told once, and its end.
#[derive(Default)]
pub(super) struct Interruption {
    since: Option<Instant>,
}

impl Interruption {
    pub(super) fn failed(&mut self, what: &str, error: &dyn std::error::Error) {
        let error = error_chain(error);
        if self.since.is_none() {
            warn!(
                error,
                "{what} cannot be followed, this is tried until it works"
            );
            self.since = Some(Instant::now());
        } else {
            debug!(error, "{what} still cannot be followed");
        }
    }

    pub(super) fn works(&mut self, what: &str) {
        if let Some(since) = self.since.take() {
            let seconds = since.elapsed().as_secs();
            info!(seconds, "{what} can be followed again");
        }
    }
}

pub(super) fn is_forbidden(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) =
        error
    else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if matches!(status.code, 403 | 404))
}
