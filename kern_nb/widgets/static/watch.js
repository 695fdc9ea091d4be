// A widget that looks again by itself, and hears from the kernel between its looks; and times that move on.

const REST = 15_000; // milliseconds until the next look after one that failed

// Looks again every few milliseconds while the widget is on the screen, one look at a time, however slow the kernel is.
// A look gives false where it failed. `now` looks at once, or once more after a look that has begun before.
function looking(element, look, every) {
  let timer = 0;
  let visible = false;
  let under = null;
  let again = false;
  let closed = false;
  let failed = false;
  const next = () => {
    clearTimeout(timer);
    if (visible && !document.hidden && !under && !closed) timer = setTimeout(now, failed ? REST : every);
  };
  const run = async () => {
    do {
      again = false;
      failed = (await look()) === false;
    } while (again && !closed);
    under = null;
    next();
  };
  const now = () => {
    clearTimeout(timer);
    if (closed) return Promise.resolve();
    if (under) again = true;
    else under = run();
    return under;
  };
  const seen = new IntersectionObserver((entries) => {
    visible = entries.at(-1).isIntersecting;
    next();
  });
  seen.observe(element);
  document.addEventListener("visibilitychange", next);
  return {
    now,
    stop() {
      closed = true;
      clearTimeout(timer);
      seen.disconnect();
      document.removeEventListener("visibilitychange", next);
    },
  };
}

// Watches what changes in the store. `ask` asks for what there is since a mark, `show` shows it and gives false where it
// was not all, `heard` is told what the kernel says unasked. An error is said once, however often it comes.
function watching(shell, model, every, { ask, show, heard }) {
  let mark = "";
  let stale = true; // what is shown is to be shown anew
  let failed = "";
  const look = async () => {
    const before = stale ? "" : mark;
    stale = false;
    const { value, error } = await ask(before);
    if (error) {
      if (failed !== error.message) shell.fail(error);
      failed = error.message;
      stale = stale || !before;
      return false;
    }
    if (failed) shell.clear();
    failed = "";
    mark = value.mark;
    if (show(mark === before ? null : value) === false) stale = true;
    tick(shell.root);
    return true;
  };
  const looks = looking(shell.root, look, every);
  model.on("msg:custom", heard);
  shell.again = looks.now;
  return {
    now: looks.now,
    // All of it again, whatever was seen before.
    anew() {
      stale = true;
      return looks.now();
    },
    stop() {
      looks.stop();
      model.off("msg:custom", heard);
      shell.close();
    },
  };
}

function ago(seconds) {
  const steps = [[60, "s", 1], [3600, "min", 60], [86_400, "h", 3600], [Infinity, "d", 86_400]];
  const [, unit, size] = steps.find(([below]) => seconds < below);
  return seconds < 5 ? "just now" : `${Math.floor(seconds / size)} ${unit} ago`;
}

// A time that moves on: `tick(root)` brings all of a widget's up to date.
function since(at, whole) {
  const element = h("time", { title: whole, "data-at": at }, "");
  return at === null ? h("span", {}, whole) : element;
}

function tick(root) {
  root.querySelectorAll("time[data-at]").forEach((time) => {
    const said = ago(Math.max(0, Date.now() / 1000 - Number(time.dataset.at)));
    if (time.textContent !== said) time.textContent = said;
  });
}
