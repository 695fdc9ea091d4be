// A list of sessions that holds only the rows on screen, however many there are. It asks for `rows` and `totals`.

const ROW = 48; // pixels, as in browser.css
const PAGE = 100; // rows asked for at once
const TOTALS = ["messages", "tokens", "cost"]; // orders that go by what a session took
const AROUND = 8; // rows drawn above and below what is on screen

// Make an element what another one is. What is the same in both stays where it is: a press that began on it would
// be no click if it were taken away before the press ends.
function become(old, made) {
  for (const { name } of [...old.attributes]) if (!made.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of [...made.attributes]) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const was = [...old.childNodes];
  const now = [...made.childNodes];
  was.forEach((child, n) => {
    if (!now[n]) child.remove();
    else if (!child.isEqualNode(now[n])) child.replaceWith(now[n]);
  });
  old.append(...now.slice(was.length));
  return old;
}

function makeList(shell, { onOpen, onChosen }) {
  const sizer = h("div", { class: "kern-b-sizer", role: "presentation" });
  const box = h("div", {
    class: "kern-b-list", role: "listbox", tabindex: 0, "aria-label": "Sessions", "aria-multiselectable": "true",
    "aria-describedby": "",
  }, sizer);
  const name = `kern-row-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  const hint = h("div", { class: "kern-hidden", id: `${name}-hint` },
    "Arrows move, Space selects, Enter opens, Escape clears the selection.");
  box.setAttribute("aria-describedby", hint.id);
  const empty = h("div", { class: "kern-b-empty kern-soft" });
  const hourglass = h("div", { class: "kern-b-looking", role: "status" });
  const root = h("div", { class: "kern-b-listbox" }, hint, box, empty, hourglass);

  let rows = new Map(); // index -> row
  let words = new Map(); // key -> totals
  let total = 0;
  let active = 0;
  let shown = null;
  let generation = 0;
  let fetching = false;
  let counting = false;
  let waits = 0;
  let order = "";
  const chosen = new Map(); // key -> row

  const range = () => {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - AROUND);
    const last = Math.min(total, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + AROUND);
    return [first, last];
  };

  const drawRow = (index) => {
    const row = rows.get(index);
    const place = {
      id: `${name}-${index}`, style: `top:${index * ROW}px`, "aria-setsize": total, "aria-posinset": index + 1, "data-key": row?.key || `…${index}`,
    };
    if (!row) {
      return h("div", { class: "kern-b-row kern-soft", role: "option", "aria-selected": "false", ...place }, "…");
    }
    const ticked = chosen.has(row.key);
    const title = row.title ? h("bdi", { class: "kern-b-title" }, row.title)
      : h("bdi", { class: "kern-b-asked" }, row.asked ? `“${row.asked}”` : row.whole);
    const took = words.get(row.key);
    const said = [row.branch, row.owner, row.user, row.runs, took?.said].filter(Boolean);
    const by = TOTALS.includes(order) ? took?.[order] || (took ? `${order} unknown` : "…") : row.created; // what the order goes by
    const classes = ["kern-b-row", index === active ? "kern-b-active" : "", row.key === shown ? "kern-b-here" : ""];
    return h("div", {
      class: classes.filter(Boolean).join(" "), role: "option", "aria-selected": String(ticked),
      "aria-current": row.key === shown ? "true" : null, title: [row.title ?? row.asked, row.whole, took?.said].filter(Boolean).join("\n"), ...place,
    },
    h("span", { class: "kern-b-tick", "aria-hidden": "true", "data-tick": "" }, ticked ? "☑" : "☐"),
    h("span", { class: "kern-b-said" },
      h("span", { class: "kern-b-first kern-cut" }, title, ...row.tags.map((tag) => h("bdi", { class: "kern-b-tag" }, `#${tag}`))),
      h("span", { class: "kern-b-second kern-cut kern-soft" }, h("bdi", { class: "kern-code" }, row.id),
        ...said.flatMap((text) => [" · ", h("bdi", {}, text)]))),
    h("span", { class: "kern-b-ends" }, h("span", { class: "kern-b-status" }, row.status),
      h("span", { class: "kern-soft" }, by)));
  };

  const draw = () => {
    const [first, last] = range();
    sizer.style.height = `${total * ROW}px`;
    const there = new Map([...sizer.children].map((element) => [element.dataset.key, element]));
    const now = Array.from({ length: Math.max(0, last - first) }, (_, n) => {
      const made = drawRow(first + n);
      const old = there.get(made.dataset.key);
      there.delete(made.dataset.key);
      return old ? become(old, made) : made;
    });
    there.forEach((element) => element.remove());
    now.forEach((element, n) => {
      if (sizer.children[n] !== element) sizer.insertBefore(element, sizer.children[n] ?? null);
    });
    box.setAttribute("aria-activedescendant", active >= first && active < last ? `${name}-${active}` : "");
    empty.textContent = total ? "" : "No matching sessions.";
  };

  const take = (answer) => {
    total = answer.total;
    answer.rows.forEach((row, n) => rows.set(answer.offset + n, row));
    active = Math.max(0, Math.min(active, total - 1));
  };

  // One part at a time is asked for, and only what is on screen when it is its turn.
  const fetch = async () => {
    if (fetching) return;
    const [first, last] = range();
    let page = null;
    for (let at = Math.floor(first / PAGE); at * PAGE < last; at += 1) {
      const from = Math.max(first, at * PAGE);
      const upto = Math.min(last, (at + 1) * PAGE);
      for (let index = from; index < upto && page === null; index += 1) if (!rows.has(index)) page = at;
    }
    if (page === null) return;
    fetching = true;
    const mine = generation;
    const answer = await shell.ask("rows", { offset: page * PAGE, limit: PAGE });
    fetching = false;
    if (mine === generation) {
      if (answer === undefined) return; // the error is shown; scrolling on tries again
      const before = total;
      take(answer);
      if (!answer.rows.length && before) rows.set(page * PAGE, { key: "", id: "…", whole: "…", tags: [], status: "", runs: "", created: "" });
      draw();
    }
    fetch();
    count();
  };

  const count = later(async () => {
    if (counting) return;
    const [first, last] = range();
    const lacking = [];
    for (let index = first; index < last; index += 1) {
      const row = rows.get(index);
      if (row?.key && !words.has(row.key)) lacking.push(row.key);
    }
    if (!lacking.length) return;
    counting = true;
    const answer = await shell.attempt("totals", { keys: lacking });
    counting = false;
    lacking.forEach((key) => words.set(key, answer.value?.[key] ?? {}));
    draw();
    count();
  }, 120);

  const looked = later(() => {
    shell.attempt("set_offset", { offset: Math.round(box.scrollTop / ROW) });
    shell.seen();
  }, 400);

  let frame = 0;
  box.addEventListener("scroll", () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => { draw(); fetch(); count(); looked(); });
  });

  const go = (index) => {
    if (!total) return;
    active = Math.max(0, Math.min(total - 1, index));
    const top = active * ROW;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + ROW > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW - box.clientHeight;
    draw();
    fetch();
  };

  const toggle = (index) => {
    const row = rows.get(index);
    if (!row?.key) return;
    if (chosen.has(row.key)) chosen.delete(row.key);
    else chosen.set(row.key, row);
    draw();
    onChosen();
  };

  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(box.clientHeight / ROW) - 1);
    const steps = {
      ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: total - 1,
    };
    if (event.key in steps) {
      go(steps[event.key]);
    } else if (event.key === " ") {
      toggle(active);
    } else if (event.key === "Enter") {
      const row = rows.get(active);
      if (row?.key) onOpen(row.key);
    } else if (event.key === "Escape") {
      list.clear();
    } else {
      return;
    }
    event.preventDefault();
  });

  box.addEventListener("click", (event) => {
    const element = event.target.closest(".kern-b-row");
    if (!element) return;
    active = Number(element.getAttribute("aria-posinset")) - 1;
    const row = rows.get(active);
    if (event.target.closest("[data-tick]") || event.ctrlKey || event.metaKey) toggle(active);
    else if (row?.key) onOpen(row.key);
    draw();
  });

  const list = {
    root, box,

    // Another list: what is loaded of the old one is forgotten.
    set(answer, { keep = false } = {}) {
      generation += 1;
      order = answer.order;
      rows = new Map();
      words = keep ? words : new Map();
      take(answer);
      if (!keep) { active = 0; box.scrollTop = 0; }
      draw();
      fetch();
      count();
    },

    // What a session took may have changed.
    forget() { words = new Map(); },

    chosen: () => [...chosen.keys()],
    choose(keys) { keys.forEach((key) => chosen.set(key, null)); draw(); },

    clear() {
      if (!chosen.size) return;
      chosen.clear();
      draw();
      onChosen();
    },

    mark(key) { shown = key; draw(); },

    // Another list is under way; what takes no longer than a moment is not told of.
    wait(busy) {
      clearTimeout(waits);
      waits = setTimeout(() => {
        root.toggleAttribute("aria-busy", busy);
        hourglass.textContent = busy ? "Searching…" : "";
      }, busy ? 200 : 0);
    },
    total: () => total,
    first: () => Math.round(box.scrollTop / ROW),
    stop() { count.stop(); looked.stop(); clearTimeout(waits); cancelAnimationFrame(frame); },
  };
  const resized = new ResizeObserver(() => { draw(); fetch(); });
  resized.observe(box);
  const stop = list.stop;
  list.stop = () => { resized.disconnect(); stop(); };
  return list;
}
