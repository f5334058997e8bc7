//! A run: all the work for one event, in order, as it was resolved when the event came in.
//!
//! It travels on every Job of the run as one annotation, the run record. Nothing else has to survive
//! a crash: whoever finds the Jobs can execute the run again.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{LazyLock, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha3::{Digest, Sha3_224};

use crate::event::Envelope;
use crate::event::trace::{Span, SpanId, TraceContext, TraceId};
use crate::job_config::fields::{
    EnvFrom, ImagePullPolicy, KeyRef, ObjectName, OnFailure, Resources, Retries, SecurityContext,
};
use crate::job_config::files::{FileEntry, ResultFile};
use crate::job_config::pod_parts::PodParts;
use crate::job_config::quantity::Quantity;

/// Kubernetes allows 256 KiB for all annotations of an object; the task's own need room too.
const MAX_RECORD_BYTES: usize = 224 << 10;

/// What a record may inflate to: as many environment variables as a Job can hold, and more.
const MAX_INFLATED_BYTES: usize = 8 << 20;

/// The part of a run that is all of it.
const RUN: &str = "run";

/// Whether runs are recorded as spans. Where they are not, they are no part of a trace: a span that nobody
/// ever sees would cut it in two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpansOfRuns {
    None,
    Recorded,
}

/// Names a run: the same for every delivery of an event, different for any other event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RunId(String);

impl RunId {
    /// Job names leave 24 characters (see [`job_name`]); 24 hexadecimal digits are 96
    /// bits: among a million million events the chance of two with one name is one in 100,000.
    const DIGITS: usize = 24;

    /// A `CloudEvent` is identified by its source and its id together (`CloudEvents` 1.0, `id`); what
    /// two installations of this service make of it in one namespace are two runs.
    pub(crate) fn of(envelope: &Envelope, installation: &str) -> Self {
        let (source, id) = (&envelope.source, &envelope.id);
        let text = format!("{installation}\n{}\n{source}{id}", source.len());
        let mut digits = hash(text.as_bytes());
        digits.truncate(Self::DIGITS);
        Self(digits)
    }

    /// Of a trace that begins with the run.
    fn trace_id(&self) -> TraceId {
        TraceId::of_hash(&hash(format!("trace\n{self}").as_bytes()))
    }

    /// Of the run, or of a part of it: the same in every process.
    pub(crate) fn span_id(&self, part: &str) -> SpanId {
        SpanId::of_hash(&hash(format!("span\n{self}\n{part}").as_bytes()))
    }

    /// Where the run is in a trace, if it is in one.
    pub(crate) fn traced(
        &self,
        sender: Option<TraceContext>,
        spans: SpansOfRuns,
    ) -> Option<TraceContext> {
        match (sender, spans) {
            (sender, SpansOfRuns::None) => sender,
            (Some(sender), SpansOfRuns::Recorded) => Some(sender.with_run(self.span_id(RUN))),
            (None, SpansOfRuns::Recorded) => {
                let trace = TraceContext::beginning(self.trace_id(), self.span_id(RUN));
                Some(trace)
            }
        }
    }

    /// As it was written to a label of a Job.
    pub(crate) fn from_label(label: &str) -> Self {
        Self(label.to_owned())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 57 characters, as many as leave a Pod's name whole (63 less 6 of `-xxxxx`) = 25 of this prefix + 24
/// of the run id + 8 of `-AAA-TTT`.
const JOB_NAME_PREFIX: &str = "job-executor-service-job-";

/// As the original numbered them: actions from 0, tasks from 1. `task` is from 0 here. Creating a Job
/// a second time finds the first.
pub(crate) fn job_name(run: &RunId, action: usize, task: usize) -> String {
    format!("{JOB_NAME_PREFIX}{run}-{action:03}-{:03}", task + 1)
}

/// SHA3-224 in hexadecimal: what the original labels its Jobs with, as the hash of the config.
pub(crate) fn hash(bytes: &[u8]) -> String {
    use std::fmt::Write;

    Sha3_224::digest(bytes)
        .iter()
        .fold(String::with_capacity(56), |mut text, byte| {
            write!(text, "{byte:02x}").ok();
            text
        })
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) id: RunId,
    /// When the event came in; runs that wait are released in this order.
    pub(crate) arrived: Timestamp,
    pub(crate) event: Envelope,
    pub(crate) config_hash: String,
    pub(crate) actions: Vec<RunAction>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunAction {
    /// The place of the action in the config, from 0.
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) silent: bool,
    pub(crate) work: Work,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Work {
    Tasks(Vec<RunTask>),
    /// A task that cannot or must not run: none of the action's tasks does.
    Refused {
        task: String,
        reason: String,
    },
    /// Of an action whose first Jobs the API server refused: those tasks failed, and these may run.
    Rest {
        failed: Vec<Refusal>,
        tasks: Vec<RunTask>,
    },
}

/// A task that has no Job, with the reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refusal {
    pub(crate) task: String,
    pub(crate) reason: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) on_failure: OnFailure,
}

/// Everything that a Job is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunTask {
    pub(crate) name: String,
    pub(crate) image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image_pull_policy: Option<ImagePullPolicy>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cmd: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) args: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) working_dir: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) files: Vec<FileEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) env: Vec<Variable>,
    /// Variables of which the kubelet knows the value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) keys: Vec<KeyVariable>,
    /// Secrets whose keys all become variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) secrets: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) env_from: Vec<EnvFrom>,
    pub(crate) resources: Resources,
    /// Seconds.
    pub(crate) time_limit: u32,
    /// Seconds that the Job is kept after the answer was delivered.
    pub(crate) ttl: u32,
    #[serde(default)]
    pub(crate) security_context: SecurityContext,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) service_account: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    /// Where it is not the one in which Jobs run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<ObjectName>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) retries: Retries,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) on_failure: OnFailure,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) always: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) result_file: Option<ResultFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) empty_dir_size_limit: Option<Quantity>,
    #[serde(default, skip_serializing_if = "PodParts::is_empty")]
    pub(crate) pod: PodParts,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A variable with the value of one key of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyVariable {
    pub(crate) name: String,
    pub(crate) key: KeyRef,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// In Kubernetes' notation, where `$(X)` stands for another variable and `$$` for `$`.
    pub(crate) value: String,
}

/// One task of a run with its place, from which its Job's name follows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) run: &'a Run,
    pub(crate) action: &'a RunAction,
    pub(crate) task: &'a RunTask,
    /// The action's place among those of the run that have tasks, from 0: the first Job of a run has
    /// the same name whatever the config says when the event is delivered again.
    action_ordinal: usize,
    /// From 0.
    pub(crate) task_index: usize,
}

impl<'a> Place<'a> {
    /// Where its Job is; `own` is where those are that ask for no other.
    pub(crate) fn namespace_or(self, own: &'a str) -> &'a str {
        let asked = self.task.namespace.as_ref();
        asked.map_or(own, ObjectName::as_str)
    }

    pub(crate) fn job_name(&self) -> String {
        job_name(&self.run.id, self.action_ordinal, self.task_index)
    }

    /// Of the task's span.
    pub(crate) fn span_id(&self) -> SpanId {
        self.run.id.span_id(&self.job_name())
    }

    /// For what the task does: `traceparent` and `tracestate`.
    pub(crate) fn trace(&self) -> Option<(String, Option<&str>)> {
        let trace = self.run.event.trace.as_ref()?;
        let span = match trace.span {
            Span::Sender(id) => id,
            Span::Run { .. } => self.span_id(),
        };
        Some((trace.traceparent_of(span), trace.tracestate()))
    }

    /// The Job that exists for as long as the run does.
    pub(crate) fn is_first(&self) -> bool {
        self.action_ordinal == 0 && self.task_index == 0
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the run's record takes {bytes} bytes on each Job, allowed are {allowed}: let fewer or shorter \
     values of the event become environment variables"
)]
pub(crate) struct RecordTooLarge {
    bytes: usize,
    allowed: usize,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("the run record is not base64")]
    Base64(#[from] base64::DecodeError),
    #[error("the run record is not what this service writes")]
    Json(#[from] serde_json::Error),
    #[error("the run record inflates to more than {MAX_INFLATED_BYTES} bytes")]
    Bomb,
}

impl RunAction {
    /// The tasks that may run.
    pub(crate) fn tasks(&self) -> &[RunTask] {
        match &self.work {
            Work::Tasks(tasks) | Work::Rest { tasks, .. } => tasks,
            Work::Refused { .. } => &[],
        }
    }

    /// The tasks that have failed without a Job, before any other.
    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        match &self.work {
            Work::Tasks(_) => Vec::new(),
            Work::Refused { task, reason } => vec![Refusal {
                task: task.clone(),
                reason: reason.clone(),
                on_failure: OnFailure::Fail,
            }],
            Work::Rest { failed, .. } => failed.clone(),
        }
    }

    /// What follows a task that fails is left out of the action unless it always runs.
    fn without_first_task(&mut self, reason: String) {
        let work = std::mem::replace(&mut self.work, Work::Tasks(Vec::new()));
        let (mut failed, tasks) = match work {
            Work::Tasks(tasks) => (Vec::new(), tasks),
            Work::Rest { failed, tasks } => (failed, tasks),
            refused @ Work::Refused { .. } => return self.work = refused,
        };
        let mut tasks = tasks.into_iter();
        failed.extend(tasks.next().map(|first| Refusal {
            task: first.name,
            reason,
            on_failure: first.on_failure,
        }));
        let goes_on = failed.iter().all(|of| of.on_failure == OnFailure::Warn);
        let tasks = tasks.filter(|task| goes_on || task.always).collect();
        self.work = Work::Rest { failed, tasks };
    }
}

impl Run {
    /// Whether Keptn hears of this run: a triggered event with an action that is not silent.
    pub(crate) fn is_answered(&self) -> bool {
        self.event.event_type.is_triggered() && self.actions.iter().any(|action| !action.silent)
    }

    /// The actions in their order, each with its tasks in theirs.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (&RunAction, Vec<Place<'_>>)> {
        let mut ordinals = 0..;
        self.actions.iter().map(move |action| {
            let tasks = action.tasks();
            let ordinal = if tasks.is_empty() {
                0
            } else {
                ordinals.next().unwrap_or(0)
            };
            let place = |(task_index, task)| Place {
                run: self,
                action,
                task,
                action_ordinal: ordinal,
                task_index,
            };
            (action, tasks.iter().enumerate().map(place).collect())
        })
    }

    pub(crate) fn task_count(&self) -> usize {
        self.steps().map(|(_, places)| places.len()).sum()
    }

    /// None where no action has a task that may run.
    pub(crate) fn first_place(&self) -> Option<Place<'_>> {
        self.steps()
            .find_map(|(_, places)| places.into_iter().next())
    }

    /// The API server will not have the first Job: its task has failed, and what runs all the same is what is
    /// left of the run, whose first Job has the same name.
    pub(crate) fn goes_on_without_first_task(&mut self, reason: String) {
        let mut actions = self.actions.iter_mut();
        if let Some(action) = actions.find(|action| !action.tasks().is_empty()) {
            action.without_first_task(reason);
        }
    }

    pub(crate) fn encode(&self) -> Result<String, RecordTooLarge> {
        let within = |bytes: usize, allowed: usize| {
            (bytes <= allowed)
                .then_some(())
                .ok_or(RecordTooLarge { bytes, allowed })
        };
        // Neither serialising these types nor writing to memory can fail.
        let json = serde_json::to_vec(self).unwrap_or_default();
        within(json.len(), MAX_INFLATED_BYTES)?;
        let record = STANDARD_NO_PAD.encode(deflated(&json));
        within(record.len(), MAX_RECORD_BYTES)?;
        Ok(record)
    }

    pub(crate) fn decode(record: &str) -> Result<Self, RecordError> {
        let compressed = STANDARD_NO_PAD.decode(record)?;
        let mut inflated = inflated(&compressed);
        let run = serde_json::from_reader(&mut inflated);
        // Whatever was made of a part of it.
        if inflated.limit() == 0 {
            return Err(RecordError::Bomb);
        }
        Ok(run?)
    }
}

/// What an encoder works with takes 300 KB, longer to make than to use for a record.
static ENCODER: LazyLock<Mutex<ZlibEncoder<Vec<u8>>>> = LazyLock::new(|| Mutex::new(encoder()));

/// Nobody waits for a larger one of somebody else.
const MAX_QUICK: usize = 64 << 10;

fn encoder() -> ZlibEncoder<Vec<u8>> {
    ZlibEncoder::new(Vec::new(), Compression::fast())
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    // After a panic nobody knows what is in the one that is kept.
    match ENCODER.try_lock() {
        Ok(mut kept) if bytes.len() <= MAX_QUICK => deflated_by(&mut kept, bytes),
        _ => deflated_by(&mut encoder(), bytes),
    }
}

fn deflated_by(encoder: &mut ZlibEncoder<Vec<u8>>, bytes: &[u8]) -> Vec<u8> {
    encoder.write_all(bytes).ok();
    encoder.reset(Vec::new()).unwrap_or_default()
}

/// As a stream, of which no more is ever made than a byte too much.
fn inflated(compressed: &[u8]) -> io::Take<ZlibDecoder<&[u8]>> {
    ZlibDecoder::new(compressed).take(MAX_INFLATED_BYTES as u64 + 1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::event::{EventScope, EventType};

    pub(crate) fn envelope(id: &str) -> Envelope {
        Envelope {
            id: id.into(),
            source: "shipyard-controller".into(),
            event_type: EventType::new("sh.keptn.event.test.triggered"),
            keptn_context: Some("ctx".into()),
            keptn_spec_version: Some("0.2.0".into()),
            git_commit_id: None,
            scope: EventScope {
                project: Some("p".into()),
                stage: Some("dev".into()),
                service: Some("svc".into()),
            },
            labels: BTreeMap::from([("k".into(), "v".into())]),
            trace: None,
        }
    }

    pub(crate) fn run(env: Vec<Variable>) -> Run {
        Run {
            id: RunId::of(&envelope("1"), ""),
            arrived: Timestamp::UNIX_EPOCH,
            event: envelope("1"),
            config_hash: hash(b""),
            actions: vec![RunAction {
                index: 2,
                name: "a".into(),
                silent: false,
                work: Work::Tasks(vec![RunTask {
                    name: "t".into(),
                    image: "i".into(),
                    image_pull_policy: None,
                    cmd: vec!["x".into()],
                    args: vec![],
                    working_dir: None,
                    files: vec![FileEntry::parse_argument("/f").unwrap()],
                    env,
                    keys: vec![],
                    secrets: vec![],
                    env_from: vec![],
                    resources: Resources::default(),
                    time_limit: 300,
                    ttl: 21_600,
                    security_context: SecurityContext::default(),
                    service_account: None,
                    annotations: BTreeMap::new(),
                    namespace: None,
                    retries: Retries::default(),
                    on_failure: OnFailure::default(),
                    always: false,
                    result_file: None,
                    empty_dir_size_limit: None,
                    pod: PodParts::default(),
                }]),
            }],
        }
    }

    #[test]
    fn a_record_gives_back_its_run() {
        let run = run(vec![Variable {
            name: "A".into(),
            value: "é$(B)".into(),
        }]);
        let record = run.encode().unwrap();
        assert!(record.len() < 700, "{}", record.len());
        assert_eq!(Run::decode(&record).unwrap(), run);
    }

    #[test]
    fn what_is_left_of_a_run_begins_with_the_same_job() {
        let mut run = run(vec![]);
        let task = run.actions[0].tasks()[0].clone();
        let of = |name: &str, on_failure, always| RunTask {
            name: name.into(),
            on_failure,
            always,
            ..task.clone()
        };
        run.actions[0].work = Work::Tasks(vec![
            of("one", OnFailure::Warn, false),
            of("two", OnFailure::Fail, false),
            of("three", OnFailure::Warn, false),
            of("four", OnFailure::Fail, true),
        ]);
        let first = run.first_place().unwrap().job_name();
        let mut left = Vec::new();
        while let Some(place) = run.first_place() {
            assert!(place.is_first());
            assert_eq!(place.job_name(), first);
            assert_eq!(Run::decode(&run.encode().unwrap()).unwrap(), run);
            let names = run.actions[0].tasks().iter().map(|task| &*task.name);
            left.push(names.collect::<Vec<_>>().join(" "));
            run.goes_on_without_first_task("why".into());
        }
        assert_eq!(left, ["one two three four", "two three four", "four"]);
        let failed = run.actions[0].refusals();
        let failed: Vec<&str> = failed.iter().map(|of| of.task.as_str()).collect();
        assert_eq!(failed, ["one", "two", "four"]);
    }

    /// As 0.4.0 wrote them before tasks could have more.
    #[test]
    fn a_record_of_an_earlier_version_is_read() {
        let json = r#"{"id":"5632d8c36b2c387f09b84999","arrived":"2026-11-24T10:00:00Z","event":{"id":"1",
            "source":"s","type":"sh.keptn.event.test.triggered","shkeptncontext":"c",
            "scope":{"project":"p","stage":"dev","service":"svc"},"labels":{}},
            "config_hash":"h","actions":[{"index":0,"name":"a","silent":false,"work":{"tasks":[{"name":"t",
            "image":"i","files":["locust/basic.py",""],"env":[{"name":"A","value":"b"}],"secrets":["c"],
            "resources":{"limits":{"cpu":"1","memory":null},"requests":{"cpu":null,"memory":null}},
            "timeLimit":300,"ttl":21600,"securityContext":{},"annotations":{"x":"y"}}]}}]}"#;
        let mut encoder = encoder();
        encoder.write_all(json.as_bytes()).unwrap();
        let record = STANDARD_NO_PAD.encode(encoder.finish().unwrap());
        let run = Run::decode(&record).unwrap();
        let task = run.first_place().unwrap().task;
        let files: Vec<String> = task.files.iter().map(ToString::to_string).collect();
        assert_eq!(files, ["/locust/basic.py", "/"]);
        assert_eq!((task.namespace.as_ref(), u8::from(task.retries)), (None, 0));
        assert_eq!(run.event.trace, None);
    }

    #[test]
    fn a_record_that_does_not_fit_is_refused() {
        let noise: String = (0..6_000_u64).map(|n| hash(&n.to_le_bytes())).collect();
        let run = run(vec![Variable {
            name: "A".into(),
            value: noise,
        }]);
        assert!(run.encode().is_err());
    }

    fn compressed(parts: &[&[u8]]) -> Vec<u8> {
        let mut encoder = encoder();
        for part in parts {
            encoder.write_all(part).unwrap();
        }
        encoder.finish().unwrap()
    }

    /// 16 MiB of blanks, of a text, of nothing but brackets, and of tasks.
    #[test]
    fn a_record_that_inflates_without_end_is_refused_and_not_inflated() {
        let json = serde_json::to_vec(&run(vec![])).unwrap();
        let actions = json
            .windows(12)
            .position(|part| part == b"\"actions\":[{")
            .unwrap();
        let (head, action) = json.split_at(actions + 11);
        let action = [action.strip_suffix(b"]}").unwrap(), b","].concat();
        let many = |piece: &[u8]| piece.repeat((16 << 20) / piece.len());
        let bombs = [
            [&*json, &many(b" ")].concat(),
            [b"{\"id\":\"", &*many(b"x")].concat(),
            many(b"["),
            [head, &many(&action)].concat(),
        ];
        for bomb in bombs {
            let small = compressed(&[&bomb]);
            assert!(small.len() < MAX_RECORD_BYTES, "{}", small.len());
            let mut pieces = inflated(&small);
            let made = io::copy(&mut pieces, &mut io::sink()).unwrap();
            assert_eq!(made, MAX_INFLATED_BYTES as u64 + 1);
            let error = Run::decode(&STANDARD_NO_PAD.encode(small)).unwrap_err();
            assert!(
                matches!(error, RecordError::Bomb | RecordError::Json(_)),
                "{error}"
            );
        }
        let room = MAX_INFLATED_BYTES - json.len();
        let blanks = |room: usize| STANDARD_NO_PAD.encode(compressed(&[&json, &b" ".repeat(room)]));
        assert_eq!(Run::decode(&blanks(room)).unwrap(), run(vec![]));
        assert!(matches!(
            Run::decode(&blanks(room + 1)),
            Err(RecordError::Bomb)
        ));
    }

    #[test]
    fn a_broken_record_is_an_error() {
        for record in ["", "%", "AAAA"] {
            assert!(Run::decode(record).is_err(), "{record}");
        }
    }

    #[test]
    fn distinct_events_have_distinct_runs() {
        let mut other = envelope("1");
        other.source = "shipyard-controller1".into();
        other.id = String::new();
        let ids = [
            RunId::of(&envelope("1"), ""),
            RunId::of(&envelope("1"), "other"),
            RunId::of(&envelope("A"), ""),
            RunId::of(&envelope("a"), ""),
            RunId::of(&other, ""),
        ];
        for (index, id) in ids.iter().enumerate() {
            assert_eq!(id.to_string().len(), RunId::DIGITS);
            assert!(!ids[..index].contains(id));
        }
        assert_eq!(RunId::of(&envelope("1"), ""), ids[0]);
    }

    #[test]
    fn job_names_are_short_enough_and_distinct() {
        for id in ["1", "UPPER_case", &"long".repeat(100)] {
            let name = job_name(&RunId::of(&envelope(id), ""), 998, 998);
            assert_eq!(name.len(), 57, "{name}");
        }
        let id = RunId::of(&envelope("1"), "");
        assert_ne!(job_name(&id, 0, 11), job_name(&id, 1, 1));
    }
}
