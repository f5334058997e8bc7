//! What to do next about the Lease, from what is known of it. Pure.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use tokio::time::Instant;

use super::{Identity, Standing};

/// Annotation: somebody waits for the Lease, and wants to see that its holder lives.
pub(super) const CHALLENGE: &str = "keptn.sh/jes-challenge";

/// How often a process that waits asks. With [`TAKE_OVER_AFTER`] and a second for the calls, a dead
/// holder is replaced within 4 + 12 + 1 = 17 seconds.
const CHALLENGE_EVERY: Duration = Duration::from_secs(4);

/// How long a challenge stays without an answer before the Lease changes hands.
pub(super) const TAKE_OVER_AFTER: Duration = Duration::from_secs(12);

/// A holder that has been challenged and then hears nothing for this long, less than
/// [`TAKE_OVER_AFTER`], may have lost its watch and the Lease with it.
const DOUBT_AFTER: Duration = Duration::from_secs(10);

/// Between two looks at whether the holder is still there, while it does not answer.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The Lease, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) version: String,
    /// None where it was given back.
    pub(super) holder: Option<String>,
    pub(super) challenge: Option<String>,
    pub(super) transitions: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Wait,
    Create,
    Take,
    /// Ask the holder for a sign of life.
    Challenge,
    /// Give it.
    Answer,
    /// Read the Lease: what the watch shows may be old, or missing.
    Confirm,
    /// Find out whether the holder is gone.
    Look,
}

/// All that this process knows of the Lease.
pub(super) struct Known {
    lease: LeaseKnown,
    leading: Option<Instant>,
    lost: Option<String>,
    /// When a call last showed that this process holds the Lease.
    proven: Instant,
    /// Whether somebody has been waiting since then.
    rival: bool,
    /// Since when the watch may show less than there is.
    blind: Option<Instant>,
    /// The challenge on the Lease, and when it was first seen there.
    challenged: Option<(String, Instant)>,
    /// When the last challenge was seen answered.
    answered: Option<Instant>,
    /// The holder that was looked for, when, and whether it is gone.
    looked: Option<(String, Instant, bool)>,
    paused: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LeaseKnown {
    Unread,
    None,
    /// By the watch, which may be behind.
    Watched(View),
    /// By a call.
    Read(View),
}

impl View {
    pub(super) fn of(lease: &Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        Self {
            version: lease.resource_version().unwrap_or_default(),
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            challenge: lease.annotations().get(CHALLENGE).cloned(),
            transitions: spec.lease_transitions.unwrap_or(0),
        }
    }
}

impl Known {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            lease: LeaseKnown::Unread,
            leading: None,
            lost: None,
            proven: now,
            rival: false,
            blind: None,
            challenged: None,
            answered: None,
            looked: None,
            paused: now,
        }
    }

    pub(super) fn view(&self) -> Option<&View> {
        match &self.lease {
            LeaseKnown::Unread | LeaseKnown::None => None,
            LeaseKnown::Watched(view) | LeaseKnown::Read(view) => Some(view),
        }
    }

    /// The watch shows the Lease, or that there is none.
    pub(super) fn saw(&mut self, view: Option<View>, now: Instant) {
        self.note(view.as_ref(), now);
        self.lease = view.map_or(LeaseKnown::None, LeaseKnown::Watched);
    }

    /// A call showed the Lease, or that there is none.
    pub(super) fn learned(&mut self, view: Option<View>, me: &Identity, now: Instant) {
        let holder = view.as_ref().and_then(|view| view.holder.clone());
        if holder == Some(me.to_string()) {
            self.leading = self.leading.or(Some(now));
            // Whoever waits asks more often than this: nobody does any more.
            self.rival &= now < self.proven + DOUBT_AFTER;
            self.proven = now;
            self.blind = None;
        } else if self.leading.is_some() {
            // Without a Lease it is made anew; of several who do so, one succeeds.
            self.lost = holder;
        }
        self.note(view.as_ref(), now);
        self.lease = view.map_or(LeaseKnown::None, LeaseKnown::Read);
    }

    fn note(&mut self, view: Option<&View>, now: Instant) {
        let challenge = view.and_then(|view| view.challenge.as_ref());
        // Whoever changes the Lease is not gone.
        if let Some((_, _, gone)) = &mut self.looked {
            *gone = false;
        }
        match (challenge, &self.challenged) {
            (Some(challenge), Some((known, _))) if challenge == known => {}
            (Some(challenge), _) => {
                self.challenged = Some((challenge.clone(), now));
                self.rival |= self.leading.is_some();
            }
            (None, Some(_)) => {
                self.challenged = None;
                self.answered = Some(now);
            }
            (None, None) => {}
        }
    }

    /// The watch was interrupted, or the API server is: an answer to a challenge may have been missed, so
    /// that its time begins again, and a challenge to this process, which is certain of nothing any more.
    pub(super) fn is_blind(&mut self, now: Instant) {
        self.blind = self.blind.or(Some(now));
        if let Some((_, since)) = &mut self.challenged {
            *since = now;
        }
    }

    pub(super) fn looked(&mut self, gone: bool, now: Instant) {
        let holder = self.view().and_then(|view| view.holder.clone());
        self.looked = holder.map(|holder| (holder, now, gone));
    }

    pub(super) fn is_paused_until(&mut self, until: Instant) {
        self.paused = until;
    }

    pub(super) fn standing(&self) -> Standing {
        match (self.leading, &self.lease) {
            (Some(since), _) => Standing::Leading(since),
            // A holder that is gone leaves the Lease in a moment.
            (None, LeaseKnown::Watched(view) | LeaseKnown::Read(view)) if self.is_there(view) => {
                Standing::Standby
            }
            (None, _) => Standing::Unknown,
        }
    }

    /// Whether the holder was looked for and found.
    fn is_there(&self, view: &View) -> bool {
        let looked = self.looked.as_ref();
        looked.is_some_and(|(of, _, gone)| view.holder.as_ref() == Some(of) && !gone)
    }

    /// Who holds the Lease that this process held.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// From when on another process may hold the Lease that this one held.
    pub(super) fn doubt(&self) -> Option<Instant> {
        self.leading?;
        let rivalled = self.rival.then(|| self.proven + DOUBT_AFTER);
        self.blind.into_iter().chain(rivalled).min()
    }

    /// When [`Self::step`] may have something new, without any news.
    pub(super) fn wake(&self, now: Instant) -> Instant {
        let never = now + Duration::from_secs(3600);
        let next = match (&self.leading, &self.challenged) {
            (Some(_), _) => self.doubt().unwrap_or(never),
            (None, Some((_, since))) => {
                let looked = self.looked.as_ref().map_or(*since, |(_, at, _)| *at);
                (looked.max(*since) + LOOK_EVERY).min(*since + TAKE_OVER_AFTER)
            }
            (None, None) => self.answered.map_or(never, |at| at + CHALLENGE_EVERY),
        };
        // After a step that failed everything may be due at once.
        if self.paused > now {
            return self.paused;
        }
        next
    }

    pub(super) fn step(&self, me: &Identity, now: Instant) -> Step {
        if now < self.paused {
            return Step::Wait;
        }
        let view = match &self.lease {
            LeaseKnown::Unread => return Step::Wait,
            LeaseKnown::None => return Step::Create,
            LeaseKnown::Watched(view) | LeaseKnown::Read(view) => view,
        };
        let Some(holder) = &view.holder else {
            return Step::Take;
        };
        if *holder == me.to_string() {
            if self.leading.is_none() {
                // An earlier life of this process held it.
                return Step::Take;
            }
            if view.challenge.is_some() {
                return Step::Answer;
            }
            if self.doubt().is_some_and(|from| now >= from) {
                return Step::Confirm;
            }
            return Step::Wait;
        }
        if self.leading.is_some() {
            return Step::Confirm;
        }
        let looked = self.looked.as_ref().filter(|(of, _, _)| of == holder);
        let Some((_, looked, gone)) = looked else {
            return Step::Look;
        };
        match &self.challenged {
            _ if *gone => Step::Take,
            Some((_, since)) if now >= *since + TAKE_OVER_AFTER => Step::Take,
            Some((_, since)) if now >= *looked.max(since) + LOOK_EVERY => Step::Look,
            None if self.answered.is_none_or(|at| now >= at + CHALLENGE_EVERY) => Step::Challenge,
            Some(_) | None => Step::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Identity {
        Identity::Process {
            host: "here".into(),
            id: 1,
        }
    }

    fn lease(holder: &str, challenge: Option<&str>) -> View {
        View {
            version: "7".into(),
            holder: Some(holder.to_owned()).filter(|holder| !holder.is_empty()),
            challenge: challenge.map(str::to_owned),
            transitions: 0,
        }
    }

    struct Story {
        known: Known,
        now: Instant,
        told: Vec<String>,
    }

    impl Story {
        fn of(seen: Option<View>) -> Self {
            let now = Instant::now();
            let mut known = Known::new(now);
            known.saw(seen, now);
            let mut story = Self {
                known,
                now,
                told: Vec::new(),
            };
            story.tell();
            story
        }

        fn tell(&mut self) {
            let step = self.known.step(&me(), self.now);
            self.told.push(format!("{step:?}"));
        }

        fn saw(mut self, view: View) -> Self {
            self.known.saw(Some(view), self.now);
            self.tell();
            self
        }

        fn learned(mut self, view: View) -> Self {
            self.known.learned(Some(view), &me(), self.now);
            self.tell();
            self
        }

        fn looked(mut self, gone: bool) -> Self {
            self.known.looked(gone, self.now);
            self.tell();
            self
        }

        fn after(mut self, seconds: u64) -> Self {
            self.now += Duration::from_secs(seconds);
            self.tell();
            self
        }

        fn steps(&self) -> String {
            self.told.join(" ")
        }
    }

    #[test]
    fn a_lease_without_a_holder_is_taken_at_once() {
        assert_eq!(Story::of(None).steps(), "Create");
        assert_eq!(Story::of(Some(lease("", None))).steps(), "Take");
        // The same Pod, whose container was started again.
        assert_eq!(Story::of(Some(lease("here#1", None))).steps(), "Take");
        let gone = Story::of(Some(lease("other#2", None))).looked(true);
        assert_eq!(gone.steps(), "Look Take");
    }

    #[test]
    fn a_holder_that_answers_keeps_the_lease() {
        let story = Story::of(Some(lease("other#2", None)))
            .looked(false)
            .learned(lease("other#2", Some("a")))
            .after(1)
            .saw(lease("other#2", None))
            .after(3)
            .after(1)
            .learned(lease("other#2", Some("b")));
        assert_eq!(
            story.steps(),
            "Look Challenge Wait Wait Wait Wait Challenge Wait"
        );
    }

    #[test]
    fn a_holder_that_does_not_answer_is_replaced() {
        let story = Story::of(Some(lease("other#2", Some("of a third one"))))
            .looked(false)
            .after(2)
            .looked(false)
            .after(1)
            .after(9);
        assert_eq!(story.steps(), "Look Wait Look Wait Wait Take");
        // While the watch is away an answer would not be seen.
        let mut blind = Story::of(Some(lease("other#2", Some("a")))).looked(false);
        blind.now += Duration::from_secs(11);
        blind.known.is_blind(blind.now);
        assert_eq!(
            blind.after(11).looked(false).after(1).steps(),
            "Look Wait Look Wait Take"
        );
    }

    #[test]
    fn a_holder_answers_and_doubts_only_while_somebody_waits() {
        let alone = Story::of(None).learned(lease("here#1", None)).after(3000);
        assert_eq!(alone.steps(), "Create Wait Wait");
        assert!(alone.known.doubt().is_none());

        let rivalled = Story::of(None)
            .learned(lease("here#1", None))
            .saw(lease("here#1", Some("a")))
            .learned(lease("here#1", None))
            .after(3)
            .saw(lease("here#1", Some("b")))
            .after(8);
        assert_eq!(
            rivalled.steps(),
            "Create Wait Answer Wait Wait Answer Answer"
        );
        let doubts = |from| from <= rivalled.now;
        assert!(rivalled.known.doubt().is_some_and(doubts));
        let proven = rivalled.learned(lease("here#1", None));
        assert!(proven.known.doubt().is_none());
    }

    #[test]
    fn a_holder_whose_watch_is_interrupted_is_certain_of_nothing_until_it_has_read_the_lease() {
        let mut alone = Story::of(None).learned(lease("here#1", None)).after(3000);
        alone.known.is_blind(alone.now);
        assert_eq!(alone.known.doubt(), Some(alone.now));
        let proven = alone.after(0).learned(lease("here#1", None));
        assert_eq!(proven.steps(), "Create Wait Wait Confirm Wait");
        assert!(proven.known.doubt().is_none());
    }

    #[test]
    fn what_the_watch_shows_late_deposes_nobody() {
        let late = Story::of(None)
            .learned(lease("here#1", None))
            .saw(lease("other#2", None));
        assert_eq!(late.steps(), "Create Wait Confirm");
        assert_eq!(late.known.lost(), None);
        let lost = late.learned(lease("other#2", None));
        assert_eq!(lost.known.lost(), Some("other#2"));
    }
}
