// A transcript: runs and tool calls folded, long texts cut, pictures got when they are unfolded.

function makeTranscript(shell, { key, branch }) {
  const root = h("div", { class: "kern-b-transcript" });
  const bodies = new Map(); // run index -> the element its messages are in
  let next = null;
  const more = button("Show more", async () => {
    more.disabled = true;
    const answer = await shell.ask("more", { key, run_index: next[0], position: next[1] });
    more.disabled = false;
    if (answer) put(answer, false);
  });

  // A text. `at` says where it is, as the kernel's call takes it.
  const text = (part, at, code) => readable(part, code ? "pre" : "div", () => shell.ask("text", { key, ...at }));

  const pictures = (names, at) => names.map((label, number) => {
    const position = h("div", { class: "kern-b-media" }, h("em", { class: "kern-soft" }, `[${label}]`));
    position.load = async () => {
      position.load = null;
      const answer = await shell.attempt("picture", { key, ...at, number });
      if (answer.value) position.replaceChildren(picture(answer.value.source, answer.value.alt));
      else if (answer.error) position.replaceChildren(h("em", { class: "kern-soft" }, `[${label}] ${answer.error.message}`));
    };
    return position;
  });

  const call = (one, run, position) => h("details", { class: "kern-b-call" },
    h("summary", {}, h("bdi", { class: "kern-code" }, one.line)),
    ...["args", "result"].filter((name) => one[name]).map((name) => h("div", { class: "kern-b-part" },
      h("div", { class: "kern-soft" }, name === "args" ? "arguments" : "result"),
      text(one[name], { run_index: run, position, part: name, number: one.number }, true))),
    ...pictures(one.pictures, { run_index: run, position, tool_call: one.number }));

  // Sets `place` of the Python object.
  const point = (run, index) => shell.attempt("point", { key, run_index: run, message_index: index });

  const message = (one, run) => {
    const here = one.index === null || !branch ? "" : button("Branch here", () => branch(run, one.index, `after message ${one.at}`),
      { class: "kern-button kern-quiet", "aria-label": `Branch after message ${one.at}` });
    const pointed = () => { if (one.index !== null) point(run, one.index); };
    return h("div", { class: `kern-b-message${one.answer ? " kern-b-answer" : ""}`, on: { click: pointed, focusin: pointed } },
      h("div", { class: "kern-b-who" }, h("bdi", { class: "kern-b-role" }, one.role), h("span", { class: "kern-soft" }, one.at)),
      h("div", { class: "kern-b-content" },
        one.text || one.left ? text(one, { run_index: run, position: one.position, part: "content", number: 0 }, false) : "",
        ...pictures(one.pictures, { run_index: run, position: one.position, tool_call: null }),
        ...one.calls.map((each) => call(each, run, one.position))),
      h("div", { class: "kern-b-act" }, here));
  };

  const ending = (one, run) => {
    const who = { calls: "tool calls", error: "✗ error", waiting: "pending" }[one.kind];
    const content = one.kind === "calls" ? one.calls.map((each) => call(each, run, -1))
      : [text({ left: 0, ...one }, { run_index: run, position: 0, part: "error", number: 0 }, one.kind === "waiting")];
    return h("div", { class: `kern-b-message kern-b-${one.kind}` },
      h("div", { class: "kern-b-who" }, h("span", { class: "kern-b-role" }, who)), h("div", { class: "kern-b-content" }, ...content));
  };

  const load = (element) => element.querySelectorAll(".kern-b-media").forEach((position) => position.load?.());

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
    head.addEventListener("click", () => {
      fold(head, body, body.hidden);
      if (run.index !== null) point(run.index, null);
    });
    const here = run.index === null || !branch ? "" : button("Branch here", () => branch(run.index, null, `after run ${run.index}`),
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
    if (!bodies.size) root.append(h("p", { class: "kern-soft" }, "No runs."));
  }

  const foldAll = (open) => root.querySelectorAll(".kern-b-run").forEach((run) => {
    fold(run.querySelector(".kern-b-run-head"), run.querySelector(".kern-b-run-body"), open);
  });
  return { root, put, foldAll };
}
