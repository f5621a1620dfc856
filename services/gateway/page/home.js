// The start page: a form for each kind of flow, and the flows that this browser started.

import { alone, ask, badge, find, flows, h, patience, quoted, reach, remember, seconds, settings, svg, update } from "./common.js";

const REFRESH = 2000;
/** How many pending flows are refreshed each time. */
const FEW = 5;

/** The flows that the gateway has told about, since the server could be reached. */
const told = new Set();
/** What the gateway says about itself. */
let about = {};
/** Which of the pending flows is refreshed next. */
let turn = 0;

/** A drawing of who calls whom. */
function drawing(flow) {
  const [width, height, gap] = [54, 30, 36];
  const boxes = [{ name: "you", column: 0, row: 0, caller: null }];
  const rows = [];
  const place = (index) => {
    const box = { ...flow.functions[index], from: boxes[(flow.functions[index].caller ?? -1) + 1] };
    box.column = box.from.column + 1;
    // Below whatever is in its column already.
    box.row = Math.max(box.from.row, rows[box.column] ?? 0);
    rows[box.column] = box.row + 1;
    boxes.push(box);
  };
  flow.functions.forEach((_, index) => place(index));
  const x = (box) => 1 + box.column * (width + gap);
  const y = (box) => 1 + box.row * (height + 8);
  const lines = boxes.slice(1).map((box) =>
    svg("path", {
      d: `M${x(box.from) + width} ${y(box.from) + height / 2}L${x(box) - 2} ${y(box) + height / 2}`,
      class: box.detached || (box.caller == null && typeof flow.answer !== "number") ? "detached" : "awaits",
      "marker-end": `url(#arrow-${flow.name})`,
    }),
  );
  const shapes = boxes.flatMap((box) => [
    svg("rect", { x: x(box), y: y(box), width, height, rx: 6 }),
    svg("text", { x: x(box) + width / 2, y: y(box) + height / 2 + 4 }, box.name),
  ]);
  const last = Math.max(...boxes.map((box) => box.column));
  const label = flow.functions.map((it) => {
    const caller = it.caller == null ? "you" : flow.functions[it.caller].name;
    return `${caller} ${it.detached ? "starts" : "calls"} ${it.name}`;
  });
  const arrow = svg("marker", { id: `arrow-${flow.name}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, svg("path", { d: "M0 0L8 4L0 8z" }));
  const lowest = Math.max(...boxes.map((box) => box.row));
  const size = [(last + 1) * (width + gap) - gap + 2, (lowest + 1) * (height + 8) - 6];
  return svg("svg", { viewBox: `0 0 ${size.join(" ")}`, width: size[0], height: size[1], class: "calls", role: "img", "aria-label": label.join(", ") }, svg("defs", {}, arrow), ...lines, ...shapes);
}

/** A field of a form, with what it means, and room for what is wrong with it. */
function field(flow, name, label, hint, properties) {
  const id = `${flow.name}-${name}`;
  const input = h("input", { id, name, autocomplete: "off", spellcheck: "false", "aria-describedby": `${id}-hint ${id}-error`, ...properties });
  input.addEventListener("input", () => complain(input, ""));
  return h("div", { class: `field ${name}` }, h("label", { for: id }, label), input, h("p", { id: `${id}-hint`, class: "hint" }, hint), h("p", { id: `${id}-error`, class: "error" }));
}

function complain(input, text) {
  input.setAttribute("aria-invalid", String(text !== ""));
  find(`${input.id}-error`).textContent = text;
}

const newId = (flow) => `${flow.name.split("-")[0]}-${Math.floor(Date.now() / 1000)}`;

function card(flow) {
  const title = flow.name.replace(/-([^-]*)$/, " $1").replace(/^./, (letter) => letter.toUpperCase());
  const by = (option) => flow.functions.filter((it) => it[option]).map((it) => it.name).join(", ");
  const answers = typeof flow.answer === "number" ? ` Answers ${flow.answer}.` : "";
  const start = h("button", { class: "primary" }, "Start");
  const error = h("p", { class: "error", role: "alert" });
  const form = h(
    "form",
    { novalidate: true },
    field(flow, "work", `Work of ${by("works")}`, "In stored steps of 1 s: your time to crash it.", { list: "durations", placeholder: "none", value: "10s" }),
    field(flow, "sleep", `Sleep of ${by("sleeps")}`, "A timer on the server: no process waits.", { list: "durations", placeholder: "none" }),
    field(flow, "fail", `Failures of ${by("fails")}`, "Attempts that fail first; with 5 the flow fails.", { inputmode: "numeric", placeholder: "0" }),
    field(flow, "id", "Id of the flow", "Used again with the same options: the same flow.", { value: newId(flow) }),
    start,
    error,
  );
  form.addEventListener("input", () => (error.textContent = ""));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    start.disabled = true;
    error.textContent = "";
    await begin(flow, form, error);
    start.disabled = false;
  });
  return h("article", { class: "card kind" }, h("h2", {}, title), h("p", { class: "quiet" }, flow.about + answers), drawing(flow), form);
}

/** Starts a flow, and goes to its page. */
async function begin(flow, form, error) {
  const fields = [...form.querySelectorAll("input")];
  fields.forEach((input) => complain(input, ""));
  const query = new URLSearchParams();
  for (const { name, value } of fields) if (value.trim() !== "") query.set(name, value.trim());
  try {
    // The page shows how it goes on, so nobody has to wait for the result.
    await ask(`${flow.route}?${query}`, { method: "POST", headers: { prefer: "respond-async" } });
  } catch (problem) {
    // A flow that has failed before has a page too.
    if (![502, 504].includes(problem.status)) {
      const wrong = problem.status === 422 ? "id" : problem.parameter;
      const input = fields.find(({ name }) => name === wrong);
      if (input) {
        complain(input, `Not started: ${problem.message}`);
        input.focus();
      } else {
        error.textContent = quoted(problem);
      }
      return;
    }
  }
  const id = query.get("id") ?? flow.name;
  remember(id, { flow: flow.name, state: "pending", at: Date.now() }, true);
  location.assign(`/flows/${id}`);
}

function list() {
  const all = flows();
  find("none").hidden = all.length > 0;
  find("flows").hidden = all.length === 0;
  const rows = all.map(({ id, flow, state, result, error, held, queued, takeovers, ms }) => {
    const hidden = state === "pending" && !told.has(id);
    const [text, tone] = hidden ? ["not known", ""] : badge(state, result, queued);
    const more = { rejected: error && ` “${error}”`, unknown: " The server does not know it any more." }[state];
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, h("a", { href: `/flows/${encodeURIComponent(id)}` }, id)),
      h("td", {}, flow ?? ""),
      h("td", {}, h("span", { class: `badge ${tone}` }, text), takeovers ? h("span", { class: "badge" }, `↻ ${takeovers} takeover${takeovers > 1 ? "s" : ""}`) : null, more ?? ""),
      h("td", {}, (!hidden && held) || ""),
      h("td", { class: "number" }, hidden || ms == null ? "" : seconds(ms)),
    );
  });
  update(find("flows").tBodies[0], rows);
}

/** Asks whether the server can be reached, and how the flows are that have not ended. */
async function refresh() {
  const { reachable, wrong } = await ask("/page/server.json").catch((problem) => ({ wrong: problem }));
  reach(!wrong || Boolean(wrong.status), reachable);
  const trouble = wrong ? `${quoted(wrong)} What this page shows is old. ` : "The gateway cannot reach the Resonate Server: it starts no flow now, and what this page shows is old. ";
  const advice = !wrong ? patience(about.server_start) : wrong.status ? [] : alone(about.group_start);
  // What a form said about it is over.
  if (reachable && find("old").hasChildNodes()) document.querySelectorAll(".kind [role=alert]").forEach((it) => it.replaceChildren());
  update(find("old"), reachable ? [] : [h("p", { class: "problem" }, trouble, ...advice)]);
  if (!reachable) told.clear();
  list();
  if (!reachable) return;
  const running = flows().filter(({ state }) => state === "pending" || state === undefined);
  const from = turn % (running.length || 1);
  turn = running.length > FEW ? from + FEW : 0;
  const asked = [...running.slice(from), ...running.slice(0, from)].slice(0, FEW).map(async ({ id }) => {
    try {
      const flow = await ask(`/flows/${encodeURIComponent(id)}`);
      const held = flow.invocations.map((it) => it.instance).filter(Boolean).join(", ");
      const queued = !held && flow.invocations.some((it) => it.queued);
      const ms = (flow.settled_at ?? Date.now()) - flow.created_at;
      remember(id, { flow: flow.flow, state: flow.state, result: flow.result, error: flow.error, held, queued, ms });
      told.add(id);
    } catch (problem) {
      if (problem.status === 404) remember(id, { state: "unknown" });
    }
  });
  await Promise.all(asked);
  list();
}

/** How many flows this gateway has started lately, and when there were takeovers. */
async function load() {
  const { slot_seconds: length, slots, since } = await ask("/stats");
  const sum = (name, of = slots) => of.reduce((total, slot) => total + slot[name], 0);
  const section = find("load");
  section.hidden = sum("started") === 0 && flows().length === 0;
  if (section.hidden) return;
  const rates = slots.map(({ started }) => started / length);
  const most = Math.max(...rates, 0.1);
  const x = (n) => (n * 600) / (slots.length - 1);
  const points = rates.map((rate, n) => `${x(n)},${39 - (rate * 36) / most}`);
  const takeovers = slots.flatMap((slot, n) => (slot.takeovers > 0 ? [svg("line", { x1: x(n), x2: x(n), y1: 0, y2: 40 })] : []));
  const chart = svg("svg", { viewBox: "0 0 600 40", class: "rate", preserveAspectRatio: "none", "aria-hidden": true }, ...takeovers, svg("polyline", { points: points.join(" ") }));
  // The last slot is not over yet.
  const now = sum("started", slots.slice(-4, -1)) / 3 / length;
  const rate = now > 0 ? `; ${now.toFixed(1)} a second now, ${most.toFixed(1)} at most` : "";
  const from = since ? ` since the gateway started at ${new Date(since).toLocaleTimeString([], { timeStyle: "short" })}` : "";
  section.querySelector("p").textContent = `Flows started${from}: ${sum("started")}${rate}. Failed, timed out or canceled: ${sum("failed")}. Takeovers, drawn as dashed lines: ${sum("takeovers")}.`;
  section.querySelector("svg")?.remove();
  section.append(chart);
}

async function start() {
  list();
  try {
    about = await settings();
    const durations = ["1s", "6s", "10s", "1m"].map((value) => h("option", { value }));
    find("kinds").append(...about.flows.map(card), h("datalist", { id: "durations" }, ...durations));
    reach(true);
  } catch (problem) {
    reach(Boolean(problem.status));
    update(find("old"), [h("p", { class: "problem" }, quoted(problem))]);
    setTimeout(start, 1000);
    return;
  }
  // A refresh can take as long as the gateway waits for the server.
  const again = async () => {
    if (!document.hidden) await refresh();
    setTimeout(again, REFRESH);
  };
  await again();
  const quietly = () => document.hidden || load().catch(() => {});
  quietly();
  setInterval(quietly, 5000);
}

// A page that the browser kept shows what has happened since, and starts another flow.
addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const flow of about.flows ?? []) {
    const input = find(`${flow.name}-id`);
    if (input.value === input.defaultValue) input.defaultValue = input.value = newId(flow);
  }
  refresh();
});
start();
