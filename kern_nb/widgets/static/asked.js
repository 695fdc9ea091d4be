// What a run waits for, and the ways to answer it: the inbox and the chat have these cards in common.

const LIMIT = 100_000; // characters of an answer

// A text field in which keys are text: JupyterLab's shortcuts (Shift+Enter runs the cell) are for elsewhere.
function writing(attributes = {}, text = "") {
  const area = h("textarea", {
    rows: 1, maxlength: LIMIT, spellcheck: false, "data-lm-suppress-shortcuts": "true", ...attributes, class: `kern-a-area ${attributes.class ?? ""}`,
  });
  area.value = text;
  const fit = () => {
    area.style.height = "auto";
    area.style.height = `${Math.min(260, area.scrollHeight + 2)}px`;
  };
  area.addEventListener("input", fit);
  area.fit = fit;
  requestAnimationFrame(fit);
  return area;
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

const SIGNS = { confirmation: "?", user_input: "✎", user_feedback: "☰", external_execution: "⚙", handoff: "→" };

// A card of one requirement. `after` is called when something was done; `people` gives names to hand on to.
function makeAsked(shell, after, people = () => []) {
  const element = h("article", { class: "kern-a-card", tabindex: -1 });
  const alert = h("div", { class: "kern-alert", role: "alert" });
  let data = null;
  let form = ""; // the form that is open: edit, reject or hand
  let fields = []; // what is typed into, with how to read it
  let pending = false;

  const cut = (part) => (part.left ? [part.text, h("span", { class: "kern-soft" }, ` … ${part.left.toLocaleString("en")} more characters`)] : part.text);
  const row = (name, ...value) => [h("dt", {}, name), h("dd", {}, value)];

  const refuse = ({ message, hint }) => alert.replaceChildren(
    h("div", { class: "kern-what" }, h("strong", {}, "✗ "), message), hint ? h("div", { class: "kern-hint" }, hint) : "");

  const act = async (call, args) => {
    if (pending) return;
    pending = true;
    alert.replaceChildren();
    const inside = element.contains(document.activeElement);
    element.setAttribute("aria-busy", "true"); // its buttons are not disabled: the focus would be lost
    const done = await shell.ask(call, { key: data.key, ...args });
    pending = false;
    element.removeAttribute("aria-busy");
    if (done?.refused) refuse(done.refused);
    else if (done) {
      form = "";
      shell.told(done.said, done.line);
    }
    await after(done);
    if (inside && !element.contains(document.activeElement)) element.focus({ preventScroll: true });
  };

  const open = (name) => {
    form = form === name ? "" : name;
    alert.replaceChildren();
    draw();
    element.querySelector("textarea, .kern-a-form input")?.focus();
  };

  // Says below a field what its text will be taken for.
  const reading = (area, asText) => {
    const said = h("small", { class: "kern-soft" });
    const say = () => {
      const text = area.value;
      said.textContent = !text ? "" : asText() || !isJson(text) ? "Text" : "JSON";
    };
    area.addEventListener("input", say);
    say();
    return [said, say];
  };

  const editor = () => {
    fields = [];
    const rows = data.args.map((arg, place) => {
      if (arg.whole === null) return row(arg.name, h("em", {}, "too long to edit here"));
      const area = writing({ "aria-label": `${arg.name}, ${arg.is_text ? "text" : "JSON"}`, class: "kern-code" }, arg.whole);
      const wrong = h("small", { class: "kern-a-wrong" });
      const check = () => {
        const bad = !arg.is_text && !isJson(area.value);
        wrong.textContent = bad ? "✗ Invalid JSON: enter a number, true, false, null, \"text\", a list or an object" : "";
        area.toggleAttribute("aria-invalid", bad);
        return !bad;
      };
      area.addEventListener("input", check);
      fields.push({ place, area, check, before: arg.whole });
      return row(arg.name, area, wrong);
    });
    const approve = () => {
      const bad = fields.find(({ check }) => !check());
      if (bad) {
        bad.area.focus();
        return;
      }
      const changed = fields.filter(({ area, before }) => area.value !== before);
      act("approve", { edits: Object.fromEntries(changed.map(({ place, area }) => [place, area.value])) });
    };
    return [h("dl", {}, rows), h("div", { class: "kern-actions" },
      button("Approve as edited", approve, { class: "kern-button kern-a-main" }), button("Cancel", () => open("edit")))];
  };

  const answerer = () => {
    const plain = h("input", { type: "checkbox" });
    plain.checked = data.kind === "handoff";
    const says = [];
    const told = data.fields.length
      ? data.fields
      : [{ name: data.kind === "handoff" ? "Your answer" : "Result", filled: "", is_text: false, needed: true }];
    fields = told.map(({ name, filled, is_text, needed }) => {
      const area = writing({ "aria-label": name, required: needed }, drafts.get(name) ?? filled);
      area.addEventListener("input", () => drafts.set(name, area.value));
      const [said, say] = reading(area, () => is_text || plain.checked);
      says.push(say);
      return { name, area, said, needed };
    });
    plain.addEventListener("change", () => says.forEach((say) => say()));
    const send = () => act("answer", { texts: fields.map(({ area }) => area.value), as_text: plain.checked });
    return [
      h("dl", {}, fields.map(({ name, area, said, needed }) => row([name, needed && data.fields.length ? h("abbr", { title: "required" }, " *") : ""], area, said))),
      h("div", { class: "kern-actions" }, button("Answer", send, { class: "kern-button kern-a-main" }), others(),
        h("label", { class: "kern-a-check" }, plain, "Send as text, even if it is JSON")),
    ];
  };
  const drafts = new Map();

  // Questions with options: one choice or several of each, sent as positions; a question without options takes a text.
  const chooser = () => {
    const name = `kern-choice-${Math.random().toString(36).slice(2)}`;
    const parts = data.questions.map((question, number) => {
      const draft = `question ${number}`;
      const title = question.header ? [h("strong", {}, h("bdi", {}, question.header)), ": "] : [];
      const legend = h("legend", {}, title, h("bdi", {}, question.text), question.several ? h("span", { class: "kern-soft" }, " (several can be chosen)") : "");
      if (!question.options.length) {
        const area = writing({ "aria-label": question.text }, drafts.get(draft) ?? "");
        area.addEventListener("input", () => drafts.set(draft, area.value));
        return { element: h("fieldset", { class: "kern-a-question" }, legend, area), text: () => area.value, focus: area };
      }
      const inputs = question.options.map((_, position) => {
        const input = h("input", { type: question.several ? "checkbox" : "radio", name: `${name}-${number}` });
        input.checked = (drafts.get(draft) ?? []).includes(position);
        return input;
      });
      const chosen = () => inputs.flatMap((input, position) => (input.checked ? [position] : []));
      const options = question.options.map(({ label, description }, position) => h("label", { class: "kern-a-option" }, inputs[position],
        h("span", {}, h("bdi", {}, label), description ? h("span", { class: "kern-soft" }, " — ", h("bdi", {}, description)) : "")));
      const element = h("fieldset", { class: "kern-a-question" }, legend, options);
      element.addEventListener("change", () => drafts.set(draft, chosen()));
      return { element, text: () => JSON.stringify(chosen()), focus: inputs[0], missing: () => !chosen().length };
    });
    const send = () => {
      const open = parts.findIndex(({ missing }) => missing?.());
      if (open >= 0) {
        refuse({ message: `No choice for “${data.questions[open].header || data.questions[open].text}”.`, hint: "Choose an option." });
        parts[open].focus.focus();
        return;
      }
      act("answer", { texts: parts.map(({ text }) => text()), as_text: false });
    };
    return [...parts.map((part) => part.element),
      h("div", { class: "kern-actions" }, button("Answer", send, { class: "kern-button kern-a-main" }), others())];
  };

  const rejecter = () => {
    const note = writing({ rows: 2 });
    return h("div", { class: "kern-a-form" }, h("label", { class: "kern-field kern-a-wide" }, h("span", {}, "Reason (sent to the model)"), note),
      h("div", { class: "kern-actions" }, button("Reject", () => act("reject", { note: note.value }), { class: "kern-button kern-a-main" }),
        button("Cancel", () => open("reject"))));
  };

  const hander = () => {
    const names = h("datalist", { id: `kern-people-${Math.random().toString(36).slice(2)}` }, people().map((name) => h("option", { value: name })));
    const to = h("input", { type: "text", list: names.id, maxlength: 200, "data-lm-suppress-shortcuts": "true" });
    const note = writing();
    const send = () => act("hand_off", { to: to.value, note: note.value });
    to.addEventListener("keydown", (event) => { if (event.key === "Enter") send(); });
    return h("div", { class: "kern-a-form" }, h("div", { class: "kern-a-row" }, field("To", to), names,
      h("label", { class: "kern-field kern-a-wide" }, h("span", {}, "Note"), note)),
    h("div", { class: "kern-actions" }, button("Hand off", send, { class: "kern-button kern-a-main" }), button("Cancel", () => open("hand"))));
  };

  const others = () => [
    button("Reject…", () => open("reject"), { "aria-expanded": String(form === "reject") }),
    button("Hand off…", () => open("hand"), { "aria-expanded": String(form === "hand") }),
  ];

  const actions = () => {
    if (!data.waiting) return null;
    if (form === "edit") return editor();
    if (data.questions.length) return chooser();
    if (data.kind !== "confirmation") return answerer();
    return h("div", { class: "kern-actions" },
      button("Approve", () => act("approve", { edits: {} }), { class: "kern-button kern-a-main" }),
      data.args.length && !data.fixed ? button("Edit…", () => open("edit"), { "aria-expanded": "false" }) : null, others());
  };

  const draw = () => {
    const { kind, tool, title, prompt, args, raw, note, state, waiting } = data;
    element.className = `kern-a-card${waiting ? "" : " kern-a-done"}`;
    element.setAttribute("aria-label", `${tool || kind}, ${waiting ? title : state}`);
    const facts = [waiting && data.for ? `for ${data.for}` : "", waiting && data.until ? `until ${data.until}` : ""].filter(Boolean);
    const head = h("header", {},
      h("span", { class: "kern-a-sign", "aria-hidden": "true" }, waiting ? SIGNS[kind] ?? "?" : ""),
      h("strong", { class: tool ? "kern-code" : "" }, h("bdi", {}, tool || "Question")), " ",
      h("span", { class: "kern-soft" }, waiting ? title : ""),
      h("span", { class: "kern-a-state" }, h("bdi", {}, state)),
      h("span", { class: "kern-soft kern-a-end" }, facts.map((fact) => [h("bdi", {}, fact), " · "]), since(data.at, data.since)));
    const shown = waiting && form === "edit" ? [] : args.map((arg) => row(arg.name,
      h(arg.now === null ? "span" : "del", { class: "kern-text kern-code" }, cut(arg)),
      arg.now === null ? null : [" ", h("ins", { class: "kern-text kern-code" }, arg.now)]));
    const result = data.answer ? row("answer", h("span", { class: "kern-text kern-code" }, data.answer)) : [];
    element.replaceChildren(...[
      head,
      prompt.text ? h("p", { class: "kern-text" }, cut(prompt)) : null,
      note.text ? h("p", { class: "kern-text kern-a-note" }, h("span", { class: "kern-soft" }, "Note: "), cut(note)) : null,
      raw ? h("pre", { class: "kern-text" }, cut(raw)) : null,
      shown.length || result.length ? h("dl", {}, shown, result) : null,
      data.more ? h("p", { class: "kern-soft" }, `… ${data.more} more arguments`) : null,
      alert,
      ...[actions()].flat(),
      waiting && form === "reject" ? rejecter() : null,
      waiting && form === "hand" ? hander() : null,
    ].filter(Boolean));
    tick(element);
  };

  return {
    element,
    refuse,
    get waits() { return data.waiting; },
    update(now) {
      const before = data;
      data = now;
      if (before && JSON.stringify(before) === JSON.stringify(now)) return;
      // What somebody is typing stays, as long as it can still be sent.
      if (before && now.waiting && (form || element.contains(document.activeElement)) && before.key === now.key) {
        if (form || document.activeElement.matches("textarea, input")) {
          element.querySelector(".kern-a-state bdi").textContent = now.state;
          return;
        }
      }
      const inside = element.contains(document.activeElement);
      if (!now.waiting) form = "";
      draw();
      if (inside && !element.contains(document.activeElement)) element.focus({ preventScroll: true });
    },
  };
}
