// The page of `mmupt view`. It inserts text of a run as text, except for fields whose names end in `html`: the server
// escapes those (mmupt/reports/formulas.py), and the page's policy blocks any script in them.

import { chart, number } from "./charts.js";

const ROWS = 50;
const POLL_MILLISECONDS = 5000;
const NO_ANSWER = "no answer";
const at = (id) => document.getElementById(id);

const state = {
  runs: [], run: 0, tab: "votes", shown: [], limit: ROWS, chosen: null,
  // Content loaded so far, by run.
  groups: new Map(), evaluation: new Map(), written: new Map(), curves: new Map(),
};

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function markup(tag, className, html) {
  return make(tag, { className, innerHTML: html });
}

async function ask(path, query = {}) {
  const response = await fetch(`${path}?${new URLSearchParams(query)}`);
  if (!response.ok) throw new Error((await response.text()).trim());
  return response.json();
}

const percent = (share) => `${Math.round(100 * share)} %`;

async function* chunksOfGroups(query) {
  let before = null;
  do {
    const answer = await ask("/groups", { ...query, ...(before === null ? {} : { before }) });
    yield answer.groups.map((values) => Object.fromEntries(answer.fields.map((name, i) => [name, values[i]])));
    before = answer.before;
  } while (before !== null);
}

async function readAll(run, read, changed) {
  read.groups = [];
  for await (const groups of chunksOfGroups({ run })) {
    read.groups = read.groups.concat(groups);
    changed();
  }
  if (read.groups.length) read.newest = read.groups[0].step;
}

async function readNewer(run, read, changed) {
  let newer = [];
  for await (const groups of chunksOfGroups({ run, after: read.newest })) newer = newer.concat(groups);
  if (newer.length) {
    read.groups = newer.concat(read.groups);
    read.newest = newer[0].step;
  }
  changed();
}

// Views with a list: each defines its requests, list entries, details and filters.

const votes = {
  empty: "This run has no saved votes: mmupt.votes_per_step is 0, or it was trained without a vote.",
  // Load a run once at a time: concurrent loads would add its groups twice.
  load(run, changed) {
    const read = state.groups.get(run) ?? { groups: [], newest: null, reading: Promise.resolve() };
    state.groups.set(run, read);
    read.reading = read.reading.catch(() => {}).then(() => (read.newest === null ? readAll(run, read, changed) : readNewer(run, read, changed)));
    return read.reading;
  },
  items: () => state.groups.get(state.run)?.groups ?? [],
  key: (group) => `${group.step}.${group.number}`,
  text: (group) => `${group.question} ${group.id} ${group.pseudo_label ?? ""} ${group.ground_truth ?? ""}`,
  outcomes: {
    "": ["all groups", () => true],
    wrong: ["wrong majority", (group) => group.label_correct === false],
    right: ["right majority", (group) => group.label_correct === true],
    tie: ["tie", (group) => group.tied],
    unlabelled: ["no pseudo-label", (group) => group.pseudo_label === null],
    silent: ["some without an answer", (group) => group.no_answer > 0],
    equal: ["equal rewards (zero advantage)", (group) => group.equal_rewards],
    flipped: ["pseudo-label reads differently than before", (group) => group.flipped],
  },
  steps: true,
  row: (group) => [
    make("small", { textContent: `step ${group.step} · ${percent(group.majority_ratio)} of ${group.responses}` }),
    verdictMark(group),
    questionOf(group),
    group.pseudo_label !== null && make("small", {}, answerOf(group, 0, group.pseudo_label)),
  ],
  previews: (keys) => ask("/group_previews", { run: state.run, keys }),
  async detail(group) {
    const [full, history] = await Promise.all([
      ask("/group", { run: state.run, step: group.step, number: group.number }),
      ask("/history", { run: state.run, id: group.id }),
    ]);
    return groupDetail(full, history);
  },
};

const evaluation = {
  empty: "This run has no evaluation before and after training yet.",
  async load(run, changed) {
    if (!state.runs[run].sides.length) return changed();
    state.evaluation.set(run, await ask("/evaluation", { run }));
    changed();
  },
  items: () => state.evaluation.get(state.run) ?? [],
  key: (item) => `${item.pair}.${item.id}`,
  text: (item) => `${item.question} ${item.id} ${item.benchmark} ${item.ground_truth} ${item.before.answer ?? ""} ${item.after.answer ?? ""}`,
  outcomes: {
    "": ["all questions", () => true],
    gained: ["gained: wrong, then right", (item) => !item.before.right && item.after.right],
    lost: ["lost: right, then wrong", (item) => item.before.right && !item.after.right],
    right: ["right both times", (item) => item.before.right && item.after.right],
    wrong: ["wrong both times", (item) => !item.before.right && !item.after.right],
    silent: ["no answer in the second", (item) => item.after.answer === null],
  },
  row: (item) => [
    make("small", { textContent: `${item.benchmark} · ground truth ${item.ground_truth}` }),
    make("small", {}, mark(item.before.right), " → ", mark(item.after.right)),
    questionOf(item),
    make("small", {}, answerOf(item, 0, item.before.answer), " → ", answerOf(item, 1, item.after.answer)),
  ],
  previews: (keys) => ask("/evaluation_previews", { run: state.run, keys }),
  detail: async (item) => evaluatedDetail(item, await ask("/evaluated", { run: state.run, pair: item.pair, id: item.id })),
};

const written = {
  empty: "This run has no questions written by the model.",
  async load(run, changed) {
    const found = [];
    for (const sheet of state.runs[run].sheets) {
      (await ask("/sheet", { run, sheet })).forEach((parent, position) => found.push({ ...parent, sheet, position }));
    }
    state.written.set(run, found);
    changed();
  },
  items: () => state.written.get(state.run) ?? [],
  key: (item) => `${item.sheet}.${item.position}`,
  text: (item) => `${item.question} ${item.id} ${item.written.map((question) => question.text).join(" ")}`,
  outcomes: {
    "": ["all images", () => true],
    kept: ["with a kept question", (item) => item.written.some((question) => question.dropped_by === null)],
    dropped: ["all questions dropped", (item) => item.written.every((question) => question.dropped_by !== null)],
  },
  row: (item) => [
    make("small", { textContent: item.sheet === "." ? item.id : `${item.sheet} · ${item.id}` }),
    make("small", { textContent: `${item.written.filter((question) => question.dropped_by === null).length} of ${item.written.length} kept` }),
    markup("span", "question", item.question_html ?? item.written[0].html),
  ],
  detail: async (item) => writtenDetail(item, await ask("/written", { run: state.run, sheet: item.sheet, number: item.position })),
};

const VIEWS = { votes, evaluation, written };

// List entries. Their formulas are rendered once the entry is visible.

function questionOf(item) {
  return item.preview ? markup("span", "question", item.preview.question_html) : make("span", { className: "question", textContent: item.question || item.id });
}

function answerOf(item, number, answer) {
  const html = item.preview?.answers_html[number];
  return html ? markup("span", "", html) : make("span", { textContent: answer ?? NO_ANSWER });
}

async function drawFormulas() {
  const { tab } = state, items = state.shown.slice(0, state.limit).filter((item) => !item.preview);
  if (!items.length || !view().previews) return;
  const previews = await view().previews(JSON.stringify(items.map(view().key)));
  items.forEach((item, position) => { item.preview = previews[position]; });
  if (state.tab !== tab) return;
  const entries = new Map([...at("list").querySelectorAll("button")].map((button) => [button.dataset.key, button]));
  for (const item of items) entries.get(view().key(item))?.replaceChildren(...view().row(item).filter(Boolean));
}

// Details.

function mark(right) {
  if (right === null || right === undefined) return make("span", { className: "quiet", textContent: "–" });
  return make("span", { className: right ? "right" : "wrong", textContent: right ? "✓ right" : "✗ wrong" });
}

function verdictMark(group) {
  if (group.label_correct === null) return make("small", { textContent: group.tied ? "tie" : "" });
  return make("small", {}, mark(group.label_correct));
}

function pictures(source, id, count) {
  const box = make("div", { className: "pictures" });
  for (let image = 0; image < count; image++) {
    const query = new URLSearchParams({ run: state.run, source, id, image });
    const small = make("img", { alt: "image of the question", src: `/picture?${query}`, decoding: "async" });
    const button = make("button", { type: "button", className: "picture", title: "Open in full size" }, small);
    button.addEventListener("click", () => {
      at("full").querySelector("img").src = `/picture?${query}&full=1`;
      at("full").showModal();
    });
    small.addEventListener("error", () => button.replaceWith(make("p", { className: "quiet", textContent: "The data files of the run do not have this image." })));
    box.append(button);
  }
  return box;
}

function answerOr(html, otherwise) {
  return html === null ? make("span", { className: "quiet", textContent: otherwise }) : markup("span", "", html);
}

function labels(...pairs) {
  return make("dl", { className: "labels" }, ...pairs.filter(Boolean).flatMap(([name, ...values]) => [make("dt", { textContent: name }), make("dd", {}, ...values)]));
}

function responseBox(title, html, open) {
  const box = make("details", { className: "response", open }, make("summary", { textContent: title }), markup("div", "text", html));
  return box;
}

const classOf = (name) => (name === null ? "none" : `c${Math.min(name, 5)}`);

function groupDetail(group, history) {
  const classes = new Map();
  group.responses.forEach((response, position) => {
    if (!classes.has(response.class)) classes.set(response.class, []);
    classes.get(response.class).push({ ...response, position });
  });
  const order = [...classes.keys()].sort((a, b) => (a ?? Infinity) - (b ?? Infinity));
  const bar = make("div", { className: "bar", role: "img", ariaLabel: order.map((name) => `${classes.get(name).length}`).join(", ") + " responses by answer" });
  for (const name of order) {
    const part = make("span", { className: classOf(name) });
    part.style.flexGrow = classes.get(name).length;
    bar.append(part);
  }
  const policy = group.first_policy === null ? "" : ` · policy of step ${group.first_policy === group.last_policy ? group.first_policy : `${group.first_policy} to ${group.last_policy}`}`;
  const without = group.tied ? "none: the largest classes tie" : "none elected";
  return [
    make("p", { className: "notes", textContent: `step ${group.step}${policy} · ${group.id}` }),
    pictures("votes", group.id, group.images),
    markup("div", "text question-text", group.question_html),
    labels(
      ["pseudo-label", answerOr(group.pseudo_label_html, without), " ", group.label_correct === null ? "" : mark(group.label_correct)],
      ["ground truth", answerOr(group.ground_truth_html, "unknown")],
      ["majority ratio", percent(group.majority_ratio)],
    ),
    bar,
    ...order.map((name) => {
      const members = classes.get(name), [first] = members;
      const title = make("h3", {}, make("b", { textContent: name === null ? `${NO_ANSWER} ` : `answer ${String.fromCharCode(65 + name % 26)}: ` }));
      if (name !== null) title.append(answerOr(first.answer_html, NO_ANSWER), " ");
      title.append(`· ${members.length} of ${group.responses.length} `, first.correct === null || name === null ? "" : mark(first.correct));
      return make("section", { className: `class ${classOf(name)}` }, title, ...members.map((response, position) =>
        responseBox(`response ${response.position + 1} · reward ${number(response.reward)}${response.trained ? "" : " · voted only"}`, response.html, position === 0)));
    }),
    historyTable(history, group),
  ];
}

function historyTable(history, group) {
  if (history.length < 2) return make("p", { className: "notes", textContent: "No other step has a saved vote on this question." });
  const rows = history.map((vote) => {
    const go = make("button", { type: "button", textContent: vote.step });
    go.addEventListener("click", () => openKey(`${vote.step}.${vote.number}`));
    const current = vote.step === group.step;
    const row = make("tr", {}, make("td", {}, go), make("td", { textContent: percent(vote.majority_ratio) }),
      make("td", {}, answerOr(vote.pseudo_label_html, vote.tied ? "tie" : "none")), make("td", {}, mark(vote.label_correct)),
      make("td", { textContent: vote.flipped ? "changed" : "" }));
    if (current) row.setAttribute("aria-current", "true");
    return row;
  });
  const head = make("tr", {}, ...["step", "ratio", "pseudo-label", "", ""].map((textContent) => make("th", { textContent, scope: "col" })));
  return make("section", {}, make("h2", { textContent: "This question over the steps" }), make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

function evaluatedDetail(item, question) {
  const [before, after] = state.runs[state.run].sides;
  const side = (title, responses) => make("div", {}, make("h2", { textContent: title }), ...responses.map((response, position) =>
    make("section", { className: `class ${response.right ? "c3" : ""}` },
      make("h3", {}, `${response.mode === "greedy" ? "greedy" : `sample ${response.sample + 1}`}: `, answerOr(response.answer_html, NO_ANSWER), " ", mark(response.right)),
      responseBox("response", response.html, position === 0))));
  return [
    make("p", { className: "notes", textContent: question.id }),
    pictures(`evaluation.${item.pair}`, question.id, question.images),
    markup("div", "text question-text", question.question_html),
    labels(["ground truth", answerOr(question.ground_truth_html, "unknown")]),
    make("div", { className: "sides" }, side(before, question.before), side(after, question.after)),
  ];
}

function writtenDetail(item, parent) {
  return [
    make("p", { className: "notes", textContent: parent.id }),
    pictures(item.sheet, parent.id, parent.images),
    parent.question_html !== null && labels(["existing question", markup("span", "text", parent.question_html)]),
    make("h2", { textContent: "Questions that the model wrote" }),
    ...parent.written.map((question) => make("div", { className: `written ${question.dropped_by === null ? "" : "dropped"}` },
      markup("div", "text", question.html),
      make("div", { className: "notes", textContent: [
        question.strategy,
        question.vote_share === null ? null : `majority ratio ${percent(question.vote_share)}`,
        question.dropped_by === null ? "kept" : `dropped by ${question.dropped_by}: ${question.reason}`,
      ].filter((part) => part !== null).join(" · ") }))),
  ];
}

// The list, its filters and its selected entry.

const view = () => VIEWS[state.tab];

function filterForm() {
  const outcome = make("select", { name: "outcome", ariaLabel: "Outcome" });
  for (const [value, [textContent]] of Object.entries(view().outcomes)) outcome.append(make("option", { value, textContent }));
  const range = (name, label, from, to) => make("label", {}, `${label} `,
    make("input", { type: "number", name: from, ariaLabel: `${name} from`, min: 0 }), " to ",
    make("input", { type: "number", name: to, ariaLabel: `${name} to`, min: 0 }));
  at("filters").replaceChildren(
    make("input", { type: "search", name: "search", placeholder: "Search question, id, answers", ariaLabel: "Search" }),
    outcome,
    ...(view().steps ? [range("step", "Step", "first", "last"), range("ratio", "Majority ratio, %", "low", "high")] : []),
  );
}

function markFlips() {
  // The previous label of each question, in the order of steps.
  const labels = new Map();
  for (let i = votes.items().length - 1; i >= 0; i--) {
    const group = votes.items()[i], before = labels.get(group.id);
    group.flipped = before !== undefined && before !== group.pseudo_label;
    labels.set(group.id, group.pseudo_label);
  }
}

function filtered() {
  const given = Object.fromEntries(new FormData(at("filters")));
  const words = given.search.toLowerCase().split(/\s+/).filter(Boolean);
  const [, keeps] = view().outcomes[given.outcome];
  const bound = (name, otherwise) => (given[name] ? Number(given[name]) : otherwise);
  const first = bound("first", 0), last = bound("last", Infinity);
  const low = bound("low", 0) / 100 - 0.005, high = bound("high", 100) / 100 + 0.005;
  return view().items().filter((item) =>
    keeps(item)
    && (!view().steps || (item.step >= first && item.step <= last && item.majority_ratio >= low && item.majority_ratio <= high))
    && (!words.length || words.every((word) => (item.searched ??= view().text(item).toLowerCase()).includes(word))));
}

function drawList() {
  if (state.tab === "votes") markFlips();
  const items = view().items();
  state.shown = filtered();
  at("count").textContent = items.length ? `${state.shown.length.toLocaleString("en")} of ${items.length.toLocaleString("en")}` : view().empty;
  at("list").replaceChildren(...state.shown.slice(0, state.limit).map(listEntry));
  at("more").hidden = state.shown.length <= state.limit;
  told(drawFormulas);
}

function listEntry(item) {
  const button = make("button", { type: "button" }, ...view().row(item));
  button.dataset.key = view().key(item);
  if (button.dataset.key === state.chosen) button.setAttribute("aria-current", "true");
  button.addEventListener("click", () => open(item));
  return make("li", {}, button);
}

let opening = 0;

async function open(item, focus = false) {
  const request = ++opening;
  state.chosen = view().key(item);
  for (const button of at("list").querySelectorAll("button")) {
    if (button.dataset.key === state.chosen) {
      button.setAttribute("aria-current", "true");
      button.scrollIntoView({ block: "nearest" });
      if (focus) button.focus();
    } else button.removeAttribute("aria-current");
  }
  remember();
  let content;
  try {
    content = await view().detail(item);
  } catch (error) {
    content = [make("p", { className: "wrong", textContent: error.message })];
  }
  // Another entry has been selected meanwhile.
  if (request !== opening) return;
  const back = make("button", { type: "button", id: "back", textContent: "Back to the list" });
  back.addEventListener("click", close);
  at("detail").replaceChildren(back, ...content.filter((part) => part));
  at("detail").scrollTop = 0;
  document.body.classList.add("open");
}

function close() {
  document.body.classList.remove("open");
  (at("list").querySelector("[aria-current]") ?? at("list").querySelector("button"))?.focus();
}

function openKey(key) {
  const item = view().items().find((entry) => view().key(entry) === key);
  if (item) open(item);
}

function move(by) {
  const position = state.shown.findIndex((item) => view().key(item) === state.chosen);
  const next = position < 0 ? 0 : position + by;
  if (next < 0 || next >= state.shown.length) return;
  if (next >= state.limit) {
    state.limit += ROWS;
    drawList();
  }
  open(state.shown[next], true);
}

// Curves of all runs.

async function drawCurves() {
  await Promise.all(state.runs.map(async (run, number) => {
    if (run.curves) state.curves.set(number, await ask("/curves", { run: number }));
  }));
  const names = new Set([...state.curves.values()].flatMap((series) => Object.keys(series)));
  const first = ["val-core/", "vote/majority_ratio", "vote/label_accuracy", "vote/reward_accuracy", "response_length/", "vote/", ""];
  const rank = (name) => first.findIndex((start) => name.startsWith(start));
  const sorted = [...names].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  const legend = make("p", { className: "legend" }, ...state.runs.map((run, number) =>
    make("span", { className: `c${number % 6}` }, make("span", { className: "key" }), run.name)));
  const figures = sorted.map((name) => chart(name, state.runs.flatMap((_, run) => {
    const values = Object.entries(state.curves.get(run)?.[name] ?? {}).map(([step, value]) => [Number(step), value]).filter(([, value]) => value !== null);
    return values.length ? [{ run, values: values.sort((a, b) => a[0] - b[0]) }] : [];
  })));
  at("charts").replaceChildren(legend, ...(figures.length ? figures : [make("p", { className: "quiet", textContent: "No curves yet: the logger tensorboard writes them." })]));
}

// The displayed tab and run.

function drawAlarm() {
  const run = state.runs[state.run], alarm = at("alarm");
  const collapse = run.collapse ?? (run.validations.length ? `Collapse alarm: no collapse up to the validation after step ${run.validations.at(-1)}.` : "");
  alarm.classList.toggle("collapsed", run.collapse !== null || run.problems.length > 0);
  alarm.textContent = [...run.problems, collapse].filter(Boolean).join(" · ");
  alarm.hidden = !alarm.textContent;
}

async function show(tab, key = null) {
  Object.assign(state, { tab, limit: ROWS, chosen: key });
  for (const button of at("tabs").querySelectorAll("button")) {
    if (button.dataset.tab === tab) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  document.body.classList.remove("open");
  at("listed").hidden = tab === "curves";
  at("charts").hidden = tab !== "curves";
  at("run-label").hidden = state.runs.length < 2 || tab === "curves";
  drawAlarm();
  remember();
  await told(async () => {
    if (tab === "curves") return drawCurves();
    filterForm();
    at("count").textContent = "loading …";
    at("list").replaceChildren();
    at("more").hidden = true;
    const run = state.run;
    await view().load(run, () => { if (state.tab === tab && state.run === run) drawList(); });
    if (key !== null) openKey(key);
  });
}

// Show errors of the server on the page.
async function told(work) {
  try {
    await work();
    at("status").textContent = "";
  } catch (error) {
    at("status").textContent = error.message;
  }
}

function remember() {
  const kept = new URLSearchParams({ run: state.run, view: state.tab, ...(state.chosen === null ? {} : { open: state.chosen }) });
  history.replaceState(null, "", `#${kept}`);
}

async function poll() {
  await told(async () => {
    const runs = await ask("/runs"), before = state.runs[state.run], now = runs[state.run];
    state.runs = runs;
    drawAlarm();
    // A run resumed from an earlier step repeats the later steps.
    if (now.last_step < before.last_step) state.groups.delete(state.run);
    if (state.tab === "votes" && (now.steps !== before.steps || now.last_step !== before.last_step)) {
      await votes.load(state.run, () => { if (state.tab === "votes") drawList(); });
    }
    if (state.tab === "curves") await drawCurves();
  });
  setTimeout(poll, POLL_MILLISECONDS);
}

function key(event) {
  const typing = event.target.matches("input, select, textarea");
  if (at("full").open || event.ctrlKey || event.altKey || event.metaKey || at("listed").hidden) return;
  if (event.key === "Escape") {
    if (typing) event.target.blur();
    close();
  } else if (typing) {
    return;
  } else if (event.key === "/") {
    event.preventDefault();
    close();
    at("filters").elements.search.focus();
  } else if (event.key === "j" || event.key === "k") {
    event.preventDefault();
    move(event.key === "j" ? 1 : -1);
  }
}

async function start() {
  const kept = new URLSearchParams(location.hash.slice(1));
  await told(async () => {
    state.runs = await ask("/runs");
    state.runs.forEach((run, value) => at("run").append(make("option", { value, textContent: run.name, title: run.folder })));
    document.title = `${state.runs.map((run) => run.name).join(", ")} · mmupt view`;
    state.run = Math.min(Number(kept.get("run")) || 0, state.runs.length - 1);
    at("run").value = state.run;
    const run = state.runs[state.run];
    const fitting = run.steps ? "votes" : run.sheets.length ? "written" : run.sides.length ? "evaluation" : "curves";
    const tab = kept.get("view");
    await show(tab in VIEWS || tab === "curves" ? tab : fitting, kept.get("open"));
  });
  setTimeout(poll, POLL_MILLISECONDS);
}

at("tabs").addEventListener("click", (event) => { if (event.target.dataset.tab) show(event.target.dataset.tab); });
at("run").addEventListener("change", () => { state.run = Number(at("run").value); show(state.tab); });
at("filters").addEventListener("input", () => { state.limit = ROWS; drawList(); });
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("more").addEventListener("click", () => { state.limit += ROWS; drawList(); });
at("full").addEventListener("click", (event) => { if (event.target === at("full")) at("full").close(); });
document.addEventListener("keydown", key);
start();
