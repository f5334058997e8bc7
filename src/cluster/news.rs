//! What the watches tell whoever executes the runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use k8s_openapi::api::batch::v1::Job;
use kube::runtime::watcher;
use tokio::sync::mpsc;
use tracing::error;

use super::found::Sighting;
use super::interruption::is_forbidden;
use super::namespace::Needed;
use crate::telemetry::error_chain;

/// What the watch shows of runs whose end is not marked.
#[derive(Debug)]
pub(crate) enum News {
    /// Part of a list of all such Jobs.
    Listed(Sighting),
    /// `all` tells whether the Jobs of every namespace could be listed at first.
    ListEnd { all: bool },
    /// A Job is new, or has changed.
    Seen(Sighting),
}

/// The first lists of all watches.
pub(super) struct Lists {
    /// How many are missing.
    missing: AtomicUsize,
    /// Whether one could not be had.
    is_partial: AtomicBool,
}

impl Lists {
    pub(super) fn new(watches: usize) -> Arc<Self> {
        Arc::new(Self {
            missing: AtomicUsize::new(watches),
            is_partial: AtomicBool::new(false),
        })
    }
}

/// Tells of one of several watches; the end of a list only when all have listed once: the Jobs of a run may
/// be in several namespaces.
pub(super) struct Teller {
    news: mpsc::UnboundedSender<News>,
    lists: Arc<Lists>,
    pub(super) needed: Needed,
    has_listed: bool,
}

impl Teller {
    pub(super) fn new(
        news: mpsc::UnboundedSender<News>,
        lists: Arc<Lists>,
        needed: Needed,
    ) -> Self {
        Self {
            news,
            lists,
            needed,
            has_listed: false,
        }
    }

    pub(super) fn tell(&self, of: fn(Sighting) -> News, job: &Job) {
        // Whoever executes the runs reads the news for as long as there is a watch.
        if let Some(sighting) = Sighting::of(job) {
            self.news.send(of(sighting)).ok();
        }
    }

    pub(super) fn list_end(&mut self) {
        if !std::mem::replace(&mut self.has_listed, true) {
            self.lists.missing.fetch_sub(1, Ordering::AcqRel);
        }
        if self.lists.missing.load(Ordering::Acquire) == 0 {
            let all = !self.lists.is_partial.load(Ordering::Acquire);
            self.news.send(News::ListEnd { all }).ok();
        }
    }

    /// The others must not wait for a namespace in which the permissions are missing.
    pub(super) fn failed(&mut self, error: &watcher::Error, namespace: &str) {
        if self.needed == Needed::WherePermitted && !self.has_listed && is_forbidden(error) {
            error!(
                namespace,
                error = error_chain(error),
                "the Jobs of a namespace of ALLOWED_NAMESPACES cannot be listed, its tasks fail until the \
                 service's account is permitted there (deploy/job-namespace.yaml)"
            );
            self.lists.is_partial.store(true, Ordering::Release);
            self.list_end();
        }
    }
}
