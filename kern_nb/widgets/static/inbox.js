// The inbox: what paused runs wait for, by run. What is on the screen stays where it is; what is new comes below.

const EVERY = 2000; // milliseconds between looks
const AT_ONCE = 20; // runs that are shown at first

function makeRun(shell, inbox) {
  const title = h("h3", {});
  const place = h("bdi", { class: "kern-code" });
  const facts = h("span", { class: "kern-soft" });
  const asked = h("p", { class: "kern-text kern-i-asked" });
  const talk = h("div", { class: "kern-rendered" });
  const conversation = h("details", {}, h("summary", {}, "Messages"), talk);
  const list = h("div", {});
  const foot = h("div", { class: "kern-i-foot", role: "status" });
  title.append(place, " ", facts);
  const element = h("section", { class: "kern-i-run", tabindex: -1 }, title, asked, conversation, list, foot);
  const cards = new Map();
  let key = "";
  let footing = "";

  conversation.addEventListener("toggle", async () => {
    if (!conversation.open) return;
    const markup = await shell.ask("conversation", { key });
    if (markup !== undefined) putRendered(talk, markup);
  });

  const goOn = async () => {
    const done = await shell.ask("resume", { key });
    if (done?.said) shell.told(done.said, done.line);
    await inbox.refresh();
  };

  const outcome = (run) => {
    const { going } = run;
    if (!going) return run.status ? [h("span", { class: "kern-soft" }, `Run resumed: ${run.status}`)] : [];
    if (going.state === "going") return [h("span", { class: "kern-a-busy" }, "Resuming the run…")];
    const failed = going.state !== "ended";
    const said = going.state === "failed" ? `✗ ${going.error.message}` : failed ? "Stopped." : `${going.status === "COMPLETED" ? "✓ " : ""}${going.status}`;
    return [h("strong", {}, said), going.error?.hint ? h("span", { class: "kern-soft" }, ` ${going.error.hint}`) : "",
      going.text ? readable(going) : "", failed && run.here ? button("Retry", goOn) : ""];
  };

  const drawFoot = (run) => {
    const now = JSON.stringify([run.left, run.elsewhere, run.ready, run.going, run.here, run.status, run.line]);
    if (now === footing) return;
    footing = now;
    const focused = foot.contains(document.activeElement);
    if (run.ready) {
      const what = h("span", {}, "All requirements are resolved. ");
      foot.replaceChildren(what, ...(run.here
        ? [button("Continue", goOn, { class: "kern-button kern-a-main", title: `by the agent in ${run.here}` })]
        : [h("span", { class: "kern-soft" }, `${run.agent || "The agent"} is not a variable in this notebook. Create it, or resume elsewhere: `), copyable(run.line)]));
    } else if (run.left) {
      foot.replaceChildren(run.elsewhere ? `${run.elsewhere} more pending for other assignees.` : "");
    } else {
      foot.replaceChildren(...outcome(run));
    }
    if (focused && !foot.contains(document.activeElement)) element.focus({ preventScroll: true });
  };

  return {
    element,
    cards,
    continue: () => foot.querySelector("button"),
    update(run) {
      key = run.key;
      element.setAttribute("aria-label", `Run ${run.place}`);
      place.textContent = run.place;
      facts.textContent = run.agent ? `by ${run.agent}` : "";
      asked.textContent = run.asked ? `“${run.asked}”` : "";
      asked.hidden = !run.asked;
      const there = new Set(run.cards.map((card) => card.key));
      cards.forEach((card, name) => {
        if (there.has(name)) return;
        card.element.remove();
        cards.delete(name);
      });
      for (const data of run.cards) {
        let card = cards.get(data.key);
        if (!card) {
          card = makeAsked(shell, inbox.refresh, inbox.people);
          cards.set(data.key, card);
          list.append(card.element);
        }
        card.update(data);
      }
      drawFoot(run);
    },
  };
}

function render({ model, el }) {
  const shell = makeShell(model, el, "Inbox");
  const count = h("strong", {});
  const announce = h("span", { class: "kern-hidden", role: "status" });
  const whose = h("select", {});
  const by = h("input", { type: "text", maxlength: 200, size: 12, "data-lm-suppress-shortcuts": "true" });
  const list = h("div", { class: "kern-i-list" });
  const empty = h("p", { class: "kern-i-empty" });
  const more = button("Show more", () => { most += AT_ONCE; watch.now(); });
  const runs = new Map();
  let most = AT_ONCE;
  let people = [];
  let left = null;

  const inbox = { refresh: () => watch.now(), people: () => people };

  const show = (found) => {
    people = found.people.map(({ name }) => name);
    count.textContent = found.left ? `${found.left} pending` : "No pending requirements";
    if (left !== null && found.left > left) announce.textContent = `${found.left} pending`;
    left = found.left;
    const options = [["", "anyone"], ...found.people.map(({ key, name }) => [key, name])];
    if (whose.dataset.now !== JSON.stringify(options)) {
      whose.dataset.now = JSON.stringify(options);
      whose.replaceChildren(...options.map(([value, name]) => h("option", { value }, name)));
    }
    whose.value = found.assignee;
    if (document.activeElement !== by) by.value = found.by;
    const there = new Set(found.runs.map((run) => run.key));
    runs.forEach((run, key) => {
      if (there.has(key)) return;
      run.element.remove();
      runs.delete(key);
    });
    for (const data of found.runs) {
      let run = runs.get(data.key);
      if (!run) {
        run = makeRun(shell, inbox);
        runs.set(data.key, run);
      }
      run.update(data);
    }
    // In the order of the list; what stands right is not touched, so that focus and scroll stay.
    found.runs.forEach((data, at) => {
      const { element } = runs.get(data.key);
      if (list.children[at] !== element) list.insertBefore(element, list.children[at] ?? null);
    });
    empty.hidden = found.runs.length > 0;
    empty.textContent = found.assignee ? `No pending requirements for ${whose.selectedOptions[0]?.textContent}.` : "No pending requirements. New ones appear automatically.";
    more.hidden = !found.more;
    more.textContent = `Show more (${found.more} more runs)`;
    clear.disabled = !found.runs.some((run) => run.going?.state !== "going" && run.cards.some((card) => !card.waiting));
    shell.seen();
  };

  const clear = button("Clear resolved", async () => {
    await shell.ask("clear", {});
    await watch.anew();
  });
  whose.addEventListener("change", async () => {
    await shell.ask("narrow", { assignee: whose.value });
    await watch.anew();
  });
  by.addEventListener("change", () => shell.ask("answer_as", { by: by.value }));

  const bar = h("div", { class: "kern-bar", role: "toolbar", "aria-label": "Inbox" }, count, announce,
    h("label", { class: "kern-i-inline" }, "for ", whose), h("label", { class: "kern-i-inline" }, "answering as ", by),
    h("span", { class: "kern-a-end" }, clear));
  shell.body.append(bar, empty, list, more);
  const watch = watching(shell, model, EVERY, {
    ask: (mark) => shell.attempt("poll", { mark, limit: most }),
    show: (found) => { if (found) show(found); },
    heard: (message) => { if (message?.event === "changed") watch.now(); },
  });
  watch.now();
  return watch.stop;
}

export default { render };
