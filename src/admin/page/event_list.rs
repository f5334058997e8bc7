//! The last events that came, with what was decided on each.

use jiff::Timestamp;
use maud::{Markup, html};

use super::words::ago;
use super::{LATER, Place, layout, scope, search, subject};
use crate::admin::Asked;
use crate::admin::window::Events;
use crate::journal::entry::{EventEntry, EventOutcome};

pub(crate) fn events(events: &Events, asked: &Asked) -> Markup {
    let now = events.service.now;
    let content = html! {
        h1 { "Events" }
        p.note { "The last ones that came to this process, with what it decided." }
        (search(asked, false))
        div id="live" {
            @if events.events.is_empty() {
                p.empty { "None. Keptn's distributor sends what PUBSUB_TOPIC names to this service." }
            }
            ol.events { @for event in &events.events { li { (event_row(event, now)) } } }
        }
    };
    layout(
        "Events",
        &events.service,
        &Place::Events,
        Some(LATER),
        &content,
    )
}

pub(super) fn event_row(entry: &EventEntry, now: Timestamp) -> Markup {
    let class = match entry.outcome {
        EventOutcome::Accepted => "badge accepted",
        EventOutcome::Nothing => "badge skipped",
        EventOutcome::Invalid | EventOutcome::Panicked => "badge failed",
    };
    html! {
        article.event {
            span class=(class) { (entry.outcome.name()) }
            h3 {
                @match (&entry.event, &entry.run, entry.outcome) {
                    (Some(event), Some(run), EventOutcome::Accepted) => {
                        a href=(format!("/runs/{run}")) { (subject(event)) }
                    }
                    (Some(event), ..) => (subject(event)),
                    (None, ..) => "No event",
                }
            }
            @if let Some(event) = &entry.event { p.scope { (scope(event)) } }
            p.when {
                (ago(entry.arrived, now))
                @if entry.times > 1 { ", " (entry.times) " times" }
            }
            p.reason { (entry.reason) }
        }
    }
}
