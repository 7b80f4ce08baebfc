// One server as a row. A row is drawn when it is near the screen, and writes only what has changed.
import {attribute, copy, style, text} from "./dom.js";
import {clock, count, millis} from "./format.js";

const WIDTH = 60, HEIGHT = 20;
const FAILED_S = 600; // a failure is told for so long
const CELLS_UP_TO = 32; // a limit up to this is drawn as that many cells
const WORDS = {up: "up", ready: "ready", down: "down", checking: "checking", ejected: "ejected", trial: "on trial", draining: "draining", maintenance: "maintenance"};

export class ServerRow {
  visible = false;
  #drawnRate = -1;
  #drawnLatency = -1;
  #changesShown = null;

  /** `page` has session (the role) and menu(row): show what can be done. */
  constructor(server, page) {
    this.server = server;
    this.page = page;
    const root = this.root = copy("t-server");
    root.row = this;
    const find = (selector) => root.querySelector(selector);
    this.parts = {
      use: find("use"), address: find(".address"), word: find(".reason b"), reason: find(".reason span"),
      gauge: find(".gauge"), used: find(".load b"), limit: find(".load .n i"), rateLine: find(".rate path"), rate: find(".rate .n"),
      latencyLine: find(".latency path"), latency: find(".latency .n"), stack: find(".stack"), errors: find(".codes .n"),
      weight: find(".weight .n"), dots: find(".dots"),
    };
    for (const spark of root.querySelectorAll(".spark")) spark.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.parts.address.textContent = server.data.address;
    this.parts.dots.setAttribute("aria-label", `Actions for ${server.data.address}`);
    this.parts.dots.addEventListener("click", () => page.menu(this));
  }

  /** `busiest`: the most requests in flight of a server in its pool, which a server without a limit is drawn against. */
  draw(busiest) {
    if (!this.visible) return;
    const {data} = this.server;
    attribute(this.root, "data-state", data.state);
    attribute(this.parts.use, "href", `#s-${data.state}`);
    text(this.parts.word, WORDS[data.state] ?? data.state);
    text(this.parts.reason, said(data));
    this.#drawLoad(data, busiest);
    this.#drawLines(data);
    this.#drawCodes();
    text(this.parts.weight, data.weight === data.weight_configured ? String(data.weight) : `${data.weight}*`);
    attribute(this.parts.weight, "title", data.weight === data.weight_configured ? null : `set at run time; the configuration has ${data.weight_configured}`);
    const may = this.page.session.role === "operator";
    if (may !== this.#changesShown) {
      this.#changesShown = may;
      this.parts.dots.hidden = !may;
    }
  }

  #drawLoad(data, busiest) {
    const limit = data.max_connections;
    const most = limit || Math.max(busiest, 1);
    style(this.parts.gauge, "--used", Math.min(1, data.in_flight / most).toFixed(4));
    style(this.parts.gauge, "--cells", limit && limit <= CELLS_UP_TO ? String(limit) : "1");
    attribute(this.parts.gauge, "class", `gauge${limit ? "" : " open"}${limit && data.in_flight >= limit ? " full" : ""}`);
    text(this.parts.used, count(data.in_flight));
    text(this.parts.limit, limit ? ` / ${count(limit)}${limit === data.max_connections_configured ? "" : "*"}` : "");
  }

  #drawLines(data) {
    const {rate, latency} = this.server;
    if (rate.version !== this.#drawnRate) {
      this.#drawnRate = rate.version;
      attribute(this.parts.rateLine, "d", rate.line(WIDTH, HEIGHT));
    }
    if (latency.version !== this.#drawnLatency) {
      this.#drawnLatency = latency.version;
      attribute(this.parts.latencyLine, "d", latency.line(WIDTH, HEIGHT));
    }
    text(this.parts.rate, count(data.rate));
    text(this.parts.latency, millis(data.latency_ms).join("\u202f").trim());
  }

  #drawCodes() {
    const counts = this.server.codes.counts();
    const all = counts.reduce((sum, number) => sum + number, 0);
    drawStack(this.parts.stack, counts, all);
    text(this.parts.errors, all && counts[3] ? `${percent(counts[3] / all)}` : "");
  }
}

/** Responses by class, as shares of a bar; the text says them in words. */
export function drawStack(stack, counts, all) {
  attribute(stack, "class", all ? "stack" : "stack none");
  counts.forEach((number, i) => style(stack.children[i], "flex-grow", all ? (number / all).toFixed(4) : "0"));
  const said = all ? `last minute: ${["2xx", "3xx", "4xx", "5xx"].map((name, i) => `${count(counts[i])} ${name}`).join(", ")}` : "no responses in the last minute";
  attribute(stack, "aria-label", said);
  attribute(stack, "title", said);
}

function percent(share) {
  return share >= 0.1 ? `${Math.round(share * 100)}\u202f%` : `${(share * 100).toFixed(share < 0.001 ? 2 : 1)}\u202f%`;
}

/** Why a server is in its state, or what is to be said of one that is well. */
function said(data) {
  if (data.reason) return data.sessions_left ? `${data.reason}; ${data.sessions_left}` : data.reason;
  const said = [];
  if (data.backup) said.push("backup");
  if (data.origin === "runtime") said.push(data.source === "operator" ? "added at run time" : `by ${data.source}`);
  if (data.note) said.push(data.note);
  if (data.failed_at && Date.now() / 1000 - data.failed_at < FAILED_S) said.push(`failed at ${clock(data.failed_at)}: ${data.failure}`);
  if (data.sessions) said.push(`${count(data.sessions)} sessions`);
  return said.join(" · ");
}
