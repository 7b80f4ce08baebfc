// The events, newest first, the workers, the splits and the balancers.
import {arrange, attribute, by, element, style, text} from "./dom.js";
import {clock, count, duration, many} from "./format.js";

const TONES = {
  "server-up": "well", "server-returned": "well", "server-down": "bad", "server-ejected": "bad", "worker-died": "bad", "server-trial": "wary", "limit-reached": "wary", exited: "wary", "given-up": "bad",
  "discovery-failed": "wary", "balancer-joined": "well", "balancer-left": "wary",
  admin: "hand", weight: "hand", limit: "hand", split: "hand", "server-added": "hand", "server-removed": "hand", audit: "hand",
};
const TITLES = {
  "server-up": "up", "server-down": "down", "server-ejected": "ejected", "server-trial": "on trial", "server-returned": "back", admin: "set by hand", weight: "weight", limit: "limit", split: "split",
  "server-added": "added", "server-removed": "removed", reload: "reload", "worker-started": "worker started", "worker-ended": "worker ended", "worker-died": "worker died",
  "controller-started": "controller started", "limit-reached": "limit reached", audit: "change",
  scaled: "scaled", started: "started", exited: "exited", "given-up": "given up", rolled: "rolled",
  discovered: "discovered", "discovery-failed": "discovery failed", "balancer-joined": "balancer joined", "balancer-left": "balancer left",
};

export class Feed {
  #root = by("feed");
  #items = new Map();
  #newest = null;

  constructor(reveal) {
    this.reveal = reveal;
  }

  draw(model) {
    const newest = model.events[0]?.seq ?? 0;
    if (newest === this.#newest) return;
    this.#newest = newest;
    const items = new Map(model.events.map((event) => [`${event.seq} ${event.at}`, event]));
    const nodes = [...items].map(([key, event]) => this.#items.get(key) ?? this.#item(event));
    this.#items = new Map([...items.keys()].map((key, i) => [key, nodes[i]]));
    arrange(this.#root, nodes.length ? nodes : [element("li", {class: "nothing"}, "Nothing has happened yet.")]);
  }

  #item(event) {
    const of = event.server || event.pool;
    const head = element("p", {}, element("b", {}, TITLES[event.kind] ?? event.kind), " ");
    if (event.server) {
      const link = element("button", {type: "button"}, of);
      link.addEventListener("click", () => this.reveal({data: {pool: event.pool, address: event.server}}));
      head.append(link);
    } else if (of) {
      head.append(element("span", {}, of));
    }
    const isHand = TONES[event.kind] === "hand" || event.kind === "reload";
    const said = isHand && event.who ? `${event.text}, by ${event.who}` : event.text;
    return element("li", {"data-tone": TONES[event.kind] ?? "idle"},
      element("time", {datetime: new Date(event.at * 1000).toISOString(), title: new Date(event.at * 1000).toLocaleString()}, clock(event.at)),
      element("div", {}, head, element("p", {class: "said"}, said)));
  }
}

export class Workers {
  #root = by("workers");
  #items = new Map();

  draw({workers, instance}) {
    const most = Math.max(8, ...workers.map((worker) => worker.in_flight));
    text(by("n-workers"), workers.length ? String(workers.length) : "");
    const items = new Map(workers.map((worker) => [worker.pid, this.#items.get(worker.pid) ?? this.#item(worker)]));
    this.#items = items;
    for (const worker of workers) {
      const item = items.get(worker.pid);
      text(item.figures, [`${count(worker.in_flight)} in flight`, worker.clients !== null && many(worker.clients, "client"), worker.lag_ms !== null && `lag ${lag(worker.lag_ms)}`].filter(Boolean).join(" · "));
      const old = worker.lingers_s ? `lingers for ${duration(worker.lingers_s)}` : worker.generation < instance.generation ? `generation ${worker.generation}` : "";
      text(item.old, old);
      attribute(item.root, "data-old", old ? "" : null);
      style(item.gauge, "--used", (worker.in_flight / most).toFixed(3));
    }
    arrange(this.#root, items.size ? [...items.values()].map((item) => item.root) : [this.#none ??= element("p", {class: "nothing"}, "No worker is at work.")]);
  }

  #none = null;

  #item({pid}) {
    const figures = element("span", {class: "figures"}), old = element("em"), gauge = element("span", {class: "gauge open", "aria-hidden": "true"}, element("i"));
    return {root: element("div", {class: "worker"}, element("p", {}, element("b", {}, String(pid)), old), gauge, figures), figures, old, gauge};
  }
}

/** The splits of routes. */
export class Splits {
  #root = by("split-list");
  #items = new Map();

  /** `change(split)` lets the viewer change one. */
  constructor(change) {
    this.change = change;
  }

  draw({instance}, may) {
    by("splits").hidden = !instance.splits.length;
    text(by("n-splits"), String(instance.splits.length));
    arrange(this.#root, instance.splits.map((split) => this.#item(split, may)));
  }

  #item(split, may) {
    const item = this.#items.get(split.id) ?? this.#new(split.id);
    item.split = split;
    text(item.name, `route ${split.route}`);
    text(item.asks, split.asks);
    text(item.weights, weightsInWords(split));
    item.button.hidden = !may;
    attribute(item.button, "aria-label", `Weights of route ${split.route}`);
    return item.root;
  }

  #new(id) {
    const name = element("b"), asks = element("em"), weights = element("span", {class: "figures"}), button = element("button", {type: "button", class: "tool"}, "Weights");
    const item = {root: element("div", {class: "worker split"}, element("p", {}, name, asks), button, weights), name, asks, weights, button, split: null};
    button.addEventListener("click", () => this.change(item.split));
    this.#items.set(id, item);
    return item;
  }
}

const weightsInWords = ({weights, weights_configured}) => Object.entries(weights).map(([pool, weight]) => `${pool} ${weight}${weight === weights_configured[pool] ? "" : "*"}`).join(" · ");

/** The balancers that share with this one. */
export class Balancers {
  #root = by("balancers");
  #items = new Map();

  draw({instance}) {
    const balancers = instance.cluster ?? [];
    by("cluster").hidden = !balancers.length;
    text(by("n-balancers"), String(balancers.length));
    arrange(this.#root, balancers.map((balancer) => this.#item(balancer)));
  }

  #item(balancer) {
    const item = this.#items.get(balancer.name) ?? this.#new(balancer);
    text(item.state, [balancer.self && "this one", balancer.checks && "checks for all"].filter(Boolean).join(", "));
    const said = balancer.together ? [`${count(balancer.in_flight)} in flight`, `reported ${balancer.silent_s.toFixed(1)}\u202fs ago`, `exchange ${lag(balancer.round_ms)}`] : ["goes on by itself; the error log says why"];
    text(item.figures, said.join(" · "));
    attribute(item.root, "data-old", balancer.together ? null : "");
    return item.root;
  }

  #new({name}) {
    const state = element("em"), figures = element("span", {class: "figures"});
    const item = {root: element("div", {class: "worker"}, element("p", {}, element("b", {}, name), state), figures), state, figures};
    this.#items.set(name, item);
    return item;
  }
}

const lag = (ms) => (ms >= 10 ? `${ms.toFixed(0)}\u202fms` : `${ms.toFixed(1)}\u202fms`);
