//! Random schedules of deliveries, deaths, rollouts and troubles, each from a seed. A seed that fails is
//! printed; `SCHEDULE_SEED=<seed> cargo test schedules` runs it again, with the service's log, and
//! `SCHEDULE_SEED=<from>..<to>` runs more of them.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::faults::{SCENARIOS, World, on_paused_clock};
use super::keptn::Habit;
use super::kubernetes::WatchHabit;
use super::wire::{Fault, Wire};
use super::{Process, triggered};
use crate::telemetry;

const SEEDS: Range<u64> = 0..100;

/// Of a hundred calls, so many fail in one of these ways; all of them pass.
const FAULTY_CALLS: u8 = 5;
const FAULTS: [Fault; 8] = [
    Fault::Answered(429),
    Fault::Answered(500),
    Fault::Answered(503),
    Fault::DoneBut(504),
    Fault::Broken { done: false },
    Fault::Broken { done: true },
    Fault::Silence { done: false },
    Fault::Silence { done: true },
];

/// The processes that there are, by the names of their Pods.
#[derive(Clone)]
struct Deployment {
    world: Arc<World>,
    processes: Arc<Mutex<Vec<Option<Process>>>>,
    rng: Arc<Mutex<Rng>>,
}

impl Deployment {
    fn replicas(&self) -> usize {
        self.processes.lock().unwrap().len()
    }

    fn random(&self, below: u64) -> u64 {
        self.rng.lock().unwrap().u64(..below)
    }

    async fn starts(&self, replica: usize) {
        let mut rng = self.rng.lock().unwrap().fork();
        // What the event store says is needed to tell whether an answer arrived.
        let wire = Wire::with(move |_, call| {
            let faulty = rng.u8(..100) < FAULTY_CALLS && !call.starts_with("ask store");
            faulty.then(|| FAULTS[rng.usize(..FAULTS.len())])
        });
        let pod = format!("jes-{replica}");
        let World { keptn, cluster, .. } = &*self.world;
        let process = Process::start(keptn, cluster, &[], &pod, wire).await;
        self.processes.lock().unwrap()[replica] = Some(process);
    }

    fn taken(&self, replica: usize) -> Option<Process> {
        self.processes.lock().unwrap()[replica].take()
    }

    /// A process that lost the Lease has ended, and is started again as a Deployment does.
    async fn restarts_what_ended(&self) {
        for replica in 0..self.replicas() {
            let ended = {
                let processes = self.processes.lock().unwrap();
                let process = processes[replica].as_ref();
                process.is_some_and(|process| process.service.is_finished())
            };
            if ended {
                self.starts(replica).await;
            }
        }
    }

    /// As somebody who sends it until it is accepted, to whichever process there is.
    async fn delivers(self, id: String) {
        loop {
            let replica = usize::try_from(self.random(self.replicas() as u64)).unwrap();
            let way = {
                let processes = self.processes.lock().unwrap();
                let process = processes[replica].as_ref();
                process.map(|process| (process.router.clone(), process.wire.clone()))
            };
            if let Some((router, wire)) = way {
                let event = triggered(&id);
                let answer = super::post(&router, &event);
                let status = tokio::select! {
                    biased;
                    () = wire.is_cut() => 0,
                    (status, _) = answer => status,
                };
                if (200..300).contains(&status) {
                    return;
                }
            }
            sleep(Duration::from_secs(3)).await;
        }
    }

    async fn step(&self, senders: &mut JoinSet<()>, ids: &mut Vec<String>) {
        let World { keptn, cluster, .. } = &*self.world;
        let replica = usize::try_from(self.random(self.replicas() as u64)).unwrap();
        match self.random(13) {
            0..4 => {
                let id = format!("event-{}", ids.len());
                ids.push(id.clone());
                senders.spawn(self.clone().delivers(id));
            }
            4..6 => {
                let again = self.rng.lock().unwrap().choice(ids.iter()).cloned();
                if let Some(id) = again {
                    senders.spawn(self.clone().delivers(id));
                }
            }
            6..8 => {
                if let Some(process) = self.taken(replica) {
                    process.wire.cut();
                    sleep(Duration::from_secs(self.random(4) * 5)).await;
                    self.starts(replica).await;
                }
            }
            8 => {
                if let Some(mut process) = self.taken(replica) {
                    process.stop.cancel();
                    // One that lost the Lease has an error to tell.
                    (&mut process.service).await.unwrap().ok();
                    process.wire.cut();
                    self.starts(replica).await;
                }
            }
            9 => {
                let habits = [Habit::Refuses, Habit::Answers(500), Habit::Hangs];
                let habit = habits[usize::try_from(self.random(3)).unwrap()];
                keptn.distributor(habit);
                sleep(Duration::from_secs(self.random(100))).await;
                keptn.distributor(Habit::Works);
            }
            10 => {
                cluster.is_away(true);
                sleep(Duration::from_secs(self.random(40))).await;
                cluster.is_away(false);
            }
            11 => cluster.forget_clients(),
            _ => {
                let habits = [
                    WatchHabit::Sound,
                    WatchHabit::Ends,
                    WatchHabit::Compacted,
                    WatchHabit::Late,
                    WatchHabit::Repeats,
                ];
                cluster.has_watches_that(habits[usize::try_from(self.random(5)).unwrap()]);
            }
        }
    }
}

async fn schedule(seed: u64) -> Result<(), String> {
    // The pauses between attempts are drawn at random, too.
    fastrand::seed(seed);
    let mut rng = Rng::with_seed(seed);
    let scenario = &SCENARIOS[rng.usize(..SCENARIOS.len())];
    let (replicas, steps) = (rng.usize(1..=2), rng.usize(3..25));
    let world = World::of(scenario);
    if !scenario.is_answered() {
        // Its Jobs are all that a silent run leaves to tell a late duplicate by.
        let kept = scenario.config.replace(": 60}", ": 86400}");
        world.keptn.has("dev/svc", "job/config.yaml", kept);
    }
    let deployment = Deployment {
        world: Arc::new(world),
        processes: Arc::new(Mutex::new((0..replicas).map(|_| None).collect())),
        rng: Arc::new(Mutex::new(rng)),
    };
    for replica in 0..replicas {
        deployment.starts(replica).await;
    }
    let (mut senders, mut ids) = (JoinSet::new(), Vec::new());
    for _ in 0..steps {
        sleep(Duration::from_millis(deployment.random(3000))).await;
        deployment.step(&mut senders, &mut ids).await;
        deployment.restarts_what_ended().await;
    }
    let World { keptn, cluster, .. } = &*deployment.world;
    cluster.has_watches_that(WatchHabit::Sound);
    let calm = async {
        senders.join_all().await;
        cluster.all_reported().await;
        // For whatever may come too late or too often.
        sleep(Duration::from_secs(300)).await;
    };
    let restarting = async {
        loop {
            sleep(Duration::from_secs(1)).await;
            deployment.restarts_what_ended().await;
        }
    };
    tokio::select! {
        () = calm => {}
        () = restarting => {}
    }
    deployment
        .world
        .check(&ids)
        .and_then(|()| {
            let unanswered = |id: &&String| deployment.world.answers(id).is_empty();
            match ids.iter().find(unanswered) {
                Some(id) if scenario.is_answered() => Err(format!("{id} was not answered")),
                _ if scenario.is_answered() => Ok(()),
                _ if keptn.events().is_empty() => Ok(()),
                _ => Err("a silent run was answered".into()),
            }
        })
        .map_err(|broken| format!("{broken}\n{}", deployment.world.transcript.text()))
}

fn seeds_of(text: &str) -> Result<Range<u64>, std::num::ParseIntError> {
    match text.split_once("..") {
        Some((from, to)) => Ok(from.parse()?..to.parse()?),
        None => text.parse().map(|seed: u64| seed..seed + 1),
    }
}

#[test]
fn whatever_happens_in_whatever_order_each_event_is_answered_once() {
    let seeds = match std::env::var("SCHEDULE_SEED") {
        Ok(seeds) => seeds_of(&seeds).expect("SCHEDULE_SEED is a number, or two with `..` between"),
        Err(_) => SEEDS,
    };
    if seeds.end - seeds.start == 1 {
        telemetry::start("info", None);
    }
    std::thread::scope(|scope| {
        for half in 0..2 {
            let seeds = seeds.clone().skip(half).step_by(2);
            scope.spawn(move || {
                for seed in seeds {
                    if let Err(broken) = on_paused_clock(schedule(seed)) {
                        panic!("SCHEDULE_SEED={seed}: {broken}");
                    }
                }
            });
        }
    });
}
