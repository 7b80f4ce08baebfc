// What lies over the page: a question with its fields, the menu of a row, short messages with an undo.
import {by, element} from "./dom.js";

/**
 * Ask in a dialog. `submit(values)` does the thing; what it raises is shown and the dialog stays open. Resolves to whether it was done.
 * Fields: {name, label, hint?, ...attributes of the input}.
 */
export function ask({title, says = [], fields = [], confirm, grave = false, submit}) {
  const dialog = by("ask");
  const wrong = element("p", {class: "wrong", role: "alert", hidden: true});
  const go = element("button", {type: "submit", class: grave ? "primary grave" : "primary"}, confirm);
  const no = element("button", {type: "button"}, "Cancel");
  const form = element("form", {}, element("h2", {id: "ask-title"}, title), ...says.filter(Boolean).map((said) => element("p", {}, said)),
    ...fields.map(field), wrong, element("div", {class: "answers"}, no, go));
  dialog.replaceChildren(form);
  return new Promise((resolve) => {
    let done = false;
    no.addEventListener("click", () => dialog.close());
    closeBeside(dialog);
    dialog.onclose = () => resolve(done);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      go.disabled = true;
      try {
        await submit(values(form));
        done = true;
        dialog.close();
      } catch (error) {
        wrong.textContent = error.message;
        wrong.hidden = false;
        go.disabled = false;
      }
    });
    dialog.showModal();
    (form.querySelector("input") ?? go).focus();
    form.querySelector("input")?.select();
  });
}

/** A click beside the form closes it. The handler returns nothing: false would keep the form from being sent. */
function closeBeside(dialog) {
  dialog.onclick = ({target}) => {
    if (target === dialog) dialog.close();
  };
}

function field({name, label, hint, ...attributes}) {
  const input = element("input", {name, autocomplete: "off", spellcheck: "false", ...attributes});
  const note = hint ? [element("small", {}, hint)] : [];
  return attributes.type === "checkbox" ? element("label", {class: "field check"}, input, element("span", {}, label), ...note)
    : element("label", {class: "field"}, element("span", {}, label), input, ...note);
}

function values(form) {
  return Object.fromEntries([...form.elements].filter((each) => each.name).map((each) => [each.name, each.type === "checkbox" ? each.checked : each.value.trim()]));
}

/** Something to read: a dialog with one way out. */
export function tell(title, ...content) {
  const dialog = by("ask");
  const close = element("button", {type: "button", class: "primary"}, "Close");
  close.addEventListener("click", () => dialog.close());
  dialog.replaceChildren(element("form", {method: "dialog"}, element("h2", {id: "ask-title"}, title), ...content, element("div", {class: "answers"}, close)));
  dialog.onclose = null;
  closeBeside(dialog);
  dialog.showModal();
  close.focus();
}

/** A menu at `anchor` of {label, key, run, grave?}; the arrow keys move in it. The focus goes back to `home`. */
export function menu(anchor, home, title, items) {
  const root = by("menu");
  root.setAttribute("aria-label", title);
  root.replaceChildren(element("p", {role: "presentation"}, title), ...items.map(({label, key, run, grave}) => {
    const item = element("button", {type: "button", role: "menuitem", tabindex: "-1", class: grave && "grave"}, label, element("kbd", {"aria-hidden": "true"}, key));
    item.addEventListener("click", () => {
      root.hidePopover();
      run();
    });
    return item;
  }));
  root.onkeydown = (event) => {
    const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (step) {
      const buttons = [...root.querySelectorAll("button")];
      buttons.at((buttons.indexOf(document.activeElement) + step) % buttons.length).focus();
      event.preventDefault();
    } else if (event.key === "Tab") {
      root.hidePopover();
    }
  };
  root.ontoggle = ({newState}) => {
    if (newState === "closed" && (document.activeElement === document.body || root.contains(document.activeElement))) home.focus({preventScroll: true});
  };
  root.showPopover();
  const at = anchor.getBoundingClientRect();
  const {width, height} = root.getBoundingClientRect();
  root.style.left = `${Math.max(8, Math.min(at.right - width, innerWidth - width - 8))}px`;
  root.style.top = `${at.bottom + height + 8 < innerHeight ? at.bottom + 4 : Math.max(8, at.top - height - 4)}px`;
  root.querySelector("button").focus();
}

/** A message that leaves by itself after ten seconds on the screen; pointing at it keeps it. `undo` is offered meanwhile. */
export function toast(said, {undo, grave = false} = {}) {
  const root = element("div", {class: grave ? "toast grave" : "toast", role: grave ? "alert" : null}, element("p", {}, said));
  const leave = () => root.remove();
  if (undo) {
    const button = element("button", {type: "button", "data-undo": true}, "Undo");
    button.addEventListener("click", () => {
      leave();
      undo();
    });
    root.append(button);
  }
  const close = element("button", {type: "button", class: "close", "aria-label": "Close this message"}, "×");
  close.addEventListener("click", leave);
  const life = element("i", {class: "life", "aria-hidden": "true"});
  life.addEventListener("animationend", leave);
  root.append(close, life);
  by("toasts").append(root);
}
