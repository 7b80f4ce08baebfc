// Which servers are shown, in which order, and which row is the current one.
import {arrange, attribute, by, text} from "./dom.js";
import {BADNESS} from "./model.js";

const SETTLE = 4; // draws between two sorts by a number that moves: rows must not dance
const ASCENDING = new Set(["address", "state"]);

const ORDER = {
  address: (a, b) => a.data.address.localeCompare(b.data.address, "en", {numeric: true}),
  state: (a, b) => BADNESS.indexOf(a.data.state) - BADNESS.indexOf(b.data.state),
  in_flight: (a, b) => b.data.in_flight - a.data.in_flight,
  rate: (a, b) => b.data.rate - a.data.rate,
  latency_ms: (a, b) => (b.data.latency_ms ?? -1) - (a.data.latency_ms ?? -1),
  error: (a, b) => b.errorShare - a.errorShare,
  weight: (a, b) => b.data.weight - a.data.weight,
};

export class List {
  show = "all";
  words = "";
  sort = "";
  #draws = 0;
  #current = null;

  /** `changed()` is called when the viewer has chosen anew. */
  constructor(changed) {
    const again = () => {
      this.#draws = 0;
      changed();
    };
    by("search").addEventListener("input", ({target}) => {
      this.words = target.value.trim().toLowerCase();
      again();
    });
    for (const chip of document.querySelectorAll("[data-show]")) {
      chip.addEventListener("click", () => {
        this.show = this.show === chip.dataset.show ? "all" : chip.dataset.show;
        again();
      });
    }
    by("sort").addEventListener("change", ({target}) => this.sortBy(target.value));
    by("servers").addEventListener("focusin", ({target}) => this.#makeCurrent(target.closest(".server")));
    this.changed = again;
  }

  sortBy(name) {
    this.sort = this.sort === name ? "" : name;
    by("sort").value = this.sort;
    this.changed();
  }

  toggleProblems() {
    this.show = this.show === "problems" ? "all" : "problems";
    this.changed();
  }

  clear() {
    this.show = "all";
    this.words = by("search").value = "";
    this.changed();
  }

  /** Put the chosen rows into each pool's section, and hide the sections that have none. */
  choose(sections) {
    // While a row is pointed at or has the focus, it stays where it is.
    const held = this.#draws > 0 && document.querySelector(".rows:hover, .rows:focus-within");
    const sorting = this.#draws++ % SETTLE === 0 && !held;
    let problems = 0, aside = 0, all = 0, shown = 0, pools = 0;
    for (const section of sections) {
      pools += 1;
      const chosen = [];
      for (const row of section.rows.values()) {
        all += 1;
        problems += row.server.isProblem;
        aside += row.server.isAside;
        if (this.#isChosen(row.server.data, row.server)) chosen.push(row);
      }
      shown += chosen.length;
      this.#place(section, chosen, sorting);
      section.root.hidden = !chosen.length && (section.rows.size > 0 || this.#isNarrowed);
    }
    this.#tell({problems, aside, all, shown, pools});
  }

  get #isNarrowed() { return this.show !== "all" || this.words !== ""; }

  #isChosen(data, server) {
    if (this.show === "problems" && !server.isProblem) return false;
    if (this.show === "aside" && !server.isAside) return false;
    return !this.words || `${data.address} ${data.pool} ${data.state} ${data.reason}`.toLowerCase().includes(this.words);
  }

  #place(section, chosen, sorting) {
    if (this.sort) {
      if (sorting || !section.order) section.order = new Map([...section.rows.values()].sort((a, b) => ORDER[this.sort](a.server, b.server)).map((row, i) => [row, i]));
      chosen.sort((a, b) => (section.order.get(a) ?? Infinity) - (section.order.get(b) ?? Infinity));
    } else {
      section.order = null;
    }
    const same = section.placed?.length === chosen.length && chosen.every((row, i) => row === section.placed[i]);
    if (!same) {
      section.placed = chosen;
      arrange(section.body, chosen.map((row) => row.root));
    }
    for (const button of section.root.querySelectorAll("[data-sort]")) {
      attribute(button.parentElement, "aria-sort", button.dataset.sort !== this.sort ? null : ASCENDING.has(this.sort) ? "ascending" : "descending");
    }
  }

  #tell({problems, aside, all, shown, pools}) {
    text(by("n-all"), all ? String(all) : "");
    text(by("n-problems"), problems ? String(problems) : "");
    text(by("n-aside"), aside ? String(aside) : "");
    for (const chip of document.querySelectorAll("[data-show]")) attribute(chip, "aria-pressed", String(chip.dataset.show === this.show));
    const nothing = by("nothing");
    nothing.hidden = shown > 0 || (pools > 0 && !this.#isNarrowed);
    text(nothing, !pools ? "The configuration has no pool." : this.words ? `No server matches “${this.words}”.`
      : this.show === "problems" ? "No server has a problem." : "No server is set aside.");
    if (!this.#current?.root.isConnected) this.#makeCurrent(document.querySelector(".server"), false);
  }

  /** The row that keys act on, or null. */
  get current() {
    return document.activeElement?.closest?.(".server")?.row ?? null;
  }

  move(step) {
    const rows = [...document.querySelectorAll(".server")];
    const at = this.#current ? rows.indexOf(this.#current.root) : -1;
    const from = this.current ? at + step : at;
    this.focus(rows[Math.max(0, Math.min(rows.length - 1, from))]?.row);
  }

  focus(row) {
    if (!row) return;
    row.root.focus({preventScroll: true});
    row.root.scrollIntoView({block: "nearest"});
  }

  /** One row is reached by Tab, the others by j and k. */
  #makeCurrent(root) {
    if (!root || root.row === this.#current) return;
    this.#current?.root.setAttribute("tabindex", "-1");
    root.setAttribute("tabindex", "0");
    this.#current = root.row;
  }
}
