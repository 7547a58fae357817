// Keeps the page up to date: fetches it again and replaces the parts that changed. Without this script a reload does
// the same. Keyboard focus, scroll positions and opened tables stay where they are.
"use strict";

const EVERY_MS = 5000;
const place = document.getElementById("refresh");
const said = document.createElement("span");
const button = document.createElement("button");
button.type = "button";
let paused = false;
let timer = 0;

// With 24 hours, as in the pictures.
function now() {
  return new Date().toLocaleTimeString("en-GB");
}

function focusAfter(part, change) {
  const active = document.activeElement;
  const inside = active && part.contains(active);
  const focusable = "a[href], [tabindex]";
  const index = inside ? [...part.querySelectorAll(focusable)].indexOf(active) : -1;
  const scrolls = [...part.querySelectorAll(".wide")].map((box) => [box.scrollLeft, box.scrollTop]);
  const own = [part.scrollLeft, part.scrollTop];
  const id = inside ? active.id : "";
  change();
  [...part.querySelectorAll(".wide")].forEach((box, number) => {
    if (scrolls[number]) [box.scrollLeft, box.scrollTop] = scrolls[number];
  });
  [part.scrollLeft, part.scrollTop] = own;
  if (inside && active !== part) {
    const again = (id && document.getElementById(id)) || part.querySelectorAll(focusable)[index];
    if (again) again.focus({ preventScroll: true });
  }
}

function replace(fresh) {
  const selection = document.getSelection();
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    // Who is selecting text to copy keeps it.
    const selecting = selection && !selection.isCollapsed && part.contains(selection.anchorNode);
    if (!next || selecting || next.outerHTML === part.outerHTML) continue;
    if (next.tagName !== part.tagName) part.replaceWith(document.importNode(next, true));
    else focusAfter(part, () => { part.innerHTML = next.innerHTML; });
  }
}

async function update() {
  let text = "";
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (answer.status === 401) { location.reload(); return; }
    if (!answer.ok) throw new Error(String(answer.status));
    replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
    text = `As of ${now()}`;
  } catch {
    text = "The daemon does not answer";
  }
  said.textContent = text;
}

async function tick() {
  if (!paused && !document.hidden) await update();
  clearTimeout(timer);
  timer = setTimeout(tick, EVERY_MS);
}

function show() {
  button.textContent = paused ? "Resume updates" : "Pause updates";
}

button.addEventListener("click", () => { paused = !paused; show(); if (!paused) tick(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) tick(); });
show();
said.textContent = `As of ${now()}`;
place.replaceChildren(said, button);
timer = setTimeout(tick, EVERY_MS);
