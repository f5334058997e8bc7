//! Every way in which every call of a run can fail, the process's death included: what was accepted is
//! answered once. docs/faults.md has the outcome as tables, which these tests keep true.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

use super::keptn::{Habit, Keptn};
use super::kubernetes::{Kubernetes, WatchHabit};
use super::wire::{Fault, Wire};
use super::{POD, Process, Transcript, shortened, triggered};

/// A config with what its tasks do.
pub(super) struct Scenario {
    name: &'static str,
    pub(super) config: &'static str,
    prepare: fn(&Kubernetes),
}

impl Scenario {
    pub(super) fn is_answered(&self) -> bool {
        self.name != "silent"
    }
}

pub(super) const SCENARIOS: [Scenario; 9] = [
    Scenario {
        name: "one task",
        config: "
apiVersion: v2
actions:
  - name: a
    events: [{name: test}]
    tasks: [{name: one, image: i, ttlSecondsAfterFinished: 60}]",
        prepare: |cluster| cluster.task("one").prints("hello\n"),
    },
    Scenario {
        name: "three tasks",
        config: "
apiVersion: v2
actions:
  - name: a
    events: [{name: test}]
    tasks:
      - {name: one, image: i, ttlSecondsAfterFinished: 60}
      - {name: two, image: i, ttlSecondsAfterFinished: 60}
      - {name: three, image: i, ttlSecondsAfterFinished: 60}",
        prepare: |cluster| cluster.task("two").prints("hello\n"),
    },
    Scenario {
        name: "two actions",
        config: "
apiVersion: v2
actions:
  - name: a
    events: [{name: test}]
    tasks: [{name: one, image: i, ttlSecondsAfterFinished: 60}]
  - name: b
    silent: true
    events: [{name: test}]
    tasks: [{name: two, image: i, ttlSecondsAfterFinished: 60}]",
        prepare: |cluster| cluster.task("one").prints("hello\n"),
    },
    Scenario {
        name: "a failing task",
        config: "
apiVersion: v2
actions:
  - name: a
    events: [{name: test}]
    tasks:
      - {name: one, image: i, ttlSecondsAfterFinished: 60}
      - {name: two, image: i, ttlSecondsAfterFinished: 60}
      - {name: never, image: i}",
        prepare: |cluster| cluster.task("two").fails(3, "boom\n"),
    },
    Scenario {
        name: "a failing action and another",
        config: "
apiVersion: v2
actions:
  - name: a
    events: [{name: test}]
    tasks:
      - {name: one, image: i, ttlSecondsAfterFinished: 60}
      - {name: never, image: i}
  - name: b
    events: [{name: test}]
    tasks: [{name: two, image: i, ttlSecondsAfterFinished: 60}]",
        prepare: |cluster| cluster.task("one").fails(3, "boom\n"),
    },
    Scenario {
        name: "silent",
        config: "
apiVersion: v2
actions:
  - name: a
    silent: true
    events: [{name: test}]
    tasks:
      - {name: one, image: i, ttlSecondsAfterFinished: 60}
      - {name: two, image: i, ttlSecondsAfterFinished: 60}",
        prepare: |_| {},
    },
    Scenario {
        name: "a failing init container",
        config: "
apiVersion: v2
actions:
  - name: a
    events: [{name: test}]
    tasks: [{name: one, image: i, files: [a], ttlSecondsAfterFinished: 60}]",
        prepare: |cluster| cluster.task("one").fails_in_its_init_container("no file\n"),
    },
    Scenario {
        name: "a task that cannot start",
        config: "
apiVersion: v2
actions:
  - name: a
    events: [{name: test}]
    tasks: [{name: one, image: i, ttlSecondsAfterFinished: 60}]",
        prepare: |cluster| cluster.task("one").cannot_be_pulled(),
    },
    Scenario {
        name: "a first Job that is refused",
        config: "
apiVersion: v2
actions:
  - name: a
    events: [{name: test}]
    tasks:
      - {name: refused, image: i}
      - {name: never, image: i}
      - {name: one, image: i, always: true, ttlSecondsAfterFinished: 60}
      - {name: two, image: i, always: true, ttlSecondsAfterFinished: 60}",
        prepare: |cluster| {
            cluster
                .task("refused")
                .is_refused(403, "trouble of the API server");
        },
    },
];

const FAULTS: [(&str, Fault); 13] = [
    ("killed before the call", Fault::DiesBefore),
    ("killed after it took effect", Fault::DiesAfter),
    ("409", Fault::Answered(409)),
    ("422", Fault::Answered(422)),
    ("429", Fault::Answered(429)),
    ("500", Fault::Answered(500)),
    ("503", Fault::Answered(503)),
    ("504, and took effect", Fault::DoneBut(504)),
    ("connection refused", Fault::Refused),
    ("connection reset", Fault::Broken { done: false }),
    (
        "connection reset, and took effect",
        Fault::Broken { done: true },
    ),
    ("no answer", Fault::Silence { done: false }),
    ("no answer, and took effect", Fault::Silence { done: true }),
];

/// What a call is for, as the columns of the table.
const COLUMNS: [&str; 7] = [
    "create a Job",
    "mark a Job",
    "read a log",
    "watch, list, Lease",
    "read the config",
    "ask the event store",
    "send an answer",
];

fn column(call: &str) -> &'static str {
    match call {
        "create jobs" => "create a Job",
        "get pods/log" => "read a log",
        "get config" => "read the config",
        call if call.starts_with("patch jobs") => "mark a Job",
        call if call.starts_with("ask store") => "ask the event store",
        call if call.starts_with("send") => "send an answer",
        _ => "watch, list, Lease",
    }
}

/// Where a run takes place, and what is left of it.
pub(super) struct World {
    pub(super) keptn: Keptn,
    pub(super) cluster: Kubernetes,
    pub(super) transcript: Transcript,
}

impl World {
    pub(super) fn of(scenario: &Scenario) -> Self {
        let transcript = Transcript::default();
        let keptn = Keptn::new(transcript.clone());
        keptn.has("dev/svc", "job/config.yaml", scenario.config);
        let cluster = Kubernetes::new(transcript.clone());
        (scenario.prepare)(&cluster);
        Self {
            keptn,
            cluster,
            transcript,
        }
    }

    pub(super) async fn process(&self, wire: Wire) -> Process {
        Process::start(&self.keptn, &self.cluster, &[], POD, wire).await
    }

    /// The answers to one event, in order.
    pub(super) fn answers(&self, id: &str) -> Vec<Value> {
        let mut events = self.keptn.events();
        events.retain(|event| event["triggeredid"] == id);
        events
    }

    /// Whatever the surroundings did: each Job was created once and is marked, each event of these was
    /// started and finished once or not at all.
    pub(super) fn check(&self, ids: &[String]) -> Result<(), String> {
        self.check_jobs()?;
        for id in ids {
            let kinds: Vec<String> = self.answers(id).iter().map(kind).collect();
            if !kinds.is_empty() && kinds != ["started", "finished"] {
                return Err(format!("the answers to {id} are {kinds:?}"));
            }
        }
        Ok(())
    }

    fn check_jobs(&self) -> Result<(), String> {
        for (job, times) in self.cluster.creations() {
            if times != 1 {
                return Err(format!("{job} was created {times} times"));
            }
        }
        for job in self.cluster.last_states() {
            let name = &job["metadata"]["name"];
            if job["metadata"]["labels"]["keptn.sh/jes-reported"] != "true" {
                return Err(format!("{name} is not marked as reported"));
            }
            if !job["spec"]["ttlSecondsAfterFinished"].is_u64() {
                return Err(format!("{name} is kept for ever"));
            }
        }
        Ok(())
    }

    /// Without the event store an answer may come twice, and then with the same id. Tells which did.
    fn repeated(&self) -> Result<Vec<&'static str>, String> {
        self.check_jobs()?;
        let answers = self.answers("event-1");
        let mut repeated = Vec::new();
        for (of, name) in [("started", "`.started`"), ("finished", "`.finished`")] {
            let ids: Vec<&Value> = answers
                .iter()
                .filter(|event| kind(event) == of)
                .map(|event| &event["id"])
                .collect();
            match ids.as_slice() {
                [] | [_] => {}
                [one, other] if one == other => repeated.push(name),
                ids => return Err(format!("{name} was sent with the ids {ids:?}")),
            }
        }
        let first = answers.iter().position(|event| kind(event) == "finished");
        let last = answers.iter().rposition(|event| kind(event) == "started");
        if first < last {
            return Err("`.finished` came before `.started`".into());
        }
        Ok(repeated)
    }
}

/// `started` or `finished`.
fn kind(event: &Value) -> String {
    let event_type = event["type"].as_str().unwrap_or_default();
    event_type.rsplit('.').next().unwrap_or_default().to_owned()
}

/// One event in a world where something goes wrong in the first life of the service.
async fn lives(world: &World, wire: Wire, downtime: Duration) -> Vec<String> {
    let first = wire.clone();
    let mut process = world.process(wire).await;
    let event = triggered("event-1");
    let mut accepted = false;
    loop {
        let life = async {
            process.is_ready().await;
            while !accepted {
                let (status, _) = process.receives(&event).await;
                accepted = status < 300;
                if !accepted {
                    sleep(Duration::from_secs(5)).await;
                }
            }
            world.cluster.all_reported().await;
            // For whatever may come too late or too often.
            sleep(Duration::from_secs(100)).await;
        };
        tokio::select! {
            biased;
            () = process.wire.is_cut() => {
                sleep(downtime).await;
                process = world.process(Wire::sound()).await;
            }
            () = life => break,
        }
    }
    process.stops().await;
    first.calls()
}

/// On a runtime of its own, whose clock is paused.
pub(super) fn on_paused_clock<T>(work: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let day = Duration::from_secs(24 * 3600);
    let result = runtime.block_on(async { timeout(day, work).await.expect("it ends in a day") });
    runtime.shutdown_background();
    result
}

/// What Keptn was told in the end, beside what it is told without a fault.
fn outcome(world: &World, sound: &World) -> Result<String, String> {
    world.check(&["event-1".to_owned()])?;
    let finished = |world: &World| world.answers("event-1").pop().unwrap_or_default();
    let (ended, expected) = (finished(world), finished(sound));
    if shortened(&ended["data"].to_string()) == shortened(&expected["data"].to_string()) {
        return Ok("same".into());
    }
    let data = &ended["data"];
    let message = data["message"].as_str().unwrap_or_default();
    if data["status"] == expected["data"]["status"] && message.contains("Unable to query logs") {
        return Ok("same, and why the log is missing".into());
    }
    if data["status"] == "errored" && message.contains("trouble of the API server") {
        return Ok("errored, with the API server's words".into());
    }
    if data["status"] == "errored" && message.contains("(tried for 8 minutes)") {
        return Ok("503 to the sender, errored after 8 minutes".into());
    }
    Err(format!("it ended as {} with {message}", data["status"]))
}

fn outcome_without_store(world: &World, _: &World) -> Result<String, String> {
    let repeated = world.repeated()?;
    if repeated.is_empty() {
        return Ok("once".into());
    }
    Ok(format!("{} twice, with one id", repeated.join(" and ")))
}

type Cells = BTreeMap<(&'static str, &'static str), BTreeSet<String>>;

type Outcome = fn(&World, &World) -> Result<String, String>;

fn every_fault_of(scenario: &Scenario, store: Habit, outcome: Outcome) -> Cells {
    let (sound, mut calls) = on_paused_clock(async {
        let world = World::of(scenario);
        let calls = lives(&world, Wire::sound(), Duration::ZERO).await;
        (world, calls)
    });
    // What follows the last mark is idling and the end of the process.
    let marked = calls
        .iter()
        .rposition(|call| call.starts_with("patch jobs"));
    calls.truncate(marked.unwrap() + 1);
    let mut table = Cells::new();
    for (number, call) in calls.iter().enumerate() {
        for (name, fault) in FAULTS {
            let downtimes = match fault {
                // At once, and after the Jobs' time to live.
                Fault::DiesBefore | Fault::DiesAfter => [0, 90].as_slice(),
                _ => &[0],
            };
            for &downtime in downtimes {
                let world = on_paused_clock(async {
                    let world = World::of(scenario);
                    world.keptn.store(store);
                    let planned = move |at: usize, _: &str| (at == number).then_some(fault);
                    let downtime = Duration::from_secs(downtime);
                    lives(&world, Wire::with(planned), downtime).await;
                    world
                });
                let seen = outcome(&world, &sound).unwrap_or_else(|broken| {
                    panic!(
                        "{}, {name} at call {number} ({call}), down for {downtime} s: {broken}\n{}",
                        scenario.name,
                        world.transcript.text()
                    )
                });
                table.entry((name, column(call))).or_default().insert(seen);
            }
        }
    }
    table
}

/// What a trouble does to the world when it begins, and when it ends.
type Change = fn(&World);

/// Troubles that last: an hour of them, from before the event on.
const TROUBLES: [(&str, Change, Change); 10] = [
    (
        "each watch ends after every change",
        |world| world.cluster.has_watches_that(WatchHabit::Ends),
        |_| {},
    ),
    (
        "each watch is compacted after every change (410)",
        |world| world.cluster.has_watches_that(WatchHabit::Compacted),
        |_| {},
    ),
    (
        "watches show changes 10 s late",
        |world| world.cluster.has_watches_that(WatchHabit::Late),
        |_| {},
    ),
    (
        "watches show each change twice",
        |world| world.cluster.has_watches_that(WatchHabit::Repeats),
        |_| {},
    ),
    (
        "the distributor refuses connections",
        |world| world.keptn.distributor(Habit::Refuses),
        |world| world.keptn.distributor(Habit::Works),
    ),
    (
        "the distributor answers 500",
        |world| world.keptn.distributor(Habit::Answers(500)),
        |world| world.keptn.distributor(Habit::Works),
    ),
    (
        "the distributor does not answer",
        |world| world.keptn.distributor(Habit::Hangs),
        |world| world.keptn.distributor(Habit::Works),
    ),
    (
        "the event store answers 500",
        |world| world.keptn.store(Habit::Answers(500)),
        |world| world.keptn.store(Habit::Works),
    ),
    (
        "the event store does not answer",
        |world| world.keptn.store(Habit::Hangs),
        |world| world.keptn.store(Habit::Works),
    ),
    (
        "the configuration service answers 503",
        |world| world.keptn.resources(Habit::Answers(503)),
        |world| world.keptn.resources(Habit::Works),
    ),
];

fn every_trouble_of(scenario: &Scenario) -> BTreeMap<&'static str, BTreeSet<String>> {
    let sound = on_paused_clock(async {
        let world = World::of(scenario);
        lives(&world, Wire::sound(), Duration::ZERO).await;
        world
    });
    let mut rows = BTreeMap::new();
    for (name, begins, ends) in TROUBLES {
        let world = on_paused_clock(async {
            let world = World::of(scenario);
            begins(&world);
            let heals = async {
                sleep(Duration::from_secs(3600)).await;
                ends(&world);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = lives(&world, Wire::sound(), Duration::ZERO) => {}
                () = heals => {}
            }
            world
        });
        let seen = outcome(&world, &sound).unwrap_or_else(|broken| {
            panic!(
                "{}, {name}: {broken}\n{}",
                scenario.name,
                world.transcript.text()
            )
        });
        rows.entry(name).or_insert_with(BTreeSet::new).insert(seen);
    }
    rows
}

fn text(outcomes: Option<&BTreeSet<String>>) -> String {
    outcomes.map_or_else(String::new, |outcomes| {
        outcomes.iter().cloned().collect::<Vec<_>>().join("; or ")
    })
}

fn table(title: &str, cells: &Cells) -> String {
    let columns = COLUMNS.iter().filter(|column| {
        let mut filled = cells.keys().map(|(_, of)| of);
        filled.any(|of| of == *column)
    });
    let columns: Vec<&str> = columns.copied().collect();
    let mut table = format!(
        "| {title} | {} |\n|{}\n",
        columns.join(" | "),
        " --- |".repeat(columns.len() + 1)
    );
    for (fault, _) in FAULTS {
        let row: Vec<String> = columns
            .iter()
            .map(|column| text(cells.get(&(fault, *column))))
            .collect();
        table += &format!("| {fault} | {} |\n", row.join(" | "));
    }
    table
}

/// The scenarios at once, their outcomes together.
fn of_all<T: Send>(what: impl Fn(&Scenario) -> T + Sync) -> Vec<T> {
    let what = &what;
    std::thread::scope(|scope| {
        let threads: Vec<_> = SCENARIOS
            .iter()
            .map(|scenario| scope.spawn(move || what(scenario)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("every promise is kept"))
            .collect()
    })
}

fn merged<K: Ord>(all: Vec<BTreeMap<K, BTreeSet<String>>>) -> BTreeMap<K, BTreeSet<String>> {
    let mut merged = BTreeMap::<K, BTreeSet<String>>::new();
    for (key, outcomes) in all.into_iter().flatten() {
        merged.entry(key).or_default().extend(outcomes);
    }
    merged
}

/// The part of docs/faults.md that a test makes.
fn documented(name: &str) -> &'static str {
    let document = include_str!("../../docs/faults.md");
    let begin = format!("<!-- {name}: made by a test -->\n");
    let part = document.split_once(&begin).map_or("", |(_, rest)| rest);
    part.split_once("<!-- end -->").map_or("", |(part, _)| part)
}

#[test]
fn every_call_may_fail_in_every_way() {
    let cells = of_all(|scenario| every_fault_of(scenario, Habit::Works, outcome));
    let table = table("at a call to …", &merged(cells));
    assert!(
        table == documented("one fault"),
        "docs/faults.md does not say what happens:\n{table}"
    );
}

#[test]
fn without_the_event_store_an_answer_comes_twice_at_most_and_with_one_id() {
    let cells =
        of_all(|scenario| every_fault_of(scenario, Habit::Answers(500), outcome_without_store));
    let mut cells = merged(cells);
    cells.retain(|(_, column), _| *column == "mark a Job" || *column == "send an answer");
    let table = table("at a call to …", &cells);
    assert!(
        table == documented("without the event store"),
        "docs/faults.md does not say what happens:\n{table}"
    );
}

#[test]
fn troubles_that_last_are_waited_out() {
    let rows = merged(of_all(every_trouble_of));
    let mut table = "| for an hour | the user sees |\n| --- | --- |\n".to_owned();
    for (trouble, _, _) in TROUBLES {
        table += &format!("| {trouble} | {} |\n", text(rows.get(trouble)));
    }
    assert!(
        table == documented("an hour"),
        "docs/faults.md does not say what happens:\n{table}"
    );
}
