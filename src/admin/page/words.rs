//! Times as a person says them.

use jiff::Timestamp;
use maud::{Markup, html};

/// With its place in time for machines.
pub(super) fn time(at: Timestamp) -> Markup {
    html! { time datetime=(at.to_string()) { (at.strftime("%Y-%m-%d %H:%M:%S").to_string()) } }
}

/// How long ago, with the moment itself for who points at it.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> Markup {
    let title = at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let text = match whole(at, now) {
        0..=1 => "just now".to_owned(),
        seconds @ 2..=119 => format!("{seconds} s ago"),
        seconds @ 120..=7_199 => format!("{} min ago", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    };
    html! { time datetime=(at.to_string()) title=(title) { (text) } }
}

/// How long something took.
pub(super) fn seconds(from: Timestamp, to: Timestamp) -> String {
    let whole = whole(from, to);
    if whole < 60 {
        return format!("{:.1} s", passed(from, to));
    }
    if whole < 3_600 {
        format!("{} min {} s", whole / 60, whole % 60)
    } else {
        format!("{} h {} min", whole / 3_600, whole % 3_600 / 60)
    }
}

fn whole(from: Timestamp, to: Timestamp) -> u64 {
    let passed = to.duration_since(from).as_secs();
    passed.try_into().unwrap_or(0)
}

/// Seconds; clocks of nodes differ, so none is below 0.
pub(super) fn passed(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}
