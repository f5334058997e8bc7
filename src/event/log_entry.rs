//! The event that becomes an entry of Keptn's error log.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Envelope;
use super::answer::{ID_NAMESPACE, SOURCE};

const TYPE: &str = "sh.keptn.log.error";

/// Whether an entry about this event tells something new: not of one that is an entry, nor of the answer to
/// an event that was told of.
pub(crate) fn is_news(event: &Envelope) -> bool {
    event.event_type.as_str() != TYPE && event.source != SOURCE
}

/// Of the entry about an event.
pub(crate) fn id(event: &Envelope) -> Uuid {
    let name = format!("{}\n{}\nlog", event.source, event.id);
    Uuid::new_v5(&ID_NAMESPACE, name.as_bytes())
}

/// An entry for an `integration`, as Keptn calls a registered service.
pub(crate) fn log_entry(
    event: &Envelope,
    integration: &str,
    message: &str,
    time: Timestamp,
) -> Value {
    let mut entry = json!({
        "specversion": "1.0",
        "id": id(event).to_string(),
        "source": SOURCE,
        "type": TYPE,
        "time": time.to_string(),
        "datacontenttype": "application/json",
        "triggeredid": event.id,
        "data": {
            "integrationid": integration,
            "message": message,
            "task": event.event_type.subject(),
        },
    });
    for (name, value) in [
        ("shkeptncontext", &event.keptn_context),
        ("gitcommitid", &event.git_commit_id),
    ] {
        if let Some(value) = value {
            entry[name] = value.as_str().into();
        }
    }
    entry
}
