// The dashboard: one stream in, one model, and the parts that draw it.
import {Actions} from "./actions.js";
import {call, identify, session, signIn, signOut} from "./api.js";
import {attribute, by, text} from "./dom.js";
import {Balancers, Feed, Splits, Workers} from "./feed.js";
import {duration} from "./format.js";
import {help, listen} from "./keys.js";
import {List} from "./list.js";
import {Model} from "./model.js";
import {Pools} from "./pools.js";
import {Stream} from "./stream.js";
import {Totals} from "./totals.js";
import {Verdict} from "./verdict.js";

const EVENTS = 100;
const AGAIN_MS = 1500;

const model = new Model();
const actions = new Actions(model);
const list = new List(draw);
const page = {session, menu: (row) => actions.menu(row), add: (pool) => actions.add(pool), sort: (name) => list.sortBy(name)};
const parts = {verdict: new Verdict(reveal), totals: new Totals(), pools: new Pools(page), feed: new Feed(reveal), workers: new Workers(), splits: new Splits((split) => actions.setSplit(split)), balancers: new Balancers()};
let isDue = false;
let lostAt = null;

/** Draw once before the next frame, however many messages came. */
function soon() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    draw();
  });
}

function draw() {
  if (!model.instance) return;
  const start = performance.now();
  parts.verdict.draw(model);
  parts.totals.draw(model);
  parts.pools.draw(model, list);
  parts.workers.draw(model);
  parts.splits.draw(model, actions.may);
  parts.balancers.draw(model);
  parts.feed.draw(model);
  performance.clearMeasures("draw");
  performance.measure("draw", {start, end: performance.now()}); // the newest one, for whoever asks what an update costs
}

/** Show a server in the list, whatever the list is narrowed to. */
function reveal(server) {
  if (!parts.pools.rowOf(server.data)?.root.isConnected) list.clear();
  list.focus(parts.pools.rowOf(server.data));
}

const stream = new Stream({
  snapshot(data) {
    model.snapshot(data);
    soon();
  },
  history(data) {
    model.history(data);
    soon();
  },
  delta(data) {
    if (!model.instance) return;
    model.delta(data);
    soon();
  },
  event(data) {
    model.take([data]);
    soon();
  },
  async opened() {
    lostAt = null;
    showLink();
    if (await admit()) catchUp();
  },
  lost() {
    lostAt ??= performance.now();
    showLink();
    admit();
  },
});

/** What has happened before this page was there, or while it was cut off. */
async function catchUp() {
  try {
    const {events} = await call("GET", `events?limit=${EVENTS}`);
    model.take(events);
    soon();
  } catch { /* The stream tells what happens from now on. */ }
}

/** Ask who this page is, and show what that role may. A page that needs a token shows the form. Returns whether it may look. */
async function admit() {
  try {
    await identify();
  } catch {
    return false;
  }
  const isKnown = session.role !== null;
  by("door").hidden = isKnown;
  by("page").inert = !isKnown;
  if (!isKnown) {
    stream.close();
    by("token").focus();
    return false;
  }
  for (const button of document.querySelectorAll("header.bar [data-change]")) button.hidden = !actions.may;
  by("leave").hidden = session.name === "local";
  showLink();
  soon();
  return true;
}

function showLink() {
  const root = by("link");
  const state = lostAt !== null ? "lost" : model.instance ? "live" : "waiting";
  attribute(root, "data-state", state);
  attribute(document.body, "data-stale", state === "lost" ? "" : null);
  const role = session.role === "reader" ? "live, read only" : "live";
  text(root.lastElementChild, state === "live" ? role : state === "waiting" ? "connecting" : lostFor());
}

function lostFor() {
  const seconds = (performance.now() - lostAt) / 1000;
  return seconds < 3 ? "reconnecting…" : `reconnecting… ${duration(seconds)}`;
}

setInterval(() => lostAt !== null && showLink(), 1000);

const THEMES = ["", "light", "dark"];

function turnTheme() {
  const now = document.documentElement.dataset.theme ?? "";
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  if (next) {
    document.documentElement.dataset.theme = next;
    localStorage.setItem("theme", next);
  } else {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("theme");
  }
  nameTheme();
}

function nameTheme() {
  const now = document.documentElement.dataset.theme;
  by("theme").title = `Colours: ${now ?? "as the system"} (t)`;
}

by("reload").addEventListener("click", () => actions.reload());
by("theme").addEventListener("click", turnTheme);
by("help").addEventListener("click", help);
by("leave").addEventListener("click", async () => {
  await signOut();
  location.reload();
});
by("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const wrong = event.target.querySelector(".wrong");
  wrong.hidden = true;
  try {
    await signIn(by("token").value);
  } catch (error) {
    wrong.textContent = error.message;
    wrong.hidden = false;
    return;
  }
  by("token").value = "";
  start();
});

async function start() {
  if (await admit()) stream.open();
  else if (by("door").hidden) {
    lostAt ??= performance.now();
    showLink();
    setTimeout(start, AGAIN_MS);
  }
}

nameTheme();
listen({list, actions, turnTheme});
start();
