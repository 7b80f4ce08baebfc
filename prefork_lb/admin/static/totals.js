// The strip of totals: a number, its unit, and the last minute and a half as a line.
import {attribute, by, copy, text} from "./dom.js";
import {count, millis} from "./format.js";

const WIDTH = 200, HEIGHT = 40;

const TOTALS = [
  {name: "rate", label: "Requests", unit: "/s", wide: true},
  {name: "error_rate", label: "Errors", unit: "/s", alarming: true},
  {name: "p50_ms", label: "Latency p50", time: true, title: "Half of the requests of the last ten seconds took at most this long"},
  {name: "p99_ms", label: "Latency p99", time: true, title: "99 of 100 requests of the last ten seconds took at most this long"},
  {name: "in_flight", label: "In flight"},
  {name: "clients", label: "Clients", title: "Open client connections"},
  {name: "waiting", label: "Waiting", alarming: true, title: "Requests in the pools' queues"},
];

export class Totals {
  #parts = TOTALS.map((total) => {
    const root = copy("t-total");
    root.classList.toggle("wide", Boolean(total.wide));
    root.querySelector("dt").textContent = total.label;
    if (total.title) root.title = total.title;
    root.querySelector("svg").setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    by("totals").append(root);
    return {total, root, value: root.querySelector("b"), unit: root.querySelector("i"),
            line: root.querySelector(".line"), area: root.querySelector(".area")};
  });

  draw(model) {
    for (const {total, root, value, unit, line, area} of this.#parts) {
      const now = model.totals[total.name];
      const [shown, its] = total.time ? millis(now) : [count(now), total.unit ?? ""];
      text(value, shown);
      text(unit, its);
      root.classList.toggle("alarming", Boolean(total.alarming && now > 0));
      const data = model.histories[total.name].line(WIDTH, HEIGHT);
      attribute(line, "d", data);
      attribute(area, "d", model.histories[total.name].area(WIDTH, HEIGHT, data));
    }
  }
}
