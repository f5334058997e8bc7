//! Seconds that a task names, and what they come to.

use crate::job_config::Task;
use crate::resolve::{DEFAULT_TIME_LIMIT, MIN_TTL};

/// Kubernetes doubles the pause before each retry, from 10 s up to 6 minutes.
const FIRST_PAUSE: u32 = 10;
const LONGEST_PAUSE: u32 = 360;

/// The field, what is wrong with it, and what to do.
pub(super) fn too_short(task: &Task) -> Vec<(&'static str, String, Option<String>)> {
    let mut found = Vec::new();
    let limit = task
        .max_poll_duration
        .map_or(DEFAULT_TIME_LIMIT, Into::into);
    let retries = u8::from(task.retries);
    let pauses = pauses(retries);
    if retries > 0 && limit < pauses {
        let field = match task.max_poll_duration {
            Some(_) => "maxPollDuration",
            None => "retries",
        };
        let message = format!(
            "`retries: {retries}` waits {pauses} s between the attempts, and `maxPollDuration`, which covers \
             all of them, is {limit} s"
        );
        let help = format!("set `maxPollDuration` to {pauses} plus what the attempts take");
        found.push((field, message, Some(help)));
    }
    if let Some(ttl) = task.ttl_seconds_after_finished.map(u32::from)
        && ttl < MIN_TTL
    {
        let message = format!("the Job is kept for {MIN_TTL} s, which is the least");
        found.push(("ttlSecondsAfterFinished", message, None));
    }
    found
}

fn pauses(retries: u8) -> u32 {
    let pause = |attempt: u8| {
        let doubled = 1_u32.checked_shl(attempt.into()).unwrap_or(u32::MAX);
        FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE)
    };
    (0..retries).map(pause).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_is_twice_as_long_up_to_six_minutes() {
        for (retries, seconds) in [
            (0, 0),
            (1, 10),
            (2, 30),
            (5, 310),
            (6, 630),
            (7, 990),
            (10, 2070),
        ] {
            assert_eq!(pauses(retries), seconds, "{retries}");
        }
    }
}
