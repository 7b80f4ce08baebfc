// What is known of the instance: the last snapshot with all deltas applied, and the histories of its numbers.
import {History, RecentCodes} from "./history.js";

const EVENTS_KEPT = 200;
const OFTEN_S = 0.7;
const PROBLEMS = new Set(["down", "ejected", "trial"]);
const ASIDE = new Set(["draining", "maintenance"]);
export const BADNESS = ["down", "ejected", "trial", "checking", "maintenance", "draining", "up", "ready"];

export class Server {
  rate = new History();
  latency = new History();
  codes = new RecentCodes();

  constructor(data) {
    this.data = data;
  }

  get isProblem() { return PROBLEMS.has(this.data.state); }
  get isAside() { return ASIDE.has(this.data.state); }

  /** The share of 5xx in the last minute. */
  get errorShare() {
    const counts = this.codes.counts();
    const all = counts[0] + counts[1] + counts[2] + counts[3];
    return all ? counts[3] / all : 0;
  }

  sample() {
    this.rate.push(this.data.rate);
    this.latency.push(this.data.latency_ms);
    this.codes.push(this.data.codes);
  }

  fill(lines) {
    if (!lines) return;
    this.rate.fill(lines.rate);
    this.latency.fill(lines.latency_ms);
    this.codes.since(lines.codes);
    this.codes.push(this.data.codes);
  }
}

export class Pool {
  rate = new History();
  p99 = new History();
  codes = new RecentCodes();
  /** @type {Map<string, Server>} by address */
  servers = new Map();

  take({servers, ...data}) {
    this.data = data;
    const before = this.servers;
    this.servers = new Map(servers.map((each) => {
      const kept = before.get(each.address) ?? new Server(each);
      kept.data = each;
      return [each.address, kept];
    }));
  }

  sample() {
    this.rate.push(this.data.rate);
    this.p99.push(this.data.p99_ms);
    this.codes.push(this.data.codes);
    for (const server of this.servers.values()) server.sample();
  }

  fill(lines) {
    if (!lines) return;
    this.rate.fill(lines.rate);
    this.p99.fill(lines.p99_ms);
    this.codes.since(lines.codes);
    this.codes.push(this.data.codes);
  }
}

export class Model {
  /** Of the snapshot: version, started, master, generation, controller, statistics, now. */
  instance = null;
  totals = {};
  workers = [];
  /** @type {Map<string, Pool>} by name */
  pools = new Map();
  /** Newest first. */
  events = [];
  /** Counts the snapshots: who has drawn an older one draws anew. */
  shape = 0;
  #sampled = 0;
  histories = Object.fromEntries(["rate", "error_rate", "p50_ms", "p99_ms", "in_flight", "clients", "waiting"].map((name) => [name, new History()]));

  snapshot({totals, workers, pools, ...instance}) {
    if (this.instance && this.instance.started !== instance.started) this.events = [];
    this.instance = instance;
    this.totals = totals;
    this.workers = workers;
    const before = this.pools;
    this.pools = new Map(pools.map((data) => {
      const pool = before.get(data.name) ?? new Pool();
      pool.take(data);
      return [data.name, pool];
    }));
    this.shape += 1;
    this.#sample();
  }

  delta({now, totals, workers, pools, servers, ...instance}) {
    Object.assign(this.instance, instance, {now});
    Object.assign(this.totals, totals);
    if (workers) this.workers = workers;
    for (const [name, changed] of Object.entries(pools ?? {})) Object.assign(this.pools.get(name)?.data ?? {}, changed);
    for (const [name, addresses] of Object.entries(servers ?? {})) {
      const known = this.pools.get(name)?.servers;
      for (const [address, changed] of Object.entries(addresses)) Object.assign(known?.get(address)?.data ?? {}, changed);
    }
    this.#sample();
  }

  /** What the instance has seen before this page was there. */
  history({totals, pools, servers}) {
    for (const [name, history] of Object.entries(this.histories)) history.fill(totals[name] ?? []);
    for (const [name, pool] of this.pools) {
      pool.fill(pools[name]);
      for (const [address, server] of pool.servers) server.fill(servers[name]?.[address]);
    }
  }

  /** Events may come twice, by the stream and by request. */
  take(events) {
    const known = new Set(this.events.map((event) => event.seq));
    const fresh = events.filter((event) => !known.has(event.seq));
    if (!fresh.length) return;
    this.events = [...fresh, ...this.events].sort((a, b) => b.seq - a.seq).slice(0, EVENTS_KEPT);
  }

  get servers() {
    return [...this.pools.values()].flatMap((pool) => [...pool.servers.values()]);
  }

  /** One sample a second; a look that a change has asked for comes in between. */
  #sample() {
    if (this.instance.now - this.#sampled < OFTEN_S) return;
    this.#sampled = this.instance.now;
    for (const [name, history] of Object.entries(this.histories)) history.push(this.totals[name]);
    for (const pool of this.pools.values()) pool.sample();
  }
}
