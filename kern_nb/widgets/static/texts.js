// Texts of a store: as they are; what a model said in Markdown as elements, from the tree that `text/markdown.py` made.

function many(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

// The elements there are, and what may be said of each. Whatever else a tree may hold, its words are shown.
const ELEMENTS = {
  a: ["href", "title"], blockquote: [], br: [], code: [], del: [], em: [], hr: [], li: [], ol: ["start"],
  p: ["role", "aria-level"], pre: ["title"], strong: [], table: [], tbody: [], td: ["align"], th: ["align"], thead: [], tr: [], ul: [],
};
const FOLLOWED = ["http:", "https:", "mailto:"];

function leads(address) {
  try {
    return FOLLOWED.includes(new URL(address).protocol);
  } catch {
    return false;
  }
}

function grown(tree) {
  return tree.map((node) => {
    if (typeof node === "string") return node;
    const [name, children, given] = node;
    const inside = grown(children);
    if (!Object.hasOwn(ELEMENTS, name) || (name === "a" && !leads(given.href))) return inside;
    const attributes = Object.fromEntries(ELEMENTS[name].map((key) => [key, given[key]]));
    return h(name, name === "a" ? { ...attributes, rel: "noopener noreferrer", target: "_blank" } : attributes, inside);
  });
}

function fillText(element, part) {
  element.classList.toggle("kern-md", Boolean(part.tree));
  element.replaceChildren(...h("div", {}, part.tree ? grown(part.tree) : part.text).childNodes);
}

// A text, and the way to all of it where it is cut: `whole` asks the kernel for it.
function readable(part, kind = "div", whole = null) {
  const shown = h(kind, { class: "kern-text", dir: "auto" });
  fillText(shown, part);
  if (!part.left) return shown;
  const note = h("span", { class: "kern-soft" });
  const fold = () => {
    fillText(shown, part);
    all.setAttribute("aria-expanded", "false");
    all.textContent = "Show all";
    note.textContent = `… ${many(part.left, "more character")} `;
  };
  const unfold = async () => {
    const found = await whole();
    if (!found) return;
    fillText(shown, found);
    all.setAttribute("aria-expanded", "true");
    all.textContent = "Show less";
    note.textContent = found.left ? `… ${many(found.left, "more character")} not shown. ` : "";
  };
  const all = button("Show all", () => (all.getAttribute("aria-expanded") === "true" ? fold() : unfold()));
  fold();
  return h("div", {}, shown, h("div", { class: "kern-all" }, note, whole ? all : ""));
}
