//! The status page in a browser, of the service at a desk. `chromedriver` and Chromium are Debian's packages
//! `chromium-driver` and `chromium`.

mod webdriver;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, Told, shell};
use super::triggered;
use crate::cli;
use crate::local::dev_told;
use crate::local::story::{Format, Story};
use webdriver::{Browser, Scripts};

const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';

/// Where a person's place on the page is.
const FOCUS: &str = "(at => at.id || at.getAttribute('href') || at.innerText || at.localName)(document.activeElement)";

/// Counts what the page does by itself, and tells pages that were loaded anew.
const WATCHED: &str = "(window.looks = 0, window.fetches = 0, window.refreshes = 0, \
     (later => window.setTimeout = (what, ms) => (window.looks++, later(what, ms)))(setTimeout), \
     (get => window.fetch = (...of) => (window.fetches++, get(...of)))(fetch), \
     new MutationObserver(() => window.refreshes++).observe(document.getElementById('live'), {childList: true}))";

/// A service with tasks that wait for the test's word.
struct Dev {
    desk: Desk,
    address: String,
    stop: CancellationToken,
    service: JoinHandle<anyhow::Result<()>>,
}

impl Dev {
    /// `tasks` are what an event `test` starts.
    async fn has(tasks: &[(&str, &str)]) -> Self {
        let desk = Desk::with("");
        let tasks = tasks.iter().map(|(name, script)| {
            let waits =
                |name: &str| format!("while [ ! -e {} ]; do sleep 0.02; done", desk.path(name));
            let script = script
                .replace("GO", &waits("go"))
                .replace("MORE", &waits("more"));
            shell(&json!(name).to_string(), &script, "")
        });
        let config = super::config(&tasks.collect::<String>());
        desk.has("job/config.yaml", &config);
        desk.has("events/a.json", &triggered("event-1").to_string());
        let (events, resources) = (desk.path("events"), desk.path("."));
        let settings = cli::dev_settings(&[
            "--test-events",
            &events,
            "--resources",
            &resources,
            "--rcv-port=0",
        ]);
        let told = Told::default();
        let stop = CancellationToken::new();
        let story = Story::new(Format::Text, Box::new(told.clone()));
        let service = tokio::spawn(dev_told(settings, story, stop.clone()));
        told.has("listening on").await;
        let port = told.text();
        let port = port.split("http://localhost:").nth(1).unwrap();
        let port = port.split('/').next().unwrap();
        Self {
            desk,
            address: format!("http://localhost:{port}"),
            stop,
            service,
        }
    }

    async fn browser(&self, scripts: Scripts) -> Browser {
        let browser = Browser::opens(scripts).await;
        browser.goes_to(&self.address).await;
        browser
    }

    async fn receives(&self, event: &Value) {
        let request = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = request
            .post(&self.address)
            .header("content-type", "application/cloudevents+json");
        request.body(event.to_string()).send().await.unwrap();
    }

    async fn shows_the_run(&self, browser: &Browser, event: &Value) {
        self.receives(event).await;
        browser.goes_to(&self.address).await;
        let run = browser.value("document.querySelector('.run a').href").await;
        browser.goes_to(run.as_str().unwrap()).await;
    }

    fn lets(&self, what: &str) {
        self.desk.has(what, "");
    }

    async fn ends(self, browser: Browser) {
        assert_eq!(browser.complaints().await, [""; 0]);
        drop(browser);
        self.lets("go");
        self.lets("more");
        self.stop.cancel();
        self.service.await.unwrap().unwrap();
    }
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn a_run_appears_and_goes_on_without_a_reload() {
    let dev = Dev::has(&[("wait", "GO; echo went"), ("last", "exit 3")]).await;
    let browser = dev.browser(Scripts::Run).await;
    assert!(browser.text("main").await.contains("No run yet"));
    browser.value(WATCHED).await;
    dev.receives(&triggered("event-2")).await;
    browser.sees("document.querySelector('.run .badge.running') && document.querySelector('.run rect.running')").await;
    assert_eq!(
        browser
            .value("document.querySelectorAll('rect').length")
            .await,
        1
    );
    dev.lets("go");
    browser.sees("document.querySelector('.run .badge.failed') && document.querySelector('.run rect.failed')").await;
    assert_eq!(
        browser
            .value("document.querySelectorAll('rect.succeeded').length")
            .await,
        1
    );
    assert!(browser.value("refreshes").await.as_u64() > Some(1));
    dev.ends(browser).await;
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn without_scripts_the_page_is_complete_and_loads_itself_anew() {
    let dev = Dev::has(&[("wait", "echo hello; GO")]).await;
    let browser = dev.browser(Scripts::Blocked).await;
    dev.shows_the_run(&browser, &triggered("event-2")).await;
    browser
        .sees("document.querySelector('pre')?.innerText == 'hello\\n'")
        .await;
    let page = browser.text("body").await;
    assert!(
        page.contains("running") && page.contains("sh.keptn.event.test.started"),
        "{page}"
    );
    assert!(!page.contains("Pause"), "{page}");
    let anew = "document.querySelector('meta[http-equiv=refresh]').content";
    assert_eq!(browser.value(anew).await, "3");
    dev.ends(browser).await;
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn all_of_it_is_reached_and_opened_by_the_keyboard() {
    let dev = Dev::has(&[("wait", "echo hello; GO")]).await;
    let browser = dev.browser(Scripts::Run).await;
    dev.shows_the_run(&browser, &triggered("event-2")).await;
    browser.sees("document.querySelector('pre')").await;
    for path in ["/", "/events", "THE RUN"] {
        if path == "THE RUN" {
            browser.goes_to(&dev.address).await;
            browser.sees("document.querySelector('.run a')").await;
            let link = browser
                .value("document.querySelector('.run a').pathname")
                .await;
            while browser.value(FOCUS).await != link {
                browser.presses(TAB).await;
            }
            browser.presses(ENTER).await;
            browser.sees("document.querySelector('pre')").await;
        } else {
            browser.goes_to(&format!("{}{path}", dev.address)).await;
        }
        let all = "document.querySelectorAll('a, button, input, select, summary, pre').length";
        let all = browser.value(all).await.as_u64().unwrap();
        for _ in 0..all {
            browser.presses(TAB).await;
            browser
                .value("(document.activeElement.dataset.reached = 1)")
                .await;
            let ring = "getComputedStyle(document.activeElement).outlineStyle";
            assert_eq!(
                browser.value(ring).await,
                "solid",
                "{}",
                browser.value(FOCUS).await
            );
        }
        let reached = browser
            .value("document.querySelectorAll('[data-reached]').length")
            .await;
        assert_eq!(reached, all, "{path}");
    }
    dev.ends(browser).await;
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn what_a_person_opened_and_reads_stays_as_it_is() {
    let dev = Dev::has(&[
        ("first", "echo hello"),
        (
            "wait",
            "seq 100; GO; seq 101 200; MORE; seq 201 300; sleep 60",
        ),
    ])
    .await;
    let browser = dev.browser(Scripts::Run).await;
    dev.shows_the_run(&browser, &triggered("event-2")).await;
    browser
        .sees("document.querySelectorAll('pre')[1]?.innerText.endsWith('100\\n')")
        .await;
    browser
        .value("(document.querySelector('summary').focus())")
        .await;
    browser.presses(ENTER).await;
    browser
        .value("(document.querySelectorAll('pre')[1].scrollTop = 70)")
        .await;
    dev.lets("go");
    browser
        .sees("document.querySelectorAll('pre')[1].innerText.endsWith('200\\n')")
        .await;
    let seen = "[document.querySelector('details').open, document.activeElement.innerText, document.querySelectorAll('pre')[1].scrollTop]";
    assert_eq!(browser.value(seen).await, json!([false, "first", 70]));
    // Who reads the end goes on reading the end.
    browser
        .value("(at => at.scrollTop = at.scrollHeight)(document.querySelectorAll('pre')[1])")
        .await;
    dev.lets("more");
    browser
        .sees("document.querySelectorAll('pre')[1].innerText.endsWith('300\\n')")
        .await;
    let rest = "(at => at.scrollHeight - at.scrollTop - at.clientHeight)(document.querySelectorAll('pre')[1])";
    assert!(browser.value(rest).await.as_f64() < Some(2.0));
    dev.ends(browser).await;
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn a_paused_page_asks_for_nothing() {
    let dev = Dev::has(&[("t", "echo hello")]).await;
    let browser = dev.browser(Scripts::Run).await;
    browser.value(WATCHED).await;
    browser
        .value("(document.querySelector('#refresh button').click(), fetches = looks = 0)")
        .await;
    browser.sees("looks > 1").await;
    assert_eq!(browser.value("fetches").await, 0);
    browser
        .value("(document.querySelector('#refresh button').click())")
        .await;
    browser.sees("fetches > 0").await;
    dev.ends(browser).await;
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn names_from_outside_are_text_that_fits_a_phone() {
    let long = "x".repeat(290);
    let image = "<img src=x onerror=window.caught=1>";
    let printed = format!("echo '{image} {long}'; exit 1");
    let name = format!("{image} \u{202e}gnp {long}");
    let dev = Dev::has(&[(&name, &printed)]).await;
    let browser = dev.browser(Scripts::Run).await;
    let mut event = triggered("event-2");
    event["data"] = json!({"project": image, "stage": "\u{202e}live", "service": long});
    event["source"] = long.as_str().into();
    let mut other = event.clone();
    other["id"] = image.into();
    other["type"] = format!("sh.keptn.event.{long}.triggered").into();
    dev.receives(&other).await;
    dev.shows_the_run(&browser, &event).await;
    browser
        .sees("document.querySelector('.summary .failed')")
        .await;
    let run = browser.value("location.pathname").await;
    browser.is_wide(360).await;
    for path in ["/", "/events", run.as_str().unwrap(), "/runs/NO"] {
        browser
            .goes_to(&format!("{}{}", dev.address, path.replace("NO", &long)))
            .await;
        let too_wide = "[...document.querySelectorAll('body *')].filter(at => at.getBoundingClientRect().right > 361).map(at => at.outerHTML)";
        assert_eq!(browser.value(too_wide).await, json!([]), "{path}");
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(browser.value(fits).await, true, "{path}");
        let caught = "document.images.length + (window.caught ?? 0)";
        assert_eq!(browser.value(caught).await, 0, "{path}");
        if path.contains("NO") {
            // A browser complains of what is not found.
            browser.complaints().await;
        } else {
            assert!(browser.text("main").await.contains(image));
        }
    }
    dev.ends(browser).await;
}

/// The contrast of each text with what it is on, where it is less than what WCAG 2 asks for at level AA.
const HARD_TO_READ: &str = r"(() => {
  const parts = colour => colour.match(/[\d.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = parts(colour).map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = at => {
    for (; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (parts(colour)[3] !== 0) return colour;
    }
  };
  const found = [];
  const check = (at, style) => {
    const [a, b] = [light(style.color), light(paper(at))].sort((a, b) => b - a);
    const contrast = (a + 0.05) / (b + 0.05);
    if (!(contrast >= 4.5)) found.push(`${contrast} of ${at.outerHTML}`);
  };
  for (const at of document.querySelectorAll('body, body *')) {
    if ([...at.childNodes].some(of => of.nodeType == 3 && of.data.trim())) check(at, getComputedStyle(at));
    if (at.placeholder) check(at, getComputedStyle(at, '::placeholder'));
  }
  return found;
})()";

#[tokio::test]
#[ignore = "needs Chromium"]
async fn text_can_be_read_in_light_and_dark() {
    let dev = Dev::has(&[("one", "echo hello"), ("two", "exit 1"), ("three", "true")]).await;
    let browser = dev.browser(Scripts::Run).await;
    let mut other = triggered("event-3");
    other["type"] = "sh.keptn.event.other.triggered".into();
    dev.receives(&other).await;
    dev.shows_the_run(&browser, &triggered("event-2")).await;
    browser
        .sees("document.querySelector('.summary .failed')")
        .await;
    let run = browser.value("location.pathname").await;
    let mut papers = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefers(scheme).await;
        for path in ["/", "/events", run.as_str().unwrap()] {
            browser.goes_to(&format!("{}{path}", dev.address)).await;
            assert_eq!(
                browser.value(HARD_TO_READ).await,
                json!([]),
                "{scheme} {path}"
            );
        }
        papers.push(
            browser
                .value("getComputedStyle(document.body).backgroundColor")
                .await,
        );
    }
    assert_ne!(papers[0], papers[1]);
    dev.ends(browser).await;
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn a_page_whose_service_is_gone_says_that_it_is_old() {
    let dev = Dev::has(&[("t", "echo hello")]).await;
    let browser = dev.browser(Scripts::Run).await;
    assert_eq!(browser.text("#refresh [role=status]").await, "");
    dev.stop.cancel();
    dev.service.await.unwrap().unwrap();
    browser.sees("document.querySelector('#refresh [role=status]').innerText.startsWith('What is shown is old: ')").await;
}
