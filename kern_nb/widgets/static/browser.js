// The session browser: a list that holds only the rows on screen, and what is shown of a session beside it.

const ROW = 48; // pixels, as in browser.css
const PAGE = 100; // rows asked for at once
const AROUND = 8; // rows drawn above and below what is on screen

const ORDER_NAMES = {
  created: "created", updated: "updated", title: "title", session: "session id", owner: "agent", user: "user",
};

function many(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

// The list --------------------------------------------------------------------------------------------------------

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
  const root = h("div", { class: "kern-b-listbox" }, hint, box, empty);

  let rows = new Map(); // index -> row
  let words = new Map(); // key -> totals
  let total = 0;
  let active = 0;
  let shown = null;
  let generation = 0;
  let fetching = false;
  let counting = false;
  const chosen = new Map(); // key -> row

  const range = () => {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - AROUND);
    const last = Math.min(total, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + AROUND);
    return [first, last];
  };

  const drawRow = (index) => {
    const row = rows.get(index);
    const place = { id: `${name}-${index}`, style: `top:${index * ROW}px`, "aria-setsize": total, "aria-posinset": index + 1 };
    if (!row) {
      return h("div", { class: "kern-b-row kern-soft", role: "option", "aria-selected": "false", ...place }, "…");
    }
    const ticked = chosen.has(row.key);
    const title = row.title ? h("bdi", { class: "kern-b-title" }, row.title)
      : h("bdi", { class: "kern-b-asked" }, row.asked ? `“${row.asked}”` : row.whole);
    const said = [row.branch, row.owner, row.user, row.runs, words.get(row.key)].filter(Boolean);
    const classes = ["kern-b-row", index === active ? "kern-b-active" : "", row.key === shown ? "kern-b-here" : ""];
    return h("div", {
      class: classes.filter(Boolean).join(" "), role: "option", "aria-selected": String(ticked),
      "aria-current": row.key === shown ? "true" : null, title: [row.title ?? row.asked, row.whole].filter(Boolean).join("\n"), ...place,
    },
    h("span", { class: "kern-b-tick", "aria-hidden": "true", "data-tick": "" }, ticked ? "☑" : "☐"),
    h("span", { class: "kern-b-said" },
      h("span", { class: "kern-b-first kern-cut" }, title, ...row.tags.map((tag) => h("bdi", { class: "kern-b-tag" }, `#${tag}`))),
      h("span", { class: "kern-b-second kern-cut kern-soft" }, h("bdi", { class: "kern-code" }, row.id),
        ...said.flatMap((text) => [" · ", h("bdi", {}, text)]))),
    h("span", { class: "kern-b-ends" }, h("span", { class: "kern-b-status" }, row.status),
      h("span", { class: "kern-soft" }, row.created)));
  };

  const draw = () => {
    const [first, last] = range();
    sizer.style.height = `${total * ROW}px`;
    sizer.replaceChildren(...Array.from({ length: Math.max(0, last - first) }, (_, n) => drawRow(first + n)));
    box.setAttribute("aria-activedescendant", total ? `${name}-${active}` : "");
    empty.textContent = total ? "" : "No session fits.";
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
    lacking.forEach((key) => words.set(key, answer.value?.[key] ?? ""));
    draw();
    count();
  }, 120);

  const looked = later(() => {
    shell.attempt("looked_at", { offset: Math.round(box.scrollTop / ROW) });
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
    total: () => total,
    first: () => Math.round(box.scrollTop / ROW),
    stop() { count.stop(); looked.stop(); cancelAnimationFrame(frame); },
  };
  const resized = new ResizeObserver(() => { draw(); fetch(); });
  resized.observe(box);
  const stop = list.stop;
  list.stop = () => { resized.disconnect(); stop(); };
  return list;
}

// A transcript ----------------------------------------------------------------------------------------------------

function makeTranscript(shell, { key, branch }) {
  const root = h("div", { class: "kern-b-transcript" });
  const bodies = new Map(); // run index -> the element its messages are in
  let next = null;
  const more = button("Show more", async () => {
    more.disabled = true;
    const answer = await shell.ask("more", { key, run_index: next[0], place: next[1] });
    more.disabled = false;
    if (answer) put(answer, false);
  });

  // A text, and the way to all of it. `at` says where it is, as the kernel's call takes it.
  const text = (part, at, code) => {
    const shownText = h(code ? "pre" : "div", { class: "kern-text", dir: "auto" }, part.text);
    const note = h("span", { class: "kern-soft" });
    const all = button("Show all", async () => {
      if (all.getAttribute("aria-expanded") === "true") {
        shownText.textContent = part.text;
        all.setAttribute("aria-expanded", "false");
        all.textContent = "Show all";
        note.textContent = `… ${many(part.left, "more character")} `;
        return;
      }
      const whole = await shell.ask("text", { key, ...at });
      if (!whole) return;
      shownText.textContent = whole.text;
      all.setAttribute("aria-expanded", "true");
      all.textContent = "Show less";
      note.textContent = whole.left ? `… ${many(whole.left, "more character")} are not shown. ` : "";
    }, { "aria-expanded": "false" });
    if (!part.left) return shownText;
    note.textContent = `… ${many(part.left, "more character")} `;
    return h("div", {}, shownText, h("div", { class: "kern-b-all" }, note, all));
  };

  const pictures = (names, at) => names.map((label, number) => {
    const place = h("div", { class: "kern-b-media" }, h("em", { class: "kern-soft" }, `[${label}]`));
    place.load = async () => {
      place.load = null;
      const answer = await shell.attempt("picture", { key, ...at, number });
      if (answer.value) place.replaceChildren(picture(answer.value.source, answer.value.alt));
      else if (answer.error) place.replaceChildren(h("em", { class: "kern-soft" }, `[${label}] ${answer.error.message}`));
    };
    return place;
  });

  const call = (one, run, place) => h("details", { class: "kern-b-call" },
    h("summary", {}, h("bdi", { class: "kern-code" }, one.line)),
    ...["args", "result"].filter((name) => one[name]).map((name) => h("div", { class: "kern-b-part" },
      h("div", { class: "kern-soft" }, name === "args" ? "arguments" : "result"),
      text(one[name], { run_index: run, place, part: name, number: one.number }, true))),
    ...pictures(one.pictures, { run_index: run, place, tool_call: one.number }));

  const message = (one, run) => {
    const here = one.index === null ? "" : button("Branch here", () => branch(run, one.index, `after message ${one.at}`),
      { class: "kern-button kern-quiet", "aria-label": `Branch after message ${one.at}` });
    return h("div", { class: `kern-b-message${one.answer ? " kern-b-answer" : ""}` },
      h("div", { class: "kern-b-who" }, h("bdi", { class: "kern-b-role" }, one.role), h("span", { class: "kern-soft" }, one.at)),
      h("div", { class: "kern-b-content" },
        one.text || one.left ? text(one, { run_index: run, place: one.place, part: "content", number: 0 }, false) : "",
        ...pictures(one.pictures, { run_index: run, place: one.place, tool_call: null }),
        ...one.calls.map((each) => call(each, run, one.place))),
      h("div", { class: "kern-b-act" }, here));
  };

  const ending = (one, run) => {
    const who = { calls: "tool calls", error: "✗ error", waiting: "waits" }[one.kind];
    const content = one.kind === "calls" ? one.calls.map((each) => call(each, run, -1))
      : [text({ left: 0, ...one }, { run_index: run, place: 0, part: "error", number: 0 }, one.kind === "waiting")];
    return h("div", { class: `kern-b-message kern-b-${one.kind}` },
      h("div", { class: "kern-b-who" }, h("span", { class: "kern-b-role" }, who)), h("div", { class: "kern-b-content" }, ...content));
  };

  const load = (element) => element.querySelectorAll(".kern-b-media").forEach((place) => place.load?.());

  const fold = (head, body, open) => {
    head.setAttribute("aria-expanded", String(open));
    body.hidden = !open;
    head.querySelector(".kern-b-fold").textContent = open ? "▾" : "▸";
    if (open) load(body);
  };

  const makeRun = (run, open) => {
    const body = h("div", { class: "kern-b-run-body" });
    const facts = h("span", { class: "kern-b-facts kern-soft" }, ...run.facts.flatMap((fact) => [" · ", h("bdi", {}, fact)]));
    const head = h("button", { type: "button", class: "kern-b-run-head" },
      h("span", { class: "kern-b-fold", "aria-hidden": "true" }),
      h("span", { class: "kern-b-run-said" }, h("strong", {}, run.name), facts,
        run.asked ? h("bdi", { class: "kern-b-asked kern-cut" }, `“${run.asked}”`) : ""));
    head.addEventListener("click", () => fold(head, body, body.hidden));
    const here = run.index === null ? "" : button("Branch here", () => branch(run.index, null, `after run ${run.index}`),
      { class: "kern-button kern-quiet", "aria-label": `Branch after run ${run.index}` });
    const element = h("section", { class: "kern-b-run", "aria-label": run.name },
      h("div", { class: "kern-b-run-bar" }, head, here), body);
    root.append(element);
    bodies.set(run.index, body);
    fold(head, body, open);
    return body;
  };

  function put(answer, first) {
    answer.runs.forEach((run, n) => {
      const body = (run.continued && bodies.get(run.index)) || makeRun(run, first && (answer.runs.length <= 3 || n === 0));
      body.append(...run.messages.map((one) => message(one, run.index)), ...run.ends.map((one) => ending(one, run.index)));
      if (!body.hidden) load(body);
    });
    next = answer.next;
    more.remove();
    if (next) root.append(more);
    if (!bodies.size) root.append(h("p", { class: "kern-soft" }, "It has no runs."));
  }

  const foldAll = (open) => root.querySelectorAll(".kern-b-run").forEach((run) => {
    fold(run.querySelector(".kern-b-run-head"), run.querySelector(".kern-b-run-body"), open);
  });
  return { root, put, foldAll };
}

// The branch tree -------------------------------------------------------------------------------------------------

function makeTree(family, onOpen) {
  const node = (one, level) => {
    const group = one.children.length ? h("ul", { role: "group" }, one.children.map((child) => node(child, level + 1))) : null;
    const label = h("span", { class: `kern-b-node${one.here ? " kern-b-here" : ""}` },
      h("span", { class: "kern-b-fold", "aria-hidden": "true" }, group ? "▾" : "·"),
      one.here ? h("strong", {}, "→ ") : "", h("bdi", { class: "kern-code" }, one.id), " ",
      h("bdi", { class: "kern-b-asked" }, one.title), h("span", { class: "kern-soft" },
        [one.at, one.runs, one.status].filter(Boolean).map((fact) => ` · ${fact}`).join("")));
    const item = h("li", {
      role: "treeitem", tabindex: -1, "aria-level": level, "aria-expanded": group ? "true" : null,
      "aria-current": one.here ? "true" : null, "aria-selected": String(one.here),
      "aria-label": [one.id, one.title, one.at, one.runs, one.status, one.here ? "shown now" : ""].filter(Boolean).join(", "),
      "data-key": one.key,
    }, label, group);
    label.addEventListener("click", (event) => {
      if (event.target.closest(".kern-b-fold") && group) expand(item, item.getAttribute("aria-expanded") !== "true");
      else onOpen(one.key);
    });
    return item;
  };
  const expand = (item, open) => {
    const group = item.querySelector(":scope > ul");
    if (!group) return;
    item.setAttribute("aria-expanded", String(open));
    group.hidden = !open;
    item.querySelector(".kern-b-fold").textContent = open ? "▾" : "▸";
  };
  const tree = h("ul", { role: "tree", class: "kern-b-tree", "aria-label": "Branches" },
    family.roots.map((root) => node(root, 1)));
  const move = roving(tree, "[role=treeitem]");
  const first = tree.querySelector("[aria-current]") ?? tree.querySelector("[role=treeitem]");
  if (first) first.tabIndex = 0;
  tree.addEventListener("keydown", (event) => {
    const item = event.target.closest("[role=treeitem]");
    if (!item) return;
    const open = item.getAttribute("aria-expanded");
    if (event.key === "ArrowRight" && open === "false") expand(item, true);
    else if (event.key === "ArrowRight" && open === "true") move.focus(item.querySelector("[role=treeitem]"));
    else if (event.key === "ArrowLeft" && open === "true") expand(item, false);
    else if (event.key === "ArrowLeft") move.focus(item.parentElement.closest("[role=treeitem]"));
    else if (event.key === "Enter" || event.key === " ") onOpen(item.dataset.key);
    else return;
    event.preventDefault();
  });
  const only = family.count === 1 ? h("p", { class: "kern-soft" }, "It has no branches yet: “Branch here” on a run or message makes one.") : "";
  const cut = family.complete ? "" : h("p", { class: "kern-soft" }, `Only the first ${family.count.toLocaleString("en")} are shown.`);
  return h("div", {}, tree, only, cut);
}

// Tabs ------------------------------------------------------------------------------------------------------------

function makeTabs(names, onShow) {
  const id = `kern-tab-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  const panel = h("div", { class: "kern-b-panel", role: "tabpanel", id: `${id}-panel`, tabindex: 0 });
  const tabs = names.map((name) => h("button", {
    type: "button", role: "tab", class: "kern-b-tab", id: `${id}-${name}`, "aria-controls": panel.id, "aria-selected": "false", tabindex: -1,
    on: { click: () => show(name) },
  }, name));
  const bar = h("div", { class: "kern-b-tabs", role: "tablist", "aria-label": "What is shown" }, tabs);
  let now = names[0];
  function show(name) {
    now = name;
    tabs.forEach((tab, n) => {
      tab.setAttribute("aria-selected", String(names[n] === name));
      tab.tabIndex = names[n] === name ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", `${id}-${name}`);
    panel.replaceChildren();
    panel.scrollTop = 0;
    onShow(name, panel);
  }
  bar.addEventListener("keydown", (event) => {
    const here = names.indexOf(now);
    const steps = { ArrowRight: here + 1, ArrowLeft: here - 1 + names.length, Home: 0, End: names.length - 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(names[steps[event.key] % names.length]);
    tabs[names.indexOf(now)].focus();
  });
  return { bar, panel, show, now: () => now };
}

// The whole -------------------------------------------------------------------------------------------------------

async function render({ model, el }) {
  const shell = makeShell(model, el, "Session browser");
  let session = null; // what is shown, as the kernel gave it
  let result = null; // what the last comparison or summary gave
  let transcript = null;

  // What the filter says, asked for as it is typed.
  const find = shell.latest("find");
  const input = (attributes) => h("input", { type: "text", autocomplete: "off", spellcheck: "false", ...attributes });
  const text = input({ placeholder: "title, id or #tag", class: "kern-b-wide" });
  const agent = input({});
  const user = input({});
  const status = h("select", {}, h("option", { value: "" }, "any"));
  const order = h("select", {});
  const direction = button("↓", () => {
    descending = !descending;
    turn();
    filter();
  });
  let descending = true;
  const turn = () => {
    direction.textContent = descending ? "↓" : "↑";
    direction.setAttribute("aria-label", descending ? "Descending; press for ascending" : "Ascending; press for descending");
    direction.title = direction.getAttribute("aria-label");
  };
  const filter = () => find(
    { text: text.value, agent: agent.value, user: user.value, status: status.value, order: order.value, descending },
    (answer) => { shell.clear(); list.set(answer); tellCount(); shell.seen(); },
  );
  const typed = later(filter, 150);
  [text, agent, user].forEach((control) => control.addEventListener("input", typed));
  [status, order].forEach((control) => control.addEventListener("change", filter));
  const form = h("div", { class: "kern-b-filter", role: "search", "aria-label": "Filter sessions" },
    field("Find", text), field("Agent", agent), field("User", user), field("Status", status),
    h("span", { class: "kern-b-order" }, field("Sort by", order), direction),
    button("Refresh", () => refresh(), { class: "kern-button kern-b-end" }));
  form.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" && event.target.matches("input")) { event.preventDefault(); list.box.focus(); }
    if (event.key === "Escape" && event.target.matches("input") && event.target.value) { event.target.value = ""; filter(); }
  });

  // What is selected, and what can be done with it.
  const count = h("span", { class: "kern-b-count", role: "status" });
  const clear = button("Clear", () => list.clear(), { class: "kern-button kern-quiet", "aria-label": "Clear the selection" });
  const compare = button("Compare", () => act("compare", "Comparing…", "Compared."));
  const summarize = button("Summarize", () => act("summarize", "Summarizing…", "Summarized."));
  const frame = button("DataFrame…", () => ask(frame, "Load", { kind: "frame" }));
  const actions = h("div", {}, h("div", { class: "kern-b-bar kern-b-counted" }, count, clear),
    h("div", { class: "kern-b-bar", role: "toolbar", "aria-label": "With the selection" }, compare, summarize, frame));

  const list = makeList(shell, { onOpen: (key) => open(key), onChosen: () => chosen() });
  const choose = shell.latest("choose");

  const selection = () => (list.chosen().length ? list.chosen() : session ? [session.key] : []);
  const tellCount = () => {
    const ticked = list.chosen().length;
    count.textContent = many(list.total(), "session") + (ticked ? `, ${ticked.toLocaleString("en")} selected` : "");
    clear.hidden = !ticked;
    compare.disabled = ticked < 2;
    compare.title = ticked < 2 ? "Select two or more sessions with Space or their boxes" : "";
    summarize.disabled = frame.disabled = !selection().length;
  };
  const chosen = () => {
    tellCount();
    choose({ keys: list.chosen() }, () => shell.seen());
    if (["Metrics", "Plots"].includes(tabs.now())) tabs.show(tabs.now());
  };

  // What is shown of a session.
  const head = h("div", { class: "kern-b-head" });
  const asked = h("div", { class: "kern-b-ask" });
  const tabs = makeTabs(["Transcript", "Branches", "Metrics", "Plots", "Result"], (name, panel) => fill(name, panel));
  const detail = h("div", { class: "kern-b-detail", role: "region", "aria-label": "The session" }, head, asked, tabs.bar, tabs.panel);
  detail.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (asked.childNodes.length) close();
    else list.box.focus();
  });

  function drawHead() {
    if (!session) {
      head.replaceChildren(h("p", { class: "kern-soft" }, "Open a session: click it, or press Enter on it."));
      return;
    }
    const opening = (label, question) => {
      const one = button(`${label}…`, () => ask(one, label, question), { "data-opens": question.kind });
      return one;
    };
    head.replaceChildren(
      h("h3", { class: "kern-b-name" }, h("bdi", {}, session.title || session.id)),
      h("div", { class: "kern-soft kern-b-facts" }, session.title ? h("bdi", { class: "kern-code" }, session.id) : "",
        ...session.facts.map((fact, n) => [n || session.title ? " · " : "", h("bdi", {}, fact)]).flat(),
        ...session.tags.map((one) => h("bdi", { class: "kern-b-tag" }, `#${one}`))),
      h("div", { class: "kern-b-bar", role: "toolbar", "aria-label": "With this session" },
        opening("Branch", { kind: "branch", where: "at its end" }), opening("Rename", { kind: "rename" }),
        opening("Tag", { kind: "tag" })),
    );
  }

  async function open(key, tab = null) {
    const answer = await openings({ key });
    if (!answer) return;
    session = answer;
    shell.clear();
    close();
    list.mark(key);
    drawHead();
    tellCount();
    transcript = makeTranscript(shell, { key, branch: (run, index, where) => ask(null, "Branch", { kind: "branch", run, index, where }) });
    transcript.put(answer.transcript, true);
    tabs.show(tab ?? (tabs.now() === "Branches" ? "Branches" : "Transcript"));
    shell.seen();
  }
  const newest = shell.latest("show");
  const openings = (args) => new Promise((settle) => { newest(args, settle); });

  function fill(name, panel) {
    const keys = selection();
    const fallback = (sentence) => panel.append(h("p", { class: "kern-soft" }, sentence));
    if (name === "Transcript") {
      if (!session) return fallback("No session is open.");
      panel.append(h("div", { class: "kern-b-bar" },
        button("Unfold all", () => transcript.foldAll(true), { class: "kern-button kern-quiet" }),
        button("Fold all", () => transcript.foldAll(false), { class: "kern-button kern-quiet" }),
        h("span", { class: "kern-b-end" }), copyable(session.line)), transcript.root);
    } else if (name === "Branches") {
      if (!session) return fallback("No session is open.");
      panel.append(makeTree(session.family, (key) => open(key, "Branches")));
    } else if (name === "Metrics") {
      if (!keys.length) return fallback("No session is selected or open.");
      const place = h("div", { class: "kern-rendered" }, h("p", { class: "kern-soft" }, "Adding up…"));
      panel.append(place);
      metrics({ keys }, (answer) => putRendered(place, answer.rendered));
    } else if (name === "Plots") {
      if (!keys.length) return fallback("No session is selected or open.");
      const of = keys.length === 1 ? "" : ` of ${many(keys.length, "selected session")}`;
      panel.append(...[["runs", `Tokens, cost and time over runs${of}`], ["tools", `Tools${of}`]].map(([kind, label]) => plot(keys, kind, label)));
    } else if (result) {
      panel.append(putRendered(h("div", { class: "kern-rendered" }), result.rendered));
    } else {
      fallback("What “Compare” and “Summarize” give is shown here.");
    }
    return undefined;
  }
  const metrics = shell.latest("metrics");

  // Drawn when it is opened, not before.
  function plot(keys, kind, label) {
    const place = h("div", { class: "kern-rendered" });
    const details = h("details", { class: "kern-b-plot" }, h("summary", {}, label), place);
    details.addEventListener("toggle", async () => {
      if (!details.open || place.childNodes.length) return;
      place.replaceChildren(h("p", { class: "kern-soft" }, "Drawing…"));
      const answer = await shell.ask("plot", { keys, kind });
      if (!answer) place.replaceChildren();
      else if (answer.source) place.replaceChildren(picture(answer.source, answer.alt));
      else putRendered(place, answer.rendered);
      if (answer?.line) place.append(copyable(answer.line));
    });
    return details;
  }

  async function act(call, meanwhile, done) {
    const keys = selection();
    result = null;
    tabs.show("Result");
    tabs.panel.replaceChildren(h("p", { class: "kern-soft" }, meanwhile));
    const answer = await shell.ask(call, { keys });
    if (answer) {
      result = answer;
      shell.told(done, answer.line);
    }
    if (tabs.now() === "Result") tabs.show("Result");
    shell.seen();
  }

  // A question under the head: a name, a title, tags, or which frame.
  function ask(opener, label, { kind, run = null, index = null, where = "" }) {
    const questions = {
      branch: [`Name of the branch ${where} (an id is made up where it is empty)`, ""],
      rename: ["Title", session?.title ?? ""],
      tag: ["Tags, with commas between them", session?.tags.join(", ") ?? ""],
      frame: [`Load as a DataFrame, of ${many(selection().length, "session")}`, ""],
    };
    const [question, value] = questions[kind];
    const control = kind === "frame" ? h("select", {}, ...["sessions", "runs", "messages", "tool_calls", "scores"]
      .map((one) => h("option", { value: one, selected: one === "messages" }, one.replace("_", " ")))) : input({ class: "kern-b-wide" });
    if (kind !== "frame") control.value = value;
    const submit = async () => {
      go.disabled = true;
      const done = await { branch, rename, tag, frame: load }[kind](control.value, run, index);
      go.disabled = false;
      if (done) close();
    };
    const back = opener ?? document.activeElement;
    const go = button(label, submit, { class: "kern-button kern-b-main" });
    const cancel = button("Cancel", () => close());
    close = () => {
      asked.replaceChildren();
      close = () => asked.replaceChildren();
      // What was done may have drawn the button anew.
      (back?.isConnected ? back : head.querySelector(`[data-opens=${kind}]`) ?? list.box).focus();
    };
    asked.replaceChildren(h("div", { class: "kern-b-question", role: "group", "aria-label": label },
      field(question, control), go, cancel));
    control.addEventListener("keydown", (event) => {
      if (event.key === "Enter") { event.preventDefault(); submit(); }
    });
    control.focus();
    if (control.select && value) control.select();
  }
  let close = () => asked.replaceChildren();

  async function branch(name, run, index) {
    const answer = await shell.ask("branch", { key: session.key, run_index: run, message_index: index, name });
    if (!answer) return false;
    shell.told(`Branched to ${answer.name}.`, answer.line, button("Open it", () => open(answer.key)));
    await again();
    return true;
  }

  async function rename(name) {
    const answer = await shell.ask("rename", { key: session.key, name });
    if (!answer) return false;
    shell.told("Renamed.", answer.line);
    await again();
    return true;
  }

  async function tag(tags) {
    const answer = await shell.ask("tag", { key: session.key, tags });
    if (!answer) return false;
    shell.told("Tagged.", answer.line);
    await again();
    return true;
  }

  async function load(name) {
    const answer = await shell.ask("cell", { keys: selection(), frame: name });
    if (!answer) return false;
    const done = await copy(answer.line);
    shell.told(done ? "Copied; paste it into a cell:" : "For a cell:", answer.line);
    return true;
  }

  // What changed is read again; what is open stays open.
  async function again() {
    await refresh();
    if (!session) return;
    const answer = await shell.ask("show", { key: session.key });
    if (!answer) return;
    session = answer;
    drawHead();
    if (tabs.now() === "Branches") tabs.show("Branches");
  }

  async function refresh() {
    const answer = await shell.ask("refresh", {});
    if (!answer) return;
    shell.clear();
    list.forget();
    list.set(answer, { keep: true });
    tellCount();
    shell.seen();
  }

  shell.body.append(form, h("div", { class: "kern-b-panes" }, h("div", { class: "kern-b-side" }, actions, list.root), detail));

  const start = async () => {
    const answer = await shell.ask("start", {});
    if (!answer) return;
    status.replaceChildren(h("option", { value: "" }, "any"), ...answer.statuses.map((one) => h("option", { value: one }, one.toLowerCase())));
    order.replaceChildren(...answer.orders.map((one) => h("option", { value: one }, ORDER_NAMES[one] ?? one)));
    text.value = answer.filter.text;
    agent.value = answer.filter.agent;
    user.value = answer.filter.user;
    status.value = answer.filter.status;
    order.value = answer.order;
    descending = answer.descending;
    turn();
    list.choose(answer.chosen);
    list.set(answer);
    drawHead();
    tellCount();
    tabs.show("Transcript");
    if (answer.shown) await open(answer.shown);
  };
  shell.again = start;
  await start();
  return () => { typed.stop(); list.stop(); shell.close(); };
}

export default { render };
