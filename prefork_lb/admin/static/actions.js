// What an operator can change from the page. Each change is asked about, is made only when the server is as it was shown (If-Match), and
// can be undone for as long as its message stands.
import {Refused, call, pathOf, session} from "./api.js";
import {many} from "./format.js";
import {ask, menu, toast} from "./overlays.js";

const STATES = {
  drain: {verb: "Drain", done: "drains", key: "d"},
  ready: {verb: "Make ready", done: "is ready", key: "r"},
  maintenance: {verb: "Take out for maintenance", done: "is in maintenance", key: "m"},
};

const inFlight = ({in_flight}) => (in_flight ? `What it has in flight may finish: ${many(in_flight, "request")}.` : "It has no request in flight.");

export class Actions {
  constructor(model) {
    this.model = model;
  }

  get may() { return session.role === "operator"; }

  menu(row) {
    const {server} = row;
    menu(row.parts.dots, row.root, server.data.address, [
      ...Object.entries(STATES).filter(([admin]) => admin !== server.data.admin).map(([admin, {verb, key}]) => ({label: verb, key, run: () => this.setAdmin(server, admin)})),
      {label: "Weight", key: "w", run: () => this.setWeight(server)},
      {label: "Limit", key: "l", run: () => this.setLimit(server)},
      {label: "Remove", key: "x", grave: true, run: () => this.remove(server)},
    ]);
  }

  setAdmin(server, admin) {
    const {address} = server.data;
    const {verb, done} = STATES[admin];
    const shown = {...server.data};
    if (server.data.admin === admin) {
      toast(`${address} ${done} already.`);
      return;
    }
    ask({title: `${verb}: ${address}`, confirm: verb, grave: this.#isLast(server) && admin !== "ready",
         says: [this.#whatFollows(server, admin), admin !== "ready" && this.#isLast(server) && `It is the only server of ${server.data.pool} that can be used: requests will be refused.`],
         submit: () => this.#change(server, shown, {admin}, {admin: shown.admin}, `${address} ${done}.`)});
  }

  #whatFollows({data}, admin) {
    const running = inFlight(data);
    if (admin === "drain" && this.model.pools.get(data.pool).data.sticky) return `It gets no new sessions; those that it has may stay. ${running}`;
    if (admin === "drain") return `It gets no new requests. ${running}`;
    if (admin === "maintenance") return `It gets no new requests and no checks. ${running}`;
    return "It gets requests again, as far as its checks allow it.";
  }

  #isLast(server) {
    const pool = this.model.pools.get(server.data.pool);
    return server.data.usable && [...pool.servers.values()].every((other) => other === server || !other.data.usable);
  }

  setWeight(server) {
    this.#setNumber(server, "weight", {title: "Weight", min: 1, max: 1000, says: "Its share of the requests, beside the weights of its pool's other servers."});
  }

  setLimit(server) {
    this.#setNumber(server, "max_connections", {title: "Limit", min: 0, max: 1_000_000, says: "The most requests that it is given at the same time. 0: no limit."});
  }

  #setNumber(server, name, {title, min, max, says}) {
    const data = {...server.data}; // as it is shown while the dialog is open
    const configured = data[`${name}_configured`];
    ask({title: `${title}: ${data.address}`, confirm: "Set", says: [says],
         fields: [{name, label: title, type: "number", min, max, step: 1, inputmode: "numeric", value: data[name], placeholder: configured,
                   hint: `The configuration has ${configured}. Empty: as configured.`}],
         submit: (values) => {
           const wanted = values[name] === "" ? null : Number(values[name]);
           const said = wanted === null ? `${title} of ${data.address}: ${configured}, as configured.` : `${title} of ${data.address}: ${wanted}, was ${data[name]}.`;
           return this.#change(server, data, {[name]: wanted}, {[name]: data[name] === configured ? null : data[name]}, said);
         }});
  }

  setSplit(split) {
    const shown = {...split}, configured = shown.weights_configured;
    ask({title: `Weights of route ${shown.route}`, confirm: "Set", says: [`It asks for: ${shown.asks}.`, "Each pool's share of the requests, by weight. 0: it gets none."],
         fields: Object.entries(shown.weights).map(([pool, weight]) => ({name: pool, label: pool, type: "number", min: 0, max: 1_000_000, step: 1, inputmode: "numeric", value: weight, placeholder: configured[pool],
           hint: `The configuration has ${configured[pool]}. Empty: as configured.`})),
         submit: async (values) => {
           const changed = Object.entries(values).filter(([pool, value]) => value !== String(shown.weights[pool]));
           const wanted = Object.fromEntries(changed.map(([pool, value]) => [pool, value === "" ? null : Number(value)]));
           if (!changed.length) return;
           const before = Object.fromEntries(Object.entries(shown.weights).map(([pool, weight]) => [pool, weight === configured[pool] ? null : weight]));
           const path = `splits/${shown.id}`;
           const now = await this.#patch(path, {weights: wanted}, shown.etag, `the split of route ${shown.route}`);
           toast(`Route ${shown.route}: ${Object.entries(now?.weights ?? wanted).map(([pool, weight]) => `${pool} ${weight}`).join(", ")}.`,
             {undo: () => this.#undo(() => this.#patch(path, {weights: before}, now?.etag, `the split of route ${shown.route}`))});
         }});
  }

  remove(server) {
    const data = {...server.data};
    if (data.source === "discovery" || data.source === "scaling") {
      toast(`${data.address} is there by ${data.source}, which alone removes it. Drain it to take it out.`);
      return;
    }
    ask({title: `Remove: ${data.address}`, confirm: "Remove", grave: true,
         says: [inFlight(data),
                this.#isLast(server) ? `It is the only server of ${data.pool} that can be used: requests will be refused.` : "",
                data.origin === "configuration" ? "The configuration names it: the next reload brings it back." : "It was added at run time: it is gone for good."],
         submit: async () => {
           const {address, weight, max_connections, backup, admin} = data;
           await call("DELETE", `${pathOf(data)}?force=true`, {match: data.etag});
           toast(`${address} is removed from ${data.pool}.`, {undo: () => this.#undo(async () => {
             const added = await call("POST", `pools/${encodeURIComponent(data.pool)}/servers`, {body: {address, weight, max_connections, backup}});
             if (admin !== "ready") await call("PATCH", pathOf(data), {body: {admin}, match: added?.etag});
           })});
         }});
  }

  add(pool) {
    const name = pool.data.name;
    ask({title: `Add a server to ${name}`, confirm: "Add",
         fields: [{name: "address", label: "Address", required: true, placeholder: "10.0.0.7:8001", hint: "HOST:PORT, [IPv6]:PORT or unix:/PATH"},
                  {name: "weight", label: "Weight", type: "number", min: 1, max: 1000, value: 1, required: true},
                  {name: "max_connections", label: "Limit", type: "number", min: 0, max: 1_000_000, value: 0, required: true, hint: "The most requests at the same time; 0: no limit."},
                  {name: "backup", label: "Backup: used when no other server is left", type: "checkbox"}],
         submit: async ({address, weight, max_connections, backup}) => {
           const body = {address, weight: Number(weight), max_connections: Number(max_connections), backup};
           const added = await call("POST", `pools/${encodeURIComponent(name)}/servers`, {body});
           const at = {pool: name, address: added?.address ?? address};
           toast(`${at.address} is added to ${name}.`, {undo: () => this.#undo(() => call("DELETE", `${pathOf(at)}?force=true`))});
         }});
  }

  reload() {
    ask({title: "Reload the configuration", confirm: "Reload",
         says: ["The file is checked first. Then new workers take over; requests and connections of the old ones go on."],
         submit: async () => {
           await call("POST", "reload", {body: {}});
           toast("The reload has begun.");
         }});
  }

  /**
   * PATCH, if the server is still as `shown`; with a message that offers the way back: PATCH of `before`, if the server is still as
   * this change left it.
   */
  async #change(server, shown, after, before, said) {
    const {pool, address} = shown;
    const path = pathOf({pool, address});
    const now = await this.#patch(path, after, shown.etag, address);
    if (now) Object.assign(server.data, now);
    toast(said, {undo: () => this.#undo(async () => {
      const again = await this.#patch(path, before, now?.etag, address);
      if (again) Object.assign(server.data, again);
    })});
  }

  async #patch(path, body, match, address) {
    try {
      return await call("PATCH", path, {body, match});
    } catch (error) {
      if (error.status !== 412) throw error;
      throw new Refused(412, `Somebody else has changed ${address} in the meantime. Nothing was changed here: look at it again, and repeat.`);
    }
  }

  async #undo(back) {
    try {
      await back();
      toast("Undone.");
    } catch (error) {
      toast(`Not undone. ${error.message}`, {grave: true});
    }
  }
}
