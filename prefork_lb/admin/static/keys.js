// The keyboard. A letter acts on the row that has the focus.
import {by, element} from "./dom.js";
import {tell, toast} from "./overlays.js";

const HELP = [
  ["/", "search"], ["j  k", "next, previous server"], ["Enter", "what can be done with it"], ["d", "drain"], ["r", "make ready"], ["m", "maintenance"], ["w", "weight"], ["l", "limit"],
  ["x", "remove"], ["p", "problems only"], ["u", "undo the last change"], ["t", "light, dark, as the system"], ["Esc", "clear the search"], ["?", "this help"],
];

export function help() {
  tell("Keyboard", element("dl", {class: "keys"}, ...HELP.flatMap(([key, does]) => [
    element("dt", {}, ...key.split("  ").map((each) => element("kbd", {}, each))), element("dd", {}, does)])),
    element("p", {class: "note"}, "A number with * was set at run time and differs from the configuration."));
}

/** `page` has list, actions, turnTheme(). */
export function listen({list, actions, turnTheme}) {
  const onRow = {
    Enter: (row) => actions.menu(row),
    d: ({server}) => actions.setAdmin(server, "drain"),
    r: ({server}) => actions.setAdmin(server, "ready"),
    m: ({server}) => actions.setAdmin(server, "maintenance"),
    w: ({server}) => actions.setWeight(server),
    l: ({server}) => actions.setLimit(server),
    x: ({server}) => actions.remove(server),
  };
  const anywhere = {
    "/": () => by("search").focus(),
    j: () => list.move(1),
    k: () => list.move(-1),
    p: () => list.toggleProblems(),
    t: turnTheme,
    u: () => [...document.querySelectorAll("[data-undo]")].at(-1)?.click(),
    "?": help,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !by("door").hidden || document.querySelector("dialog[open], [popover]:popover-open")) return;
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "Escape") {
      list.clear();
      if (typing) event.target.blur();
      return;
    }
    if (typing) {
      if (event.key === "Enter" && event.target.id === "search") list.move(1);
      return;
    }
    if (event.key === "Enter" && event.target.matches("button, a")) return;
    const act = anywhere[event.key];
    if (act) {
      event.preventDefault();
      act();
    } else if (onRow[event.key] && list.current) {
      event.preventDefault();
      if (actions.may) onRow[event.key](list.current);
      else toast("You may look, and change nothing: your token is a reader's.");
    }
  });
}
