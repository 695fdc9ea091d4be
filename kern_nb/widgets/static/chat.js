// A conversation: turns as they are stored, below them the one under way, and where to write.

const LOOKS = 3000; // milliseconds between looks at what was done elsewhere
const SAID = 400; // characters of an answer that a screen reader is told at its end

function render({ model, el }) {
  const shell = makeShell(model, el, "Chat");
  const who = h("strong", {});
  const where = h("bdi", { class: "kern-code" });
  const facts = h("span", { class: "kern-soft" });
  const back = h("span", {});
  const earlier = button("Show earlier runs", () => showEarlier());
  const list = h("div", {});
  const log = h("div", { class: "kern-c-log", role: "log", "aria-live": "off", tabindex: 0, "aria-label": "Conversation" },
    h("div", { class: "kern-c-earlier" }, earlier), list);
  const announce = h("div", { class: "kern-hidden", role: "status" });
  const input = writing({ rows: 2, class: "kern-c-input", maxlength: null });
  const hint = h("span", { class: "kern-soft", role: "status" });
  const send = button("Send", () => say(), { class: "kern-button kern-a-main" });
  const stop = button("Stop", () => halt());
  const turns = new Map();
  let seen = null; // what the kernel said last
  let live = null; // the turn under way
  let sends = 0; // how often something was sent
  let taken = 0; // the last of them that the kernel has
  let sending = false; // it is not seen yet what came of the last
  let early = null; // steps of the turn under way that came before the turn itself

  const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  const follow = (was) => { if (was) log.scrollTop = log.scrollHeight; };

  const text = (part, at, kind = "div") => readable(part, kind, at && (() => shell.ask("text", at)));

  const pictures = (names, at) => names.map((label, number) => {
    const position = h("div", { class: "kern-c-media" }, h("em", { class: "kern-soft" }, `[${label}]`));
    shell.attempt("picture", { ...at, number }).then(({ value, error }) => {
      if (value) position.replaceChildren(picture(value.source, value.alt));
      else position.replaceChildren(h("em", { class: "kern-soft" }, `[${label}] ${error.message}`));
    });
    return position;
  });

  const callOf = (one, at, key) => h("details", { class: "kern-c-call", "data-key": key },
    h("summary", {}, h("bdi", { class: "kern-code" }, one.line)),
    ["args", "result"].filter((name) => one[name]).map((name) => [
      h("div", { class: "kern-soft" }, name === "args" ? "arguments" : "result"),
      text(one[name], at && { ...at, part: name, number: one.number }, "pre")]),
    one.pictures?.length ? pictures(one.pictures, { run_index: at.run_index, position: at.position, tool_call: one.number }) : null);

  const bubble = (mine, name, ...content) => h("div", { class: mine ? "kern-c-said kern-c-mine" : "kern-c-said" },
    h("div", { class: "kern-c-who" }, h("bdi", {}, name)), content);

  const messageOf = (turn, one) => {
    const at = { run_index: turn.index, position: one.position };
    const content = [
      one.text || one.left ? text(one, { ...at, part: "content", number: 0 }) : null,
      pictures(one.pictures, { ...at, tool_call: null }),
      one.calls.map((each) => callOf(each, at, `${one.position}.${each.number}`)),
    ].flat(Infinity).filter(Boolean);
    return content;
  };

  // What one says in several messages stands together.
  const saidIn = (turn) => {
    const found = [];
    for (const one of turn.messages) {
      const content = messageOf(turn, one);
      if (!content.length) continue;
      if (found.at(-1)?.role === one.role) found.at(-1).content.push(...content);
      else found.push({ role: one.role, content });
    }
    return found.map(({ role, content }) => bubble(role === "user", role === "user" ? "You" : role === "assistant" ? seen.agent : role, content));
  };

  const endingOf = (turn, one) => {
    if (one.kind === "calls") return one.calls.map((each) => callOf(each, { run_index: turn.index, position: -1 }, `-1.${each.number}`));
    if (turn.status === "CANCELLED") return h("p", { class: "kern-c-stopped" }, "Stopped.");
    return h("div", { class: "kern-c-failed" }, h("strong", {}, "✗ "), text(one, { run_index: turn.index, position: 0, part: "error", number: 0 }, "span"));
  };

  const goOn = async (key) => {
    if (sending) return;
    const done = await sent(() => shell.ask("resume", { key }));
    if (done) shell.told("Resuming.", done.line);
    if (!shell.root.contains(document.activeElement)) input.focus();
  };

  // A turn that is stored. Its cards are kept when it changes, with what is typed into them.
  const makeTurn = (key) => {
    const said = h("div", {});
    const cards = h("div", {});
    const actions = h("div", { class: "kern-actions" });
    const under = h("div", {}); // what is said in it while it is gone on with
    const branched = h("span", { role: "status" });
    const foot = h("footer", { class: "kern-soft" });
    const element = h("article", { class: "kern-c-turn" }, said, under, cards, actions, foot);
    const asked = new Map();
    let now = "";
    const branch = async () => {
      const made = await shell.ask("branch", { key });
      if (!made) return;
      const go = button("Switch to branch", () => move(made.key), { class: "kern-button" });
      branched.replaceChildren("New branch ", h("bdi", { class: "kern-code" }, made.name), " ", go);
      shell.told("Branch created. This chat stays in its session.", made.line);
      go.focus();
    };
    return {
      element,
      under,
      update(turn) {
        const text = JSON.stringify(turn);
        if (text === now) return;
        const cardsBefore = now ? JSON.parse(now).cards.length : 0;
        now = text;
        const open = new Set([...said.querySelectorAll("details[open]")].map((one) => one.dataset.key));
        element.setAttribute("aria-label", `Run ${turn.index}`);
        said.replaceChildren(...[saidIn(turn),
          turn.more ? h("p", { class: "kern-soft" }, "… more messages; see %kern show.") : null,
          turn.ends.map((one) => endingOf(turn, one))].flat(Infinity).filter(Boolean));
        said.querySelectorAll("details").forEach((one) => { one.open = open.has(one.dataset.key); });
        const inside = cards.contains(document.activeElement) || actions.contains(document.activeElement);
        const there = new Set(turn.cards.map((card) => card.key));
        asked.forEach((card, name) => {
          if (there.has(name)) return;
          card.element.remove();
          asked.delete(name);
        });
        for (const data of turn.cards) {
          if (!asked.has(data.key)) {
            const card = makeAsked(shell, () => watch.now());
            asked.set(data.key, card);
            cards.append(card.element);
          }
          asked.get(data.key).update(data);
        }
        actions.replaceChildren(...[
          turn.ready ? button("Continue", () => goOn(key), { class: "kern-button kern-a-main" }) : null,
          turn.again ? button(turn.status === "ERROR" ? "Retry" : "Resume", () => goOn(key)) : null].filter(Boolean));
        foot.replaceChildren(h("bdi", {}, turn.at), ` · ${turn.facts.join(" · ")} `,
          button("Branch from here", branch, { class: "kern-button kern-quiet", "aria-label": `Branch from here, after run ${turn.index}` }), branched);
        if (inside && cardsBefore && !element.contains(document.activeElement)) input.focus();
      },
    };
  };

  // The turn under way: what was said to the agent, and what it says, piece by piece.
  const makeLive = (view) => {
    const parts = h("div", {});
    const answer = bubble(false, seen.agent, parts);
    const busy = h("div", { class: "kern-a-busy" }, "…");
    const element = h("article", { class: "kern-c-turn kern-c-now", "aria-label": "Run in progress" },
      view.on === null ? bubble(true, "You", h("div", { class: "kern-text", dir: "auto" }, view.asked)) : null, answer, busy);
    const calls = new Map();
    let writingTo = null;
    let next = view.next;
    answer.hidden = true;
    const add = (part) => {
      answer.hidden = false;
      if (part.kind === "text") {
        if (!writingTo) {
          writingTo = document.createTextNode("");
          parts.append(h("div", { class: "kern-text", dir: "auto" }, writingTo));
        }
        writingTo.appendData(part.text);
      } else {
        writingTo = null;
        const made = callOf(part, null, part.id);
        const before = calls.get(part.id);
        if (before) {
          made.open = before.open;
          before.replaceWith(made);
        } else parts.append(made);
        calls.set(part.id, made);
      }
    };
    view.parts.forEach(add);
    busy.textContent = view.stopping ? "Stopping…" : "…";
    return {
      element,
      on: view.on,
      // Steps in their order; false where one is missing.
      take({ first, steps }) {
        if (first + steps.length <= next) return true;
        if (first > next) return false;
        const was = atEnd();
        steps.slice(next - first).forEach(add);
        next = first + steps.length;
        follow(was);
        return true;
      },
      stopping() { busy.textContent = "Stopping…"; },
    };
  };

  const failedOf = (one) => h("article", { class: "kern-c-turn", "aria-label": "Error" },
    one.asked ? bubble(true, "You", h("div", { class: "kern-text", dir: "auto" }, one.asked)) : null,
    h("div", { class: "kern-c-failed" }, h("strong", {}, "✗ "), one.error.message,
      one.error.hint ? h("div", { class: "kern-soft" }, one.error.hint) : null),
    one.asked ? h("div", { class: "kern-actions" }, button("Retry", () => say(one.asked))) : null);

  const showTurns = (found, first) => {
    for (const data of found) {
      if (!turns.has(data.key)) turns.set(data.key, makeTurn(data.key));
      turns.get(data.key).update(data);
    }
    const elements = found.map(({ key }) => turns.get(key).element);
    if (first) list.prepend(...elements.filter((one) => one.parentNode !== list));
    else elements.filter((one) => one.parentNode !== list).forEach((one) => list.append(one));
  };

  const announceEnd = (view, failedBefore) => {
    const last = view.turns.at(-1);
    if (view.failed && JSON.stringify(view.failed) !== JSON.stringify(failedBefore)) announce.textContent = `${view.agent} failed: ${view.failed.error.message}`;
    else if (last?.cards.some((card) => card.waiting)) {
      announce.textContent = `${view.agent} is waiting: ${last.cards.filter((card) => card.waiting).map((card) => `${card.tool}, ${card.title}`).join("; ")}`;
    } else if (last?.ends.length) announce.textContent = last.status === "CANCELLED" ? "Stopped." : `${view.agent} failed: ${last.ends[0].text ?? ""}`;
    else {
      const said = last?.messages.filter((one) => one.role !== "user").map((one) => one.text).join(" ") ?? "";
      announce.textContent = `${view.agent}: ${said.slice(-SAID)}`;
    }
  };

  const show = (view) => {
    const was = seen === null || atEnd();
    const other = seen !== null && seen.session !== view.session;
    const ended = live !== null && view.live === null;
    const failedBefore = seen?.failed;
    if (other) {
      turns.clear();
      list.replaceChildren();
    }
    if (seen === null || other) earlier.hidden = view.earlier === null;
    if (seen === null || other) earlier.dataset.before = view.earlier ?? "";
    seen = view;
    who.textContent = view.agent;
    where.textContent = view.session;
    facts.textContent = [view.title && view.title !== view.session ? `“${view.title}”` : "", view.fork].filter(Boolean).join(" · ");
    back.replaceChildren(view.parent ? button(`Back to ${view.parent.name}`, () => move(view.parent.key)) : "");
    input.setAttribute("aria-label", `Message to ${view.agent}`);
    live?.element.remove();
    list.querySelectorAll(":scope > .kern-c-passing").forEach((one) => one.remove());
    showTurns(view.turns, false);
    live = view.live ? makeLive(view.live) : null;
    if (live) (turns.get(live.on)?.under ?? list).append(live.element);
    if (view.failed) {
      const element = failedOf(view.failed);
      element.classList.add("kern-c-passing");
      list.append(element);
    }
    const nothing = !list.children.length;
    log.classList.toggle("kern-c-nothing", nothing);
    tell();
    follow(was || ended);
    if (ended) announceEnd(view, failedBefore);
    shell.seen();
  };

  // However slow the kernel is: from the moment something is sent, what is typed is kept.
  const busy = () => sending || live !== null;

  const tell = () => {
    stop.hidden = !live;
    send.hidden = Boolean(live);
    send.disabled = sending;
    if (!busy()) hint.textContent = "Enter to send, Shift+Enter for a new line.";
    else if (input.value) hint.textContent = "You can send this after the response.";
    else hint.textContent = live ? `${seen.agent} is responding…` : "Sending…";
  };

  const sent = async (call) => {
    sends += 1;
    sending = true;
    tell();
    const mine = sends;
    const answer = await call();
    taken = mine;
    await watch.anew(); // the first look that begins from here on shows what came of it
    return answer;
  };

  const say = async (again) => {
    const said = typeof again === "string" ? again : input.value;
    if (!said.trim() || busy()) return;
    if (again === undefined) input.value = "";
    input.fit();
    input.focus();
    const mine = bubble(true, "You", h("div", { class: "kern-text", dir: "auto" }, said));
    mine.classList.add("kern-c-passing");
    log.classList.remove("kern-c-nothing");
    list.append(mine);
    log.scrollTop = log.scrollHeight;
    const { error } = await sent(() => shell.attempt("say", { text: said }));
    mine.remove();
    if (error && !seen?.failed) {
      shell.fail(error);
      if (again === undefined) input.value = input.value ? `${said}\n${input.value}` : said; // nothing is lost
      input.fit();
      tell();
    }
    if (!shell.root.contains(document.activeElement)) input.focus();
  };

  const halt = async () => {
    live?.stopping();
    await shell.ask("stop", {});
    input.focus();
  };

  const move = async (key) => {
    if (await shell.ask("move", { key }) === undefined) return;
    await watch.anew();
    input.focus();
  };

  const showEarlier = async () => {
    const found = await shell.ask("earlier", { before: Number(earlier.dataset.before) });
    if (!found) return;
    const height = log.scrollHeight;
    const top = log.scrollTop;
    showTurns(found.turns, true);
    log.scrollTop = top + log.scrollHeight - height;
    earlier.dataset.before = found.earlier ?? "";
    earlier.hidden = found.earlier === null;
  };

  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    say();
  });
  input.addEventListener("input", tell);
  shell.body.append(
    h("div", { class: "kern-bar" }, who, h("span", { class: "kern-soft" }, "session"), where, facts, h("span", { class: "kern-a-end" }, back)),
    log, announce,
    h("div", { class: "kern-c-write" }, input, h("div", { class: "kern-actions" }, send, stop, hint)));
  stop.hidden = true;

  let steps = []; // those that came during the last look
  const watch = watching(shell, model, LOOKS, {
    ask: async (mark) => {
      early = steps = [];
      const shows = taken;
      const found = await shell.attempt("poll", { mark });
      early = null;
      if (shows === sends) sending = false;
      return found;
    },
    show: (view) => {
      if (view) show(view);
      tell();
      return steps.every((step) => !live || live.take(step));
    },
    heard: (message) => {
      if (message?.event === "ended") watch.anew();
      else if (message?.event !== "said") return;
      else if (early) early.push(message);
      else if (!live || !live.take(message)) watch.anew();
    },
  });
  watch.now();
  return watch.stop;
}

export default { render };
