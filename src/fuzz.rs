//! What must hold for whatever comes from outside, one function for each way in. `cargo fuzz` drives them (see
//! fuzz/), and so does `tests::fuzz` with the same corpus. They panic where it does not hold.

use std::io::Write;
use std::path::{Component, Path};
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::event::content_mode::decode;
use crate::job_config::files::{FileEntry, ResourceUri, ResultFile};
use crate::job_config::json_path::{Found, JsonPath};
use crate::job_config::reader;
use crate::lint::{self, upgrade};
use crate::local::event_file;
use crate::report::{Extract, LogText, Masks, Patterns};
use crate::run::Run;

pub type Check = fn(&[u8]);

/// The ways in, by the names of their corpora.
pub const TARGETS: [(&str, Check); 7] = [
    ("config", config),
    ("event", event),
    ("json_path", json_path),
    ("log", log),
    ("masks", masks),
    ("record", record),
    ("resource", resource),
];

const SECRET: &str = "s3cr3t-Token";

/// To every pattern the same as the other one.
const OTHER_SECRET: &str = "x9bf7q-Beard";

static MASKS: LazyLock<Masks> = LazyLock::new(|| {
    let patterns = Patterns::parse("customer-\\d+\nkey=(?<secret>\\w+)").unwrap_or_default();
    Masks::with_window([SECRET, OTHER_SECRET], &patterns, 128)
});

/// A file of requests, or a body: what is an event is one again in structured mode.
pub fn event(data: &[u8]) {
    let mut requests: Vec<(HeaderMap, Vec<u8>)> = event_file::read(data)
        .unwrap_or_default()
        .into_iter()
        .map(|request| (request.headers, request.body))
        .collect();
    requests.push((structured(), data.to_vec()));
    for (headers, body) in requests {
        for event in decode(&headers, &body).into_iter().flatten().flatten() {
            let scope = &event.envelope.scope;
            for name in [&scope.project, &scope.stage, &scope.service]
                .into_iter()
                .flatten()
            {
                assert!(is_below(name) && !name.contains('/'), "{name:?}");
            }
            let again = decode(&structured(), event.document.to_string().as_bytes());
            let again = again.map(|mut events| events.remove(0));
            assert_eq!(again, Ok(Ok(event)), "the same event once more");
        }
    }
}

fn structured() -> HeaderMap {
    let value = HeaderValue::from_static("application/cloudevents+json");
    HeaderMap::from_iter([(CONTENT_TYPE, value)])
}

/// What `lint` and `serve` think of a config is the same, and `lint --fix` gives one of today's.
pub fn config(data: &[u8]) {
    let examined = reader::examine(data);
    let read = reader::read(data);
    assert_eq!(read.is_ok(), examined.errors.is_none());
    assert_eq!(read.is_ok(), examined.config.is_some());
    drop(lint::problems(data));
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(Some(fixed)) = upgrade::upgrade(text, &examined) {
        let again = reader::examine(fixed.text.as_bytes());
        assert!(again.errors.is_none(), "{:?}", again.errors);
        assert!(matches!(upgrade::upgrade(&fixed.text, &again), Ok(None)));
    }
}

/// A path on the first line, an event on the others.
pub fn json_path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (path, event) = text.split_once('\n').unwrap_or((&text, "{}"));
    let Ok(path) = JsonPath::parse(path) else {
        return;
    };
    drop((path.leading_names(), path.below("data")));
    let Ok(event) = serde_json::from_str::<Value>(event) else {
        return;
    };
    match path.find(&event) {
        Ok(Found::One(_)) => assert!(!path.finds_lists()),
        Ok(Found::List(_)) => assert!(path.finds_lists()),
        Err(reason) => drop(reason.to_string()),
    }
}

/// No path of a config leaves the directory of the files, however often it is decoded.
pub fn resource(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(path) = ResourceUri::parse(&text) {
        assert!(is_below(path.as_str()), "{path}");
    }
    if let Ok(path) = ResultFile::parse(&text) {
        let below = path.as_str().strip_prefix("/keptn/");
        assert!(below.is_some_and(is_below), "{path}");
    }
    if let Ok(entry) = FileEntry::parse_argument(&text) {
        assert!(is_below(entry.path.as_str()), "{entry}");
        let again = FileEntry::parse_argument(&entry.to_string());
        assert_eq!(again.as_ref(), Ok(&entry), "as an argument");
        let written = serde_json::to_string(&entry).unwrap_or_default();
        let again = serde_json::from_str::<FileEntry>(&written).ok();
        assert_eq!(again, Some(entry), "in a record");
    }
}

fn is_below(path: &str) -> bool {
    let mut decoded = path.to_owned();
    loop {
        let mut parts = Path::new(&decoded).components();
        if !parts.all(|part| matches!(part, Component::Normal(_))) {
            return false;
        }
        let again = percent_decode_str(&decoded).decode_utf8_lossy();
        if again == decoded {
            return true;
        }
        decoded = again.into_owned();
    }
}

/// A record, or the JSON that is in one: what is a run stays the same.
pub fn record(data: &[u8]) {
    drop(Run::decode(&String::from_utf8_lossy(data)));
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).ok();
    let record = STANDARD_NO_PAD.encode(encoder.finish().unwrap_or_default());
    let Ok(run) = Run::decode(&record) else {
        return;
    };
    assert_eq!(run.task_count() > 0, run.first_place().is_some());
    let again = run.encode().ok().and_then(|again| Run::decode(&again).ok());
    assert_eq!(again, Some(run));
}

/// Size of the chunks, bytes of the answer, then what a container prints.
pub fn log(data: &[u8]) {
    let (numbers, printed) = data.split_at(data.len().min(3));
    let number = |index| numbers.get(index).copied().map_or(0, usize::from);
    let (chunk, budget) = (number(0) + 1, number(1) << 8 | number(2));
    let whole = MASKS.text(&String::from_utf8_lossy(printed));
    assert!(!whole.contains(SECRET), "{whole:?}");
    check_secrets(&String::from_utf8_lossy(printed));
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    assert!(whole.chars().all(harmless), "{whole:?}");
    for capacity in [0, 8 << 20] {
        let mut text = LogText::new(capacity, &MASKS);
        for piece in printed.chunks(chunk) {
            text.push(piece);
        }
        let text = text.finish();
        if capacity > 0 {
            assert_eq!(text.render(usize::MAX), whole, "chunks do not matter");
        }
        check_cut(&text.render(budget), &whole, budget);
        check_cut(&Extract::from(&*whole).render(budget), &whole, budget);
    }
}

/// Only the middle of a text is missing, and it is marked.
fn check_cut(shown: &str, whole: &str, budget: usize) {
    let json = serde_json::to_string(shown).unwrap_or_default();
    assert!(json.len() - 2 <= budget, "{} {budget}", json.len());
    let places = shown.match_indices("\n[... ");
    let parts = places.filter_map(|(at, _)| {
        let (_, after) = shown[at + 1..].split_once(" bytes left out ...]\n")?;
        Some((&shown[..at], after))
    });
    let cut = |(head, tail): (&str, &str)| whole.starts_with(head) && whole.ends_with(tail);
    let is_cut = shown == whole || parts.into_iter().any(cut);
    assert!(
        is_cut || shown == "…" || budget < 3,
        "{shown:?} of {whole:?}"
    );
}

/// An operator's patterns up to an empty line, then a text.
pub fn masks(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (patterns, text) = text.split_once("\n\n").unwrap_or((&text, SECRET));
    let Ok(patterns) = Patterns::parse(patterns) else {
        return;
    };
    let masked = Masks::new([SECRET], &patterns).text(text);
    assert!(!masked.contains(SECRET), "{masked:?}");
    check_secrets(text);
}

/// Nobody can tell which of two secrets it was: not a letter of it is left.
fn check_secrets(text: &str) {
    // A control sequence may take a letter of one and not of the other.
    let kept = |c: &char| *c == '\n' || !c.is_control();
    let text: String = text.chars().filter(kept).collect();
    let masked = MASKS.text(&text);
    assert!(!masked.contains(SECRET), "{masked:?}");
    let other = MASKS.text(&text.replace(SECRET, OTHER_SECRET));
    assert_eq!(masked, other, "{text:?}");
}
