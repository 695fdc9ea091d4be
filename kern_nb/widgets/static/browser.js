// The session browser: sessions.js, transcript.js and branches.js, put together.

const ORDER_NAMES = {
  created: "created", updated: "updated", title: "title", session: "session id", owner: "agent", user: "user",
  messages: "messages", tokens: "tokens", cost: "cost",
};

async function render({ model, el }) {
  const shell = makeShell(model, el, "Session browser");
  let readOnly = false;
  let session = null; // what is shown, as the kernel gave it
  let result = null; // what the last comparison or summary gave
  let transcript = null;

  // What the filter says, asked for as it is typed.
  const find = shell.latest("find", (busy) => list.wait(busy));
  const input = (attributes) => h("input", { type: "text", autocomplete: "off", spellcheck: "false", ...attributes });
  const text = input({ placeholder: "Title, id or #tag", class: "kern-b-wide" });
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
  const save = button("Export…", () => ask(save, "Export", { kind: "export" }));
  const actions = h("div", {}, h("div", { class: "kern-b-bar kern-b-counted" }, count, clear),
    h("div", { class: "kern-b-bar", role: "toolbar", "aria-label": "Actions on the selection" }, compare, summarize, frame, save));

  const list = makeList(shell, { onOpen: (key) => open(key), onChosen: () => chosen() });
  const choose = shell.latest("choose");

  const selection = () => (list.chosen().length ? list.chosen() : session ? [session.key] : []);
  const tellCount = () => {
    const ticked = list.chosen().length;
    count.textContent = many(list.total(), "session") + (ticked ? `, ${ticked.toLocaleString("en")} selected` : "");
    clear.hidden = !ticked;
    compare.disabled = ticked < 2;
    compare.title = ticked < 2 ? "Select two or more sessions with Space or their boxes" : "";
    summarize.disabled = frame.disabled = save.disabled = !selection().length;
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
  const detail = h("div", { class: "kern-b-detail", role: "region", "aria-label": "Session" }, head, asked, tabs.bar, tabs.panel);
  detail.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (asked.childNodes.length) close();
    else list.box.focus();
  });

  function drawHead() {
    if (!session) {
      head.replaceChildren(h("p", { class: "kern-soft" }, "Click a session, or press Enter, to open it."));
      return;
    }
    const opening = (label, question) => {
      const one = button(`${label}…`, () => ask(one, label, question), {
        "data-opens": question.kind, disabled: readOnly, title: readOnly ? "The store is read-only" : null,
      });
      return one;
    };
    head.replaceChildren(
      h("h3", { class: "kern-b-name" }, h("bdi", {}, session.title || session.id)),
      h("div", { class: "kern-soft kern-b-facts" }, session.title ? h("bdi", { class: "kern-code" }, session.id) : "",
        ...session.facts.map((fact, n) => [n || session.title ? " · " : "", h("bdi", {}, fact)]).flat(),
        ...session.tags.map((one) => h("bdi", { class: "kern-b-tag" }, `#${one}`))),
      h("div", { class: "kern-b-bar", role: "toolbar", "aria-label": "Actions on the session" },
        opening("Branch", { kind: "branch", where: "at the end" }), opening("Rename", { kind: "rename" }),
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
    transcript = makeTranscript(shell, {
      key, branch: readOnly ? null : (run, index, where) => ask(null, "Branch", { kind: "branch", run, index, where }),
    });
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
        button("Expand all", () => transcript.foldAll(true), { class: "kern-button kern-quiet" }),
        button("Collapse all", () => transcript.foldAll(false), { class: "kern-button kern-quiet" }),
        h("span", { class: "kern-b-end" }), copyable(session.line)), transcript.root);
    } else if (name === "Branches") {
      if (!session) return fallback("No session is open.");
      panel.append(makeTree(session.family, (key) => open(key, "Branches")));
    } else if (name === "Metrics") {
      if (!keys.length) return fallback("No session is selected or open.");
      const place = h("div", { class: "kern-rendered" }, h("p", { class: "kern-soft" }, "Computing…"));
      panel.append(place);
      metrics({ keys }, (answer) => putRendered(place, answer.rendered));
    } else if (name === "Plots") {
      if (!keys.length) return fallback("No session is selected or open.");
      const of = keys.length === 1 ? "" : ` of ${many(keys.length, "selected session")}`;
      panel.append(...[["runs", `Tokens, cost and time over runs${of}`], ["tools", `Tools${of}`]].map(([kind, label]) => plot(keys, kind, label)));
    } else if (result) {
      panel.append(putRendered(h("div", { class: "kern-rendered" }), result.rendered));
    } else {
      fallback("Results of “Compare” and “Summarize” appear here.");
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
      branch: [`Branch name, ${where} (optional)`, ""],
      rename: ["Title", session?.title ?? ""],
      tag: ["Tags, separated by commas", session?.tags.join(", ") ?? ""],
      frame: [`Load ${many(selection().length, "session")} as a DataFrame`, ""],
      export: [`Export ${many(selection().length, "session")} to a file next to the notebook`, ""],
    };
    const [question, value] = questions[kind];
    const choices = {
      frame: ["sessions", "runs", "messages", "tool_calls", "scores"].map((one) => [one, one.replace("_", " ")]),
      export: [["bundle", "Bundle for import (.json)"], ["page", "HTML page (.html)"]],
    }[kind];
    const control = choices ? h("select", {}, ...choices.map(([one, name]) => h("option", { value: one }, name)))
      : input({ class: "kern-b-wide" });
    control.value = kind === "frame" ? "messages" : choices?.[0][0] ?? value;
    const submit = async () => {
      go.disabled = true;
      const done = await { branch, rename, tag, frame: load, export: writeFile }[kind](control.value, run, index);
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
    shell.told(`Created branch ${answer.name}.`, answer.line, button("Open branch", () => open(answer.key)));
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

  async function writeFile(kind) {
    const answer = await shell.ask("export", { keys: selection(), kind });
    if (!answer) return false;
    shell.told(answer.said, answer.line);
    return true;
  }

  async function load(name) {
    const answer = await shell.ask("cell", { keys: selection(), frame: name });
    if (!answer) return false;
    const done = await copy(answer.line);
    shell.told(done ? "Copied. Paste it into a cell:" : "Paste into a cell:", answer.line);
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
    readOnly = answer.read_only;
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
