// Two conversations side by side. What differs is open, what is the same is folded until it is asked for.

const SHOWN = 50; // turns of one stretch that are asked for at once

// The pieces of a text: those of one side alone are marked, in `del` or `ins`, which say so without colour, too.
function pieces(parts, mark) {
  return parts.map(([alone, text]) => (alone ? h(mark, {}, text) : text));
}

function side(shell, row, name, contender) {
  const one = row[name];
  if (!one) return h("td", { class: "kern-none" }, h("span", { class: "kern-soft" }, "—"));
  const mark = name === "a" ? "del" : "ins";
  const body = h("div", {},
    one.text.length ? h("p", { class: "kern-text" }, pieces(one.text, mark)) : null,
    one.calls.length ? h("p", { class: "kern-text kern-code" }, pieces(one.calls, mark)) : null);
  const whole = button("Show all", async () => {
    const text = await shell.ask("whole", { contender, turn: row.turn, side: name });
    if (text !== undefined) body.replaceChildren(h("p", { class: "kern-text" }, text));
    whole.remove();
  }, { class: "kern-button kern-quiet", "aria-label": `Show all of ${one.place}` });
  return h("td", {}, h("div", { class: "kern-place" }, one.place), body, one.cut ? whole : null);
}

function turn(shell, row, contender) {
  const kind = { matched: "same", changed: "changed", "only in a": "gone", "only in b": "new" }[row.status];
  return h("tr", { class: `kern-turn kern-${kind}`, tabindex: row.status === "matched" ? null : -1 },
    h("td", { class: "kern-sign" }, h("abbr", { title: row.status }, row.sign)),
    h("th", { scope: "row" }, row.role),
    side(shell, row, "a", contender), side(shell, row, "b", contender));
}

// One stretch of turns: a row that folds it, and its turns below, asked for when they are first seen.
function stretch(shell, [first, number, same, inherited], contender) {
  const group = h("tbody", {});
  let shown = 0;
  const more = h("tr", {}, h("td", { colspan: 4 }));
  const fetch = async () => {
    const rows = await shell.ask("rows", { contender, first: first + shown, number: Math.min(SHOWN, number - shown) });
    if (rows === undefined) return;
    more.remove();
    group.append(...rows.map((row) => turn(shell, row, contender)));
    shown += rows.length;
    if (shown < number) {
      more.firstChild.replaceChildren(button(`Show ${Math.min(SHOWN, number - shown)} more of ${number} turns`, fetch));
      group.append(more);
    }
  };
  if (!same) return { group, fetch };
  const what = `${number} identical ${number === 1 ? "turn" : "turns"}${inherited ? `, ${inherited} inherited` : ""}`;
  const toggle = button(what, async () => {
    const open = toggle.getAttribute("aria-expanded") !== "true";
    toggle.setAttribute("aria-expanded", String(open));
    if (open && !shown) await fetch();
    [...group.children].slice(1).forEach((row) => { row.hidden = !open; });
  }, { "aria-expanded": "false", class: "kern-button kern-quiet kern-fold" });
  group.append(h("tr", { class: "kern-same" }, h("td", { class: "kern-sign" }, h("abbr", { title: "matched" }, "=")),
    h("td", { colspan: 3 }, toggle)));
  return { group, fetch };
}

function render({ model, el }) {
  const shell = makeShell(model, el, "Comparison");
  const chooser = h("select", {});
  const said = h("p", { class: "kern-said", role: "status" });
  const table = h("table", { class: "kern-sides" });
  const scroller = h("div", { class: "kern-scroll", tabindex: 0, role: "region", "aria-label": "Turns side by side" }, table);
  const metrics = h("details", {}, h("summary", {}, "Totals"));
  let differing = [];
  let at = -1;

  const go = (to) => {
    const rows = differing.flatMap((group) => [...group.querySelectorAll("tr.kern-turn")].slice(0, 1));
    if (!rows.length) return;
    at = Math.max(0, Math.min(rows.length - 1, to));
    rows[at].scrollIntoView({ block: "center" });
    rows[at].focus({ preventScroll: true });
    where.textContent = `Difference ${at + 1} of ${rows.length}`;
  };
  const where = h("span", { class: "kern-soft", role: "status" });
  const moves = [button("First difference", () => go(0)), button("Previous", () => go(at - 1)), button("Next", () => go(at + 1))];
  const bar = h("div", { class: "kern-bar", role: "toolbar", "aria-label": "Differences" }, moves, where);

  const show = async () => {
    const contender = chooser.selectedIndex;
    const found = await shell.ask("stretches", { contender });
    if (found === undefined) return;
    said.textContent = found.said;
    at = -1;
    where.textContent = "";
    moves.forEach((move) => { move.disabled = found.parts === null; });
    const parts = found.stretches.map((one) => ({ ...stretch(shell, one, contender), same: one[2] }));
    differing = parts.filter((part) => !part.same).map((part) => part.group);
    const heads = ["", "role", baseline, chooser.value].map((text) => h("th", { scope: "col" }, text));
    const unseen = found.unseen ? h("tfoot", {}, h("tr", {}, h("td", { colspan: 4 },
      `… ${found.unseen} more turns; see .comparison.turns.`))) : null;
    table.replaceChildren(...[h("thead", {}, h("tr", {}, heads)), ...parts.map((part) => part.group), unseen].filter(Boolean));
    // The first few that differ at once; the others when they come into view.
    for (const part of parts.filter((one) => !one.same).slice(0, 5)) await part.fetch();
    const rest = new Map(parts.filter((one) => !one.same).slice(5).map((one) => [one.group, one.fetch]));
    watcher.disconnect();
    rest.forEach((fetch, group) => {
      group.append(h("tr", { class: "kern-turn kern-soon" }, h("td", { colspan: 4 }, "…")));
      watcher.observe(group);
    });
    waiting = rest;
    shell.seen();
  };
  let waiting = new Map();
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const fetch = waiting.get(target);
      if (!isIntersecting || !fetch) continue;
      waiting.delete(target);
      watcher.unobserve(target);
      target.replaceChildren();
      fetch();
    }
  }, { root: scroller, rootMargin: "400px" });

  let baseline = "";
  const start = async () => {
    const found = await shell.ask("start", {});
    if (found === undefined) return;
    baseline = found.baseline;
    chooser.replaceChildren(...found.contenders.map((name) => h("option", {}, name)));
    metrics.replaceChildren(metrics.firstChild, putRendered(h("div", { class: "kern-rendered" }), found.metrics));
    choice.hidden = found.contenders.length < 2;
    await show();
  };
  const choice = field("Compare with the baseline", chooser);
  chooser.addEventListener("change", show);
  shell.again = start;
  shell.body.append(said, metrics, choice, bar, scroller);
  scroller.addEventListener("keydown", (event) => {
    if (event.target.closest("button, input, select")) return;
    const to = { n: at + 1, p: at - 1, f: 0 }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    go(to);
  });
  start();
  return () => {
    watcher.disconnect();
    shell.close();
  };
}

export default { render };
