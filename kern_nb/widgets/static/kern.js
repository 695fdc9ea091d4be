// What every widget's script uses as its own: `kern_nb/widgets/base.py` puts this file before it.

// An element. Texts are texts, never markup; `on` holds listeners; an attribute that is null or false is left out.
function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(key, value === true ? "" : String(value));
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child)))));
  return element;
}

// The one place where markup comes into the page: only what `kern_nb.text` wrote, which escapes everything.
function putRendered(element, markup) {
  element.innerHTML = markup;
  return element;
}

// A picture, of the kinds that hold no script; anything else is no picture.
function picture(source, alt) {
  const safe = /^data:image\/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+$/.test(source);
  return safe ? h("img", { src: source, alt, class: "kern-picture" }) : h("em", {}, alt);
}

function button(label, action, attributes = {}) {
  return h("button", { type: "button", class: "kern-button", ...attributes, on: { click: action } }, label);
}

// A field with its label above it. Not within it: what a list offers would be read as a part of its label.
function field(label, control) {
  fields += 1;
  control.id = control.id || `kern-field-${here}-${fields}`;
  return h("span", { class: "kern-field" }, h("label", { for: control.id }, label), control);
}
const here = crypto.getRandomValues(new Uint32Array(2)).join("-"); // tells scripts apart
let fields = 0;

// A list of things of which one has the focus: arrows, Home and End move it, as does a click.
function roving(container, selector) {
  const items = () => [...container.querySelectorAll(selector)].filter((item) => item.checkVisibility());
  const focus = (item) => {
    if (!item) return;
    container.querySelectorAll(selector).forEach((other) => { other.tabIndex = other === item ? 0 : -1; });
    item.focus();
  };
  container.addEventListener("keydown", (event) => {
    const all = items();
    const here = all.indexOf(event.target.closest(selector));
    const steps = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: all.length - 1 };
    if (here < 0 || !(event.key in steps)) return;
    event.preventDefault();
    focus(all[Math.max(0, Math.min(all.length - 1, steps[event.key]))]);
  });
  container.addEventListener("focusin", (event) => {
    const item = event.target.closest(selector);
    if (item) container.querySelectorAll(selector).forEach((other) => { other.tabIndex = other === item ? 0 : -1; });
  });
  return { focus, items };
}

function later(action, milliseconds) {
  let timer = 0;
  const run = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), milliseconds);
  };
  run.stop = () => clearTimeout(timer);
  return run;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // no permission, or a page that is not served from this machine
    const area = h("textarea", { style: "position:fixed;opacity:0" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

// A line that would do the same, and a button that copies it.
function copyable(line) {
  const done = h("span", { class: "kern-copied", "aria-live": "polite" });
  const press = async () => {
    done.textContent = (await copy(line)) ? "copied" : "select and copy it manually";
  };
  return h("span", { class: "kern-line" }, h("code", { tabindex: 0 }, line),
    button("Copy", press, { "aria-label": `Copy the line ${line}` }), done);
}

const PATIENCE = 8000; // milliseconds, after which a silent kernel is told of

// The frame around every widget: its alerts above, what was done last below, and the calls to the kernel.
function makeShell(model, host, label) {
  const alert = h("div", { class: "kern-alert", role: "alert" });
  const body = h("div", { class: "kern-body" });
  const status = h("div", { class: "kern-told", role: "status" });
  const waiting = h("div", { class: "kern-waiting", role: "status" });
  const root = h("section", { class: "kern-w", "aria-label": label }, alert, body, waiting, status);
  // Keys without Ctrl are the widget's: JupyterLab would take letters and arrows for commands on the cell.
  root.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
  host.append(root);

  const view = crypto.getRandomValues(new Uint32Array(2)).join("-"); // other views of the model get its answers, too
  const pending = new Map();
  let count = 0;
  let closed = false;
  let waits = 0;

  const patience = () => {
    clearTimeout(waits);
    waiting.textContent = "";
    if (pending.size) {
      waits = setTimeout(() => {
        waiting.textContent = "No response from the kernel yet. If it is idle, run the cell again.";
      }, PATIENCE);
    }
  };

  const answered = (message) => {
    const settle = pending.get(message?.id);
    if (!settle) return;
    pending.delete(message.id);
    patience();
    root.classList.add("kern-live"); // from here on the still is hidden
    settle(message);
  };
  model.on("msg:custom", answered);

  const send = (call, args) => new Promise((settle) => {
    if (closed) return;
    const id = `${view}:${++count}`;
    pending.set(id, settle);
    patience();
    model.send({ id, call, args });
  });

  const shell = {
    root, body, alert, label,

    // What "Attach again" does when it worked; the widget's own way to start over.
    again: () => {},

    fail({ message, hint, gone }) {
      const attach = async () => {
        shell.clear();
        const line = await shell.ask("attach_again", {});
        if (line === undefined) return;
        shell.told("Attached again.", line);
        shell.again();
      };
      alert.replaceChildren(
        h("div", { class: "kern-what" }, h("strong", {}, "✗ "), message),
        hint ? h("div", { class: "kern-hint" }, hint) : "",
        h("div", { class: "kern-actions" }, gone ? button("Attach again", attach) : "",
          button("Dismiss", () => shell.clear(), { "aria-label": "Dismiss the message" })),
      );
    },

    clear() {
      alert.replaceChildren();
    },

    // The value of a call; undefined where it failed, which is shown.
    async ask(call, args) {
      const message = await send(call, args);
      if (message.error) {
        shell.fail(message.error);
        return undefined;
      }
      return message.value;
    },

    // The answer to a call, with its `value` or its `error`, which is not shown: for what nobody clicked.
    attempt: (call, args) => send(call, args),

    // Calls of which only the newest matters: ask(args, then) gives `then` the newest answer, never an older one.
    // `wait` is told when there is something to wait for, and when no more.
    latest(call, wait = () => {}) {
      let newest = 0;
      let busy = false;
      let next = null;
      const run = async (number, args, then) => {
        busy = true;
        wait(true);
        const value = await shell.ask(call, args);
        busy = false;
        if (number === newest && value !== undefined) then(value);
        if (next) {
          const following = next;
          next = null;
          run(...following);
        } else wait(false);
      };
      return (args, then) => {
        newest += 1;
        if (busy) next = [newest, args, then];
        else run(newest, args, then);
      };
    },

    // What was done, the line that would have done it, and what one may want to do next.
    told(what, line, ...more) {
      status.replaceChildren(h("span", {}, `${what} `), line ? copyable(line) : "", ...more);
    },

    // The view has changed: have the still renewed, once it has settled.
    seen: later(() => { if (!closed) send("renew_fallback", {}); }, 600),

    close() {
      closed = true;
      shell.seen.stop();
      clearTimeout(waits);
      model.off("msg:custom", answered);
    },
  };
  return shell;
}
