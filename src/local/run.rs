//! The command `run`: one event from its arrival to its last answer.

use std::sync::Arc;

use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::Instant;
use tower::ServiceExt;

use super::Desk;
use super::event_file::EventRequest;
use super::preview::{Preview, preview};
use super::signals::Signals;
use super::story::{RunResult, Story, Told};
use crate::cli::RunSettings;
use crate::endpoint::Router;
use crate::event::Event;

/// How the run ended.
pub(crate) fn main(settings: &RunSettings) -> anyhow::Result<RunResult> {
    settings.desk.start_logging();
    told(settings, Story::on_stdout(settings.desk.output))
}

/// The same, told to somebody else.
pub(crate) fn told(settings: &RunSettings, story: Story) -> anyhow::Result<RunResult> {
    let story = Arc::new(story.masking(settings.desk.masks()));
    let began = Instant::now();
    let bad_input = |reason: &str| Ok(ended(&story, RunResult::BadInput, reason, began));
    let (request, event) = match settings.event.read() {
        Ok(read) => read,
        Err(reason) => return bad_input(&reason),
    };
    story.tell(&Told::event(&event));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(run(settings, &story, request, &event));
    runtime.shutdown_background();
    let (result, reason) = result?;
    Ok(ended(&story, result, &reason, began))
}

/// With the reason, where there is one to tell.
async fn run(
    settings: &RunSettings,
    story: &Arc<Story>,
    request: EventRequest,
    event: &Event,
) -> anyhow::Result<(RunResult, String)> {
    let mut signals = Signals::new()?;
    let preview = preview(&settings.desk, event, story)?;
    let mut desk = Desk::new(&settings.desk, story).await?;
    let router = desk.router.clone();
    let ended = tokio::select! {
        ended = work(&router, story, request, preview) => ended?,
        error = desk.failed() => return Err(error),
        () = signals.next() => (RunResult::Interrupted, String::new()),
    };
    tokio::select! {
        stopped = desk.shut_down() => stopped?,
        // Whoever asks twice does not want to wait.
        () = signals.next() => {}
    }
    Ok(ended)
}

fn ended(story: &Story, result: RunResult, reason: &str, began: Instant) -> RunResult {
    let (tasks, failed) = story.tasks();
    story.tell(&Told::Ended {
        result,
        reason,
        tasks,
        failed,
        seconds: began.elapsed().as_secs_f64(),
    });
    result
}

async fn work(
    router: &Router,
    story: &Story,
    request: EventRequest,
    preview: Preview,
) -> anyhow::Result<(RunResult, String)> {
    if let Preview::BadInput(reason) = preview {
        return Ok((RunResult::BadInput, reason));
    }
    let (status, answer) = post(router, request).await?;
    let refused = match preview {
        Preview::NoConfig(reason) => return Ok((RunResult::NothingMatched, reason)),
        Preview::NoAction => {
            let reason = "no action is for this event";
            return Ok((RunResult::NothingMatched, reason.into()));
        }
        Preview::Invalid | Preview::BadInput(_) => {
            return Ok((RunResult::BadInput, "the config is invalid".into()));
        }
        Preview::Run { refused } => refused,
    };
    if status != 202 {
        let reason = format!("the service answered {status}: {answer}");
        return Ok((RunResult::BadInput, reason));
    }
    let (jobs, _) = story.tasks();
    if jobs > 0 {
        story.run_is_over().await;
    }
    // A run of silent actions has no answer that tells.
    let (_, failed) = story.tasks();
    let status = |event: &Value| event["data"]["status"].as_str().map(str::to_owned);
    let errored = match story.events().iter().find_map(status) {
        Some(status) => status == "errored",
        None => refused || failed > 0,
    };
    let result = if errored {
        RunResult::Errored
    } else {
        RunResult::Succeeded
    };
    Ok((result, String::new()))
}

/// Status and text of the service's answer.
async fn post(router: &Router, request: EventRequest) -> anyhow::Result<(u16, String)> {
    let response = router.clone().oneshot(request.into_http()).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).trim().to_owned()))
}
