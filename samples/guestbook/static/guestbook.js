// Shows new entries as they are written.  Without this script the page works; it only needs a reload.
"use strict";

const list = document.getElementById("entries");
const live = document.getElementById("live");
let stream = null;
let latest = "";

function show(event) {
  latest = event.lastEventId;
  if (document.getElementById(`entry-${event.lastEventId}`)) return;
  document.getElementById("empty")?.remove();
  // The piece of HTML comes from the same template as the page, which escapes what visitors wrote.
  list.insertAdjacentHTML("afterbegin", event.data);
  const entry = list.firstElementChild;
  entry.classList.add("new");
  live.textContent = `New: ${entry.querySelector("h3").textContent}`;
}

function listen() {
  const address = new URL(list.dataset.events, location.href);
  // Coming back to a page that the browser had kept: go on after the last entry seen.
  if (latest) address.searchParams.set("after", latest);
  stream = new EventSource(address);
  stream.addEventListener("entry", show);
  stream.addEventListener("open", () => live.classList.add("on"));
  stream.addEventListener("error", () => live.classList.remove("on"));
}

// A page that is left must not keep a thread of the server.
addEventListener("pagehide", () => stream.close());
addEventListener("pageshow", (event) => { if (event.persisted) listen(); });
listen();
