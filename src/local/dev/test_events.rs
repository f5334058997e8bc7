//! The test events of a directory, each with a number.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use http::HeaderValue;
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::local::event_file::{self, EventRequest};

pub(super) struct TestEvents {
    names: Vec<String>,
    requests: Vec<EventRequest>,
    sent: AtomicU64,
}

impl TestEvents {
    /// All requests of the files of a directory, in order; none if it is not there.
    pub(super) fn read(directory: &Path) -> anyhow::Result<Self> {
        let mut files: Vec<_> = fs::read_dir(directory)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        files.retain(|path: &std::path::PathBuf| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("http" | "json"))
        });
        files.sort();
        let mut events = Self {
            names: Vec::new(),
            requests: Vec::new(),
            sent: AtomicU64::new(0),
        };
        for path in files {
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let requests = event_file::read(&bytes)
                .map_err(anyhow::Error::msg)
                .with_context(|| path.display().to_string())?;
            for request in requests {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                let name = request.name.clone().unwrap_or_else(|| file.into_owned());
                events.names.push(name);
                events.requests.push(request);
            }
        }
        Ok(events)
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// From 1.
    pub(super) fn get(&self, number: usize) -> Option<&EventRequest> {
        self.requests.get(number.checked_sub(1)?)
    }

    /// The same event as another one: an id that was seen before starts nothing.
    pub(super) fn fresh(&self, number: usize) -> Option<EventRequest> {
        let mut request = self.get(number)?.clone();
        if let Some(id) = HeaderValue::from_str(&self.id())
            .ok()
            .filter(|_| request.headers.contains_key("ce-id"))
        {
            request.headers.insert("ce-id", id);
        }
        if let Ok(mut body) = serde_json::from_slice::<Value>(&request.body) {
            match &mut body {
                Value::Array(events) => events.iter_mut().for_each(|event| self.renew(event)),
                event => self.renew(event),
            }
            request.body = body.to_string().into_bytes();
        }
        Some(request)
    }

    fn renew(&self, event: &mut Value) {
        // Only an event has one of its own, and not the data of one.
        if event["specversion"].is_string() {
            event["id"] = self.id().into();
        }
    }

    fn id(&self) -> String {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let name = format!("{} {number}", Timestamp::now());
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
    }
}
