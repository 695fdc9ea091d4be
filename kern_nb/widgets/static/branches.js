// The branch tree of a session, and the tabs that it is one of.

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
      "aria-label": [one.id, one.title, one.at, one.runs, one.status, one.here ? "current" : ""].filter(Boolean).join(", "),
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
  const only = family.count === 1 ? h("p", { class: "kern-soft" }, "No branches. “Branch here” on a run or message creates one.") : "";
  const cut = family.complete ? "" : h("p", { class: "kern-soft" }, `Only the first ${family.count.toLocaleString("en")} sessions are shown.`);
  return h("div", {}, tree, only, cut);
}

function makeTabs(names, onShow) {
  const id = `kern-tab-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  const panel = h("div", { class: "kern-b-panel", role: "tabpanel", id: `${id}-panel`, tabindex: 0 });
  const tabs = names.map((name) => h("button", {
    type: "button", role: "tab", class: "kern-b-tab", id: `${id}-${name}`, "aria-controls": panel.id, "aria-selected": "false", tabindex: -1,
    on: { click: () => show(name) },
  }, name));
  const bar = h("div", { class: "kern-b-tabs", role: "tablist", "aria-label": "Views" }, tabs);
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
