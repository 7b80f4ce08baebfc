// The pools as sections, each with its rows. The list decides which rows are shown, in which order, and which one is current.
import {arrange, attribute, by, copy, element, text} from "./dom.js";
import {count, many, millis} from "./format.js";
import {ServerRow, drawStack} from "./server_row.js";
import {inWords} from "./verdict.js";

const WIDTH = 120, HEIGHT = 28;
const NEAR = "240px"; // rows this far beyond the screen are drawn, too

class PoolSection {
  /** @type {Map<string, ServerRow>} */
  rows = new Map();

  constructor(pool, page, seen) {
    this.pool = pool;
    this.page = page;
    this.seen = seen;
    const root = this.root = copy("t-pool");
    const name = pool.data.name;
    const find = (selector) => root.querySelector(selector);
    this.body = find(".rows");
    this.how = find(".how");
    this.trips = find(".trips");
    this.scaling = find(".scaling");
    this.discovery = find(".discovery");
    this.add = find(".add");
    find("h2").textContent = name;
    find("h2").id = `pool-${name}`;
    root.setAttribute("aria-labelledby", `pool-${name}`);
    find(".table").setAttribute("aria-label", `Servers of ${name}`);
    this.add.addEventListener("click", () => page.add(this.pool));
    this.facts = Object.fromEntries(["requests/s", "latency p99", "in flight", "queue", "retries", "last minute"].map((label) => {
      const value = element("b"), unit = element("i");
      const made = {root: element("div", {}, element("dt", {}, label), element("dd", {}, value, unit)), value, unit};
      find(".facts").append(made.root);
      return [label, made];
    }));
    this.lines = {rate: this.#line("requests/s"), p99: this.#line("latency p99")};
    this.stack = element("span", {class: "stack", role: "img", "aria-label": "no responses yet"}, ...["c2", "c3", "c4", "c5"].map((part) => element("i", {class: part})));
    this.facts["last minute"].root.querySelector("dd").replaceChildren(this.stack);
    for (const button of root.querySelectorAll(".heads button")) button.addEventListener("click", () => page.sort(button.dataset.sort));
  }

  #line(label) {
    const spark = copy("t-total").querySelector("svg");
    spark.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    spark.querySelector(".area").remove();
    this.facts[label].root.querySelector("dd").append(spark);
    return spark.querySelector(".line");
  }

  /** After a snapshot: a row for each server, the same rows for the same servers. */
  match() {
    for (const [address, row] of this.rows) {
      const server = this.pool.servers.get(address);
      if (server === row.server) continue;
      this.seen.unobserve(row.root);
      row.root.remove();
      this.rows.delete(address);
    }
    for (const [address, server] of this.pool.servers) {
      if (this.rows.has(address)) continue;
      const row = new ServerRow(server, this.page);
      this.rows.set(address, row);
      this.seen.observe(row.root);
    }
    this.rows = new Map([...this.pool.servers.keys()].map((address) => [address, this.rows.get(address)]));
  }

  draw() {
    const {data} = this.pool;
    const said = [data.policy, data.mode !== "proxy" && data.mode, data.sticky && `sessions by ${data.sticky}`, many(this.pool.servers.size, "server")];
    text(this.how, said.filter(Boolean).join(" · "));
    this.#fact("requests/s", count(data.rate));
    this.#fact("latency p99", ...millis(data.p99_ms));
    this.#fact("in flight", count(data.in_flight), data.in_flight_limit ? `/ ${count(data.in_flight_limit)}` : "");
    this.#fact("queue", count(data.waiting), data.queue_size ? `/ ${count(data.queue_size)}` : "", !data.queue_size && !data.waiting);
    this.#fact("retries", count(data.retries), data.retries_limit ? `/ ${count(data.retries_limit)}` : "");
    attribute(this.lines.rate, "d", this.pool.rate.line(WIDTH, HEIGHT));
    attribute(this.lines.p99, "d", this.pool.p99.line(WIDTH, HEIGHT));
    const counts = this.pool.codes.counts();
    drawStack(this.stack, counts, counts.reduce((sum, number) => sum + number, 0));
    this.#drawTrips(data);
    this.#drawScaling(data.scaling);
    this.#drawDiscovery(data.discovery);
    this.add.hidden = this.page.session.role !== "operator";
    this.drawRows();
  }

  drawRows() {
    let busiest = 0;
    for (const server of this.pool.servers.values()) busiest = Math.max(busiest, server.data.in_flight);
    this.busiest = busiest;
    for (const row of this.rows.values()) row.draw(busiest);
  }

  #fact(label, value, unit = "", hidden = false) {
    text(this.facts[label].value, value);
    text(this.facts[label].unit, unit);
    this.facts[label].root.hidden = hidden;
  }

  #drawTrips(data) {
    const said = [];
    if (data.tripped.length) said.push(`At its limit: ${inWords(data.tripped)}.${data.refused ? ` ${count(data.refused)} refused so far.` : ""}`);
    if (data.panic) said.push("Too few servers pass their checks: all are used (panic mode).");
    text(this.trips, said.join(" "));
    this.trips.hidden = !said.length;
  }

  #drawScaling(scaling) {
    this.scaling.hidden = !scaling;
    if (!scaling) return;
    const counts = ["running", "starting", "ending"].filter((state) => scaling[state]).map((state) => `${count(scaling[state])} ${state}`);
    text(this.scaling, `Scaling: ${count(scaling.wanted)} wanted of ${count(scaling.max)} at most, ${counts.join(", ") || "none running"}${scaling.rolling ? ", being replaced" : ""}: ${scaling.why}.`);
  }

  #drawDiscovery(discovery) {
    this.discovery.hidden = !discovery;
    if (!discovery) return;
    const good = discovery.last_ok === null ? "no list yet" : `${many(discovery.servers, "server")}, last good ${new Date(1000 * discovery.last_ok).toLocaleTimeString()}`;
    text(this.discovery, `Discovery (${discovery.source ?? "unknown"}): ${good}${discovery.error ? `. ${discovery.state === "failing" ? "It fails" : "Problem"}: ${discovery.error}` : ""}.`);
  }
}

export class Pools {
  #root = by("servers");
  #sections = new Map();
  #shape = 0;
  #seen = new IntersectionObserver((entries) => {
    for (const {target, isIntersecting} of entries) {
      target.row.visible = isIntersecting;
      if (isIntersecting) target.row.draw(this.#sections.get(target.row.server.data.pool)?.busiest ?? 0);
    }
  }, {rootMargin: NEAR});

  constructor(page) {
    this.page = page;
  }

  draw(model, list) {
    if (model.shape !== this.#shape) {
      this.#shape = model.shape;
      this.#match(model);
    }
    list.choose(this.#sections.values());
    for (const section of this.#sections.values()) if (!section.root.hidden) section.draw();
  }

  #match(model) {
    for (const [name, section] of this.#sections) {
      if (model.pools.get(name) === section.pool) continue;
      for (const row of section.rows.values()) this.#seen.unobserve(row.root);
      section.root.remove();
      this.#sections.delete(name);
    }
    for (const [name, pool] of model.pools) {
      if (!this.#sections.has(name)) this.#sections.set(name, new PoolSection(pool, this.page, this.#seen));
      this.#sections.get(name).match();
    }
    this.#sections = new Map([...model.pools.keys()].map((name) => [name, this.#sections.get(name)]));
    arrange(this.#root, [by("nothing"), ...[...this.#sections.values()].map((section) => section.root)]);
  }

  rowOf({pool, address}) {
    return this.#sections.get(pool)?.rows.get(address);
  }
}
