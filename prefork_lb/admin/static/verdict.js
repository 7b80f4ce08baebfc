// The headline: what an operator would say of the instance in one sentence, and below it the reasons, each a link to its server.
import {attribute, by, element, text} from "./dom.js";
import {clock, count, duration, listed, many} from "./format.js";

const CAUSES = 4;
const PLAIN = {in_flight: "requests in flight", retries: "retries", queue: "queue", max_connections: "all servers' connections"};

export const inWords = (tripped) => listed(tripped.map((name) => PLAIN[name] ?? name));

export class Verdict {
  #headline = by("verdict");
  #causes = by("causes");
  #drawn = "";

  /** `reveal(server)` shows a server in the list. */
  constructor(reveal) {
    this.reveal = reveal;
  }

  draw(model) {
    const {tone, headline, causes} = judge(model);
    attribute(this.#headline, "data-tone", tone);
    text(this.#headline, headline);
    document.title = tone === "bad" || tone === "wary" ? `${headline} prefork_lb` : "prefork_lb";
    const key = causes.map((cause) => cause.key).join();
    if (key !== this.#drawn) {
      this.#drawn = key;
      this.#causes.replaceChildren(...causes.map((cause) => this.#cause(cause)));
    }
    causes.forEach((cause, i) => text(this.#causes.children[i].lastElementChild, cause.why));
    this.#facts(model);
  }

  #cause({server, name, state}) {
    if (!server) return element("span", {class: "cause"}, element("span", {}, ""));
    const link = element("button", {type: "button", class: "cause", "data-state": state}, element("b", {}, name), element("span", {}, ""));
    link.addEventListener("click", () => this.reveal(server));
    return link;
  }

  #facts({instance, totals}) {
    const facts = [`version ${instance.version}`, `pid ${instance.master}`, `generation ${instance.generation}`,
                   `up ${duration(instance.now - instance.started)}`];
    if (totals.requests !== null) facts.push(many(totals.requests, "request"));
    if (!instance.controller) facts.push("no controller: no checks are made");
    if (!instance.statistics) facts.push("no statistics: restart to have them");
    text(by("facts"), facts.join("  ·  "));
    attribute(by("facts"), "title", `since ${clock(instance.started)}`);
  }
}

function judge(model) {
  const servers = model.servers, pools = [...model.pools.values()];
  if (!servers.length) return {tone: "idle", headline: pools.length ? "No pool has a server." : "No pools are configured.", causes: []};
  const problems = servers.filter((server) => server.isProblem);
  const empty = pools.filter((pool) => pool.servers.size && ![...pool.servers.values()].some((server) => server.data.usable));
  const tripped = pools.filter((pool) => pool.data.tripped.length);
  const causes = [...tripped.map(limitCause), ...problems.slice(0, CAUSES).map(serverCause)];
  if (problems.length > CAUSES) causes.push({key: "more", why: `and ${problems.length - CAUSES} more`});
  if (empty.length) {
    const names = listed(empty.map((pool) => pool.data.name));
    return {tone: "bad", headline: empty.length === 1 ? `Pool ${names} has no server to use.` : `Pools ${names} have no server to use.`, causes};
  }
  if (problems.length) {
    return {tone: problems.length * 2 > servers.length ? "bad" : "wary", causes,
            headline: `${problems.length} of ${many(servers.length, "server")} ${problems.length === 1 ? "is" : "are"} out.`};
  }
  if (tripped.length) return {tone: "wary", headline: `${listed(tripped.map((pool) => `Pool ${pool.data.name}`))} is at a limit.`, causes};
  const aside = servers.filter((server) => server.isAside).length;
  const wellOf = servers.length - aside;
  const headline = servers.length === 1 && !aside ? "The one server is well."
    : aside ? `${wellOf === 1 ? "1 server is" : `${count(wellOf)} servers are`} well, ${aside} set aside.` : `All ${count(servers.length)} servers are well.`;
  return {tone: "well", headline, causes: []};
}

const serverCause = (server) => ({
  key: `${server.data.pool} ${server.data.address} ${server.data.state}`, server, name: server.data.address, state: server.data.state,
  why: server.data.reason ? `${server.data.state}: ${server.data.reason}` : server.data.state,
});

const limitCause = (pool) => ({key: `limit ${pool.data.name}`, why: `Pool ${pool.data.name} is at its limit of ${inWords(pool.data.tripped)}.`});
