//! The command `run`: one event from its arrival to its last answer.

use std::sync::Arc;

use http::{Request, header};
use http_body_util::BodyExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tower::ServiceExt;

use super::Desk;
use super::event_file::EventRequest;
use super::story::{RunResult, Story, Told};
use crate::cli::RunSettings;
use crate::endpoint::{Body, Router};
use crate::event::Event;

/// How the run ended.
pub(crate) fn main(settings: &RunSettings) -> anyhow::Result<RunResult> {
    let story = Arc::new(Story::on_stdout(settings.desk.output));
    let request = match settings.event.read() {
        Ok(request) => request,
        Err(reason) => return Ok(ended(&story, RunResult::BadInput, &reason, Instant::now())),
    };
    let event = match request.event() {
        Ok(event) => event,
        Err(reason) => return Ok(ended(&story, RunResult::BadInput, &reason, Instant::now())),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(run(settings, &story, request, &event));
    runtime.shutdown_background();
    result
}

async fn run(
    settings: &RunSettings,
    story: &Arc<Story>,
    request: EventRequest,
    event: &Event,
) -> anyhow::Result<RunResult> {
    let began = Instant::now();
    let envelope = &event.envelope;
    story.tell(&Told::Event {
        id: &envelope.id,
        event_type: envelope.event_type.as_str(),
        project: envelope.scope.project.as_deref(),
        stage: envelope.scope.stage.as_deref(),
        service: envelope.scope.service.as_deref(),
    });
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let desk = Desk::new(&settings.desk, story).await?;
    let (result, reason) = tokio::select! {
        result = work(&desk, story, request) => result?,
        _ = interrupt.recv() => (RunResult::Interrupted, String::new()),
        _ = terminate.recv() => (RunResult::Interrupted, String::new()),
    };
    tokio::select! {
        ended = desk.shut_down() => ended?,
        // Whoever asks twice does not want to wait.
        _ = interrupt.recv() => {}
    }
    Ok(ended(story, result, &reason, began))
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

/// With the reason, where there is one to tell.
async fn work(
    desk: &Desk,
    story: &Story,
    request: EventRequest,
) -> anyhow::Result<(RunResult, String)> {
    let (status, answer) = post(&desk.router, request).await?;
    if status == 200 {
        return Ok((RunResult::NothingMatched, answer));
    }
    if status != 202 {
        return Ok((RunResult::BadInput, answer));
    }
    let (jobs, _) = story.tasks();
    if jobs > 0 {
        story.runs_over(1).await;
    }
    let (_, failed) = story.tasks();
    let errored = |event: &serde_json::Value| event["data"]["status"] == "errored";
    let result = if failed > 0 || story.events().iter().any(errored) {
        RunResult::Errored
    } else {
        RunResult::Succeeded
    };
    Ok((result, String::new()))
}

/// Status and text of the service's answer.
async fn post(router: &Router, request: EventRequest) -> anyhow::Result<(u16, String)> {
    let mut message = Request::post("/").body(Body::from(request.body))?;
    let mut headers = request.headers;
    // The body is whole here, whatever its sender said.
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::TRANSFER_ENCODING);
    *message.headers_mut() = headers;
    let response = router.clone().oneshot(message).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).trim().to_owned()))
}
