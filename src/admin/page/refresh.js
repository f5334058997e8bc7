// Fetches the page again and puts its live part in place. Without this script the page is complete,
// and is loaded anew as a whole.
"use strict";

// No answer comes later than this, in milliseconds.
const PATIENCE = 10000;

let next = Number(document.currentScript.dataset.next);
const status = document.getElementById("refresh");
const button = document.createElement("button");
let paused = false;
let timer;

button.type = "button";
button.textContent = "Pause";
button.setAttribute("aria-pressed", "false");
button.addEventListener("click", () => {
  paused = !paused;
  button.setAttribute("aria-pressed", String(paused));
  button.textContent = paused ? "Paused" : "Pause";
  if (!paused) look();
});
status.append("Refreshes itself. ", button, " ");
const problem = document.createElement("span");
problem.setAttribute("role", "status");
status.append(problem);

// What a person is reading or has opened stays as it is.
function keep(live) {
  const opened = new Map();
  for (const part of live.querySelectorAll("details[id]")) opened.set(part.id, part.open);
  const scrolled = new Map();
  for (const part of live.querySelectorAll("pre[id]")) {
    const atEnd = part.scrollTop + part.clientHeight >= part.scrollHeight - 4;
    scrolled.set(part.id, [atEnd && part.scrollTop > 0, part.scrollTop, part.scrollLeft]);
  }
  const focused = document.activeElement;
  const links = [...live.querySelectorAll("a, summary, pre")];
  const place = links.indexOf(focused);
  const key = focused && (focused.id || focused.getAttribute("href"));
  return () => {
    for (const [id, open] of opened) {
      const part = document.getElementById(id);
      if (part) part.open = open;
    }
    for (const [id, [atEnd, top, left]] of scrolled) {
      const part = document.getElementById(id);
      if (part) {
        part.scrollTop = atEnd ? part.scrollHeight : top;
        part.scrollLeft = left;
      }
    }
    if (place < 0) return;
    const parts = [...live.querySelectorAll("a, summary, pre")];
    const same = parts.find((part) => key && (part.id === key || part.getAttribute("href") === key));
    (same || parts[place])?.focus({ preventScroll: true });
  };
}

function isBusy() {
  const selection = document.getSelection();
  return paused || document.hidden || (selection && !selection.isCollapsed);
}

async function look() {
  clearTimeout(timer);
  try {
    if (!isBusy()) {
      const answer = await fetch(location.href, {
        headers: { accept: "text/html" },
        signal: AbortSignal.timeout(PATIENCE),
      });
      if (!answer.ok) throw new Error(`the service answered ${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const [before, after] = ["live", "live"].map((id, n) => (n ? page : document).getElementById(id));
      if (after && !isBusy()) {
        const restore = keep(before);
        before.replaceChildren(...after.childNodes);
        restore();
        const [old, now] = [document, page].map((of) => of.querySelector("footer time"));
        old.replaceWith(now);
        next = Number(page.querySelector("script[data-next]").dataset.next);
      }
      problem.textContent = "";
    }
  } catch (error) {
    problem.textContent = `What is shown is old: ${error.message}`;
  }
  timer = setTimeout(look, next);
}

document.addEventListener("visibilitychange", () => document.hidden || look());
timer = setTimeout(look, next);
