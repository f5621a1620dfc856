// The page of a flow: draws what the gateway tells about it, while it happens.

import { alone, ask, badge, command, find, h, patience, quoted, reach, remember, seconds, settings, update } from "./common.js";

const id = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const path = `/flows/${encodeURIComponent(id)}`;
/** The gateway is silent for five seconds at most. */
const SILENCE = 12_000;
const RETRY = 1000;
/** How long after the end of a lease a takeover counts as late. */
const LATE = 1000;

/** What the gateway told last, and how far its clock is ahead of this one. */
let flow = null;
let ahead = 0;
/** Each instance has its colour, in the order of their appearance. */
const colours = new Map();
/** Sentences that were read out, and how often. */
const told = new Map();

const colour = (who) => {
  if (!colours.has(who)) colours.set(who, colours.size % 8);
  return `c${colours.get(who)}`;
};

/** The time of the newest known state, on this page's clock; and why there is none since, if this page noticed. */
let known = 0;
let cut = null;
/** What the gateway says about itself. */
let about = {};

const SERVER = "the gateway cannot reach the Resonate Server";
const GATEWAY = "this page cannot reach the gateway";

/** What hides the present. Null: nothing does. */
function hidden() {
  if (flow.complete) return null;
  return cut ?? (flow.trouble ? { what: SERVER, reason: flow.trouble.reason } : null);
}

/** Milliseconds since the flow's start: now, or at the last moment of which something is known. */
function now() {
  if (flow.complete) return flow.ended ?? 0;
  return Math.max((hidden() ? known : Date.now()) + ahead - flow.started, latest(), 0);
}

/** A moment since the flow's start, as precise as the whole drawing. */
const moment = (at) => (span() < 2000 ? `${at} ms` : at < 60_000 ? `${(at / 1000).toFixed(1)} s` : seconds(at));

const ends = (rows) => rows.flatMap((row) => row.segments.map(({ from, to }) => to ?? from));
const latest = () => Math.max(0, ...ends(flow.rows), ...flow.story.map(({ at }) => at));

/** How much time the drawing shows: with durable timers that are due later. */
const span = () => Math.max(now() * (flow.complete ? 1 : 1.04), latest(), ...flow.rows.map((row) => row.due ?? 0), 20);

/** Each kind of bar: its label, if that is not the process; what the legend says; and what a screen reader says. */
const KINDS = {
  run: [null, null, (who) => `run by ${who ?? "an unknown process"}`],
  retry: [null, "a step that fails and is tried again", (who) => `run and retried by ${who}`],
  wait: ["waits", "waits for another function; no process is busy with it", () => "waits"],
  sleep: ["sleeps", "waits for a durable timer; no process holds it", () => "sleeps"],
  lost: ["lease runs out", "nobody works: the lease of a process that is gone runs out", (who) => `nobody runs it: the lease of ${who} runs out`],
  silent: ["not known", "not known whether it still worked: the lease of a silent process runs out", (who) => `not known whether ${who} still worked, its lease runs out`],
  queue: ["no process yet", "nobody works: waits for a process to take it", () => "waits for a process"],
  unknown: ["not known", "not known: nobody watched it", () => "not known what ran it"],
  away: ["server unreachable", "not known: the gateway could not reach the Resonate Server", () => "not known, the gateway could not reach the Resonate Server,"],
};

function bar({ kind, who, from, to }) {
  const classes = ["bar", kind, who && kind !== "lost" ? colour(who) : "", to == null ? "open" : ""];
  return h("span", { class: classes.join(" "), "--from": String(from), "--to": String(to ?? 0), "aria-hidden": true, title: describe({ kind, who, from, to }) }, h("span", {}, KINDS[kind][0] ?? who ?? ""));
}

const describe = ({ kind, who, from, to }) => `${KINDS[kind][2](who)} from ${seconds(from)} to ${to == null ? "now" : seconds(to)}`;

/** A row as far as it is known. */
function past(row) {
  if (!hidden() || /^[✓✗]/.test(row.note)) return row;
  const segments = row.segments.map((it) => ({ ...it, to: it.to ?? Math.max(now(), it.from) }));
  return { ...row, note: "not known", tone: "", segments };
}

const SIGNS = { death: "✕", stop: "■", takeover: "↻" };

function row(row) {
  const bars = row.segments.map(bar);
  const due = row.due == null ? [] : [h("span", { class: "bar due", "--from": String(row.segments[0]?.from ?? 0), "--to": String(row.due), "aria-hidden": true })];
  const marks = flow.marks.map(({ at, kind }) => h("span", { class: `mark ${kind}`, "--from": String(at), "aria-hidden": true }));
  const group = row.group ? h("span", { class: "group" }, `group ${row.group}`) : null;
  return h(
    "tr",
    { role: "row", class: `${row.kind} ${row.tone}` },
    h("th", { role: "rowheader", scope: "row", "--depth": String(row.depth) }, h("span", {}, row.name), group),
    h("td", { role: "cell", class: "note" }, row.note),
    h("td", { role: "cell", class: "track" }, h("span", { class: "hidden" }, row.segments.map(describe).join("; ")), ...due, ...bars, ...marks),
  );
}

/** Times above the drawing: about six of them, at round numbers. */
function ticks(total, most) {
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000];
  const step = steps.find((it) => total / it <= most) ?? Math.ceil(total / most / 3_600_000) * 3_600_000;
  return { step, times: Array.from({ length: Math.floor(total / step) + 1 }, (_, n) => n * step) };
}

const round = (ms) => (ms === 0 ? "0" : ms < 1000 ? `${ms} ms` : ms < 120_000 ? `${ms / 1000} s` : `${ms / 60_000} min`);

let axis = "";

/** What moves while time passes. */
function tick() {
  // Until the gateway is heard, nothing is known of what happens now.
  if (!flow || !(flow.complete || hidden() || source?.readyState === EventSource.OPEN)) return;
  const chart = document.querySelector(".timeline");
  const total = span();
  const { step, times } = ticks(total, Math.max(3, Math.floor(find("axis").clientWidth / 85)));
  chart.classList.toggle("complete", flow.complete);
  chart.style.setProperty("--span", String(total));
  chart.style.setProperty("--now", String(now()));
  chart.style.setProperty("--tick", String(step));
  const labels = signs(total);
  chart.style.setProperty("--lines", String(Math.max(-1, ...labels.map((it) => it.line)) + 1));
  const drawn = JSON.stringify([times, labels]);
  if (drawn !== axis) {
    axis = drawn;
    const names = times.map((at) => h("span", { class: `tick ${at > total * 0.94 ? "left" : ""}`, "--from": String(at), "aria-hidden": true }, round(at)));
    const above = labels.map(({ at, kind, left, line, label }) => h("span", { class: `sign ${kind} ${left ? "left" : ""}`, "--from": String(at), "--line": String(line), "aria-hidden": true }, label));
    find("axis").replaceChildren(h("span", { class: "hidden" }, "Time"), ...names, ...above);
  }
  update(find("holders"), happening());
  const [text, tone] = hidden() ? [`was ${badge(flow.state)[0]}`, ""] : badge(flow.state, null, idle());
  const state = find("state");
  state.className = `badge ${tone}`;
  state.textContent = `${text} · ${seconds(flow.ended ?? now())}`;
}

/** What the marks are called: each in the first of three lines above the drawing that has room for it. */
function signs(total) {
  const width = find("axis").clientWidth;
  const ends = [0, 0, 0];
  return flow.marks.flatMap(({ at, kind, text }) => {
    const label = `${SIGNS[kind]} ${text}`;
    const long = label.length * 8;
    const x = (at / total) * width;
    const left = x + long > width;
    if (left && x < long) return [];
    const from = left ? x - long : x;
    const line = ends.findIndex((end) => end <= from);
    if (line < 0) return [];
    ends[line] = from + long;
    return [{ at, kind, left, line, label }];
  });
}

const strong = (text, look) => h("strong", look ? { class: look } : {}, text);

/** The processes of a group that died, and how each is brought back. Whether it lives by now, nobody here knows. */
function dead(group) {
  return flow.gone.filter((it) => it.group === group).map(({ instance, crashed, at, start }) => {
    const end = `${crashed ? "crashed" : "last seen"} ${at < 0 ? "before this flow" : `at ${moment(at)}`}`;
    return start ? h("p", {}, `Bring back ${instance} (${end}): `, command(start)) : h("p", {}, `${instance}: ${end}.`);
  });
}

/** No process has the work since then. */
function stuck(name, group, since, before) {
  const waited = now() - since;
  const gone = dead(group);
  if (waited < LATE) return [h("p", {}, before, ` A living process of group ${group} may take `, strong(name), " now."), ...gone];
  const start = gone.length ? null : about.group_start?.replace("{group}", group);
  return [
    h("p", { class: "alarm" }, `No process of group ${group} has taken `, strong(name), ` yet. It has waited for ${seconds(waited)}.`),
    h("p", {}, `This page cannot see which processes are alive. If none of group ${group} is, start one: the work waits, and nothing is lost.`, start && command(start)),
    ...gone,
  ];
}

function holder(it) {
  const { function: name, group, instance, crash, kill, step, lease, died, expired, version } = it;
  const who = strong(instance, `name ${colour(instance)}`);
  const work = strong(name);
  if (died == null) {
    const button = crash ? h("button", { class: "danger", disabled: pressed.get(key(it)) === "", "data-crash": crash, "data-version": version }, "Crash it") : null;
    const kept = lease ? `${instance} renews its lease of ${lease / 1000} s as long as it lives. If it dies, the lease runs out, and a living process of group ${group} takes over. If none is alive, the work waits for one.` : "";
    const typed = kill ? h("p", {}, crash ? "or in a terminal: " : "Crash it in a terminal: ", command(kill)) : null;
    const late = kill ? `After the command, this page sees the death only when the lease has run out${crash ? "; after the button, at once" : ""}. ` : "";
    const more = [step, `run ${version}`].filter(Boolean).join(" · ");
    return h("div", { class: "holder" }, h("p", {}, work, " runs on process ", who), h("p", { class: "number" }, more), button, h("p", { class: "error" }, pressed.get(key(it)) ?? ""), typed, h("p", { class: "quiet" }, late + kept));
  }
  if (expired != null || !lease) {
    const before = it.stopped ? `${instance} was stopped, and gave its work back.` : `The lease of ${instance} ran out.`;
    return h("div", { class: "holder" }, ...stuck(name, group, expired ?? died, before));
  }
  const left = Math.max(0, died + lease - now());
  const until = left > 0 ? `within ${(left / 1000).toFixed(1)} s` : "any moment now";
  return h("div", { class: "holder dying", "--left": String(left / lease) }, h("p", {}, "Nobody runs ", work, ": process ", who, " is dead."), h("p", {}, "Its lease runs out ", strong(until), `. Then a living process of group ${group} takes over. If none is alive, the work waits for one.`), h("div", { class: "lease", "aria-hidden": true }), ...dead(group));
}

/** The crash buttons that were pressed, and what became of it. A process has another one for each run. */
const pressed = new Map();
const key = ({ crash, version }) => `${crash} ${version}`;

/** Presses a crash button. */
async function press(button) {
  pressed.set(key(button), "");
  draw();
  try {
    await ask(button.crash, { method: "POST" });
  } catch (problem) {
    pressed.set(key(button), quoted(problem));
    if (flow) draw();
  }
}

/** What hides the present, and what to do about it. */
function blind({ what }) {
  const ago = Date.now() - known;
  const goes = what === SERVER ? patience(about.server_start) : alone(about.group_start);
  return [
    h("p", { class: "alarm" }, `Not known: ${what}.`),
    h("p", {}, "What this page shows is old: of ", strong(new Date(known).toLocaleTimeString()), `, ${seconds(ago)} ago.`),
    h("p", {}, ...goes),
  ];
}

/** Who works, or died at work: for a moment, the server still names a process whose function waits already. */
const holders = () => flow.holders.filter((it) => it.died != null || flow.rows.find((row) => row.group && row.name === it.function)?.segments.at(-1)?.kind !== "wait");
/** The functions that no process has taken. */
const queued = () => flow.rows.filter((it) => it.group && it.segments.at(-1)?.kind === "queue");
const idle = () => holders().every((it) => it.died != null) && holders().length + queued().length > 0;

/** Who runs the flow now, or why nobody does. */
function happening() {
  if (hidden()) return blind(hidden());
  if (holders().length) return holders().map(holder);
  const timer = flow.rows.find((it) => it.kind === "timer" && it.due != null);
  if (timer) return [h("p", {}, "Nobody: the flow sleeps until ", strong(seconds(timer.due)), ". Processes may stop and start meanwhile.")];
  if (queued().length) return queued().map((it) => h("div", { class: "holder" }, ...stuck(it.name, it.group, it.segments.at(-1).from, "Nobody runs it yet.")));
  return [h("p", { class: "quiet" }, "Nobody right now.")];
}

function draw() {
  const parts = [flow.flow, flow.about].join(": ");
  find("about").replaceChildren(parts, flow.options ? h("strong", {}, ` ${flow.options}`) : "");
  flow.rows.forEach((it) => it.segments.forEach(({ who }) => who && colour(who)));
  update(find("rows"), flow.rows.map(past).map(row));
  const kinds = new Set(flow.rows.flatMap((it) => it.segments.map(({ kind }) => kind)));
  const legend = [...colours.keys()].map((who) => [`run ${colour(who)}`, `work of process ${who}`]);
  if (!flow.complete) legend.push(["line now", hidden() ? "the last moment that is known" : "now"]);
  for (const kind of ["retry", "wait", "sleep", "lost", "silent", "queue", "unknown", "away"]) if (kinds.has(kind)) legend.push([kind, KINDS[kind][1]]);
  for (const [kind, text] of [["death", "a process died, or its last sign of life"], ["stop", "a process was stopped"], ["takeover", "another run of the function takes over"]]) if (flow.marks.some((it) => it.kind === kind)) legend.push([`line ${kind}`, text]);
  const words = [
    ["✓ stored", "it never runs again", (it) => it.kind !== "call" && it.note === "✓ stored"],
    ["✓ ran again", "it was interrupted, and then run from its start", (it) => it.tone === "again"],
    ["⇢", "the function above started it, and does not wait for it", (it) => it.kind === "detached"],
    ["unreliable", "the step that fails as often as the option “fail” says", (it) => it.name === "unreliable"],
    ["empty row", "it is not called yet, does not run, or is over", () => !hidden()],
  ].filter(([, , is]) => flow.rows.some(is));
  update(find("legend"), [...legend.map(([kind, text]) => h("li", {}, h("span", { class: `swatch ${kind}`, "aria-hidden": true }), text)), ...words.map(([word, text]) => h("li", {}, h("b", {}, word), `: ${text}`))]);
  update(find("story"), flow.story.map(({ at, tone, text }) => h("li", { class: tone }, h("span", { class: "number" }, moment(at)), h("span", {}, text))));
  find("now").hidden = flow.ended != null && flow.holders.length === 0;
  // What waits for one of them says so itself.
  const groups = holders().filter((it) => it.died == null).map((it) => it.group);
  const back = [...new Set(flow.gone.map((it) => it.group))].filter((it) => find("now").hidden || groups.includes(it)).flatMap(dead);
  find("back").hidden = back.length === 0;
  update(find("back").querySelector("div"), back);
  const seen = flow.complete ? "This flow has ended, so this page cannot see whether the process is back. Do this if you have not done so yet; with Docker, docker ps lists what runs." : "This page sees that a process is back only when it runs something in this flow.";
  find("back").querySelector(".hint").textContent = seen;
  const result = find("result");
  result.hidden = flow.ended == null;
  result.className = `card ${badge(flow.state)[1]}`;
  const answer = flow.result == null ? "The flow is done." : `The answer is ${flow.result}.`;
  result.querySelector("p").textContent = flow.error ?? answer;
  find("trace").hidden = !flow.trace_url;
  if (flow.trace_url) find("trace").href = flow.trace_url;
  find("cancel").hidden = flow.ended != null || hidden() != null;
  document.title = `${id}: ${hidden() ? "not known" : badge(flow.state, flow.result)[0]}`;
  find("columns").hidden = false;
  problem();
  const held = holders().filter((it) => it.died == null).map((it) => it.instance).join(", ");
  if (!hidden()) remember(id, { flow: flow.flow, state: flow.state, result: flow.result, held, queued: idle(), takeovers: flow.takeovers, ms: flow.ended ?? now() });
  tick();
}

/** What the gateway answered last to something that was pressed. */
let refusal = "";

function problem() {
  const it = flow && hidden();
  const why = it ? `${it.what[0].toUpperCase()}${it.what.slice(1)}${it.reason ? `: “${it.reason}”` : ""}. What this page shows is old.` : "";
  const text = [why, refusal].filter(Boolean).join(" ");
  find("problem").hidden = !text;
  if (find("problem").textContent !== text) find("problem").textContent = text;
}

/** Announces important events to screen readers, once each. `first`: earlier events are not announced. */
function announce(first) {
  const lines = flow.story.filter(({ tone, text }, n) => tone && flow.story.slice(0, n + 1).filter((it) => it.text === text).length > (told.get(text) ?? 0));
  lines.forEach(({ text }) => told.set(text, (told.get(text) ?? 0) + 1));
  if (!first && lines.length) find("news").textContent = lines.map(({ text }) => text).join(". ");
}

let source = null;
let last = "";
let heard = 0;
let timer = 0;
/** How often in a row the gateway answered, but sent no events: too many pages are open. */
let refused = 0;

/** Listens to the gateway. It sends the state only if this page does not have it yet. */
function listen() {
  clearTimeout(timer);
  source?.close();
  source = new EventSource(`${path}/events${last ? `?last-event-id=${last}` : ""}`);
  heard = Date.now();
  source.onopen = () => {
    if (cut) refusal = "";
    cut = null;
    refused = 0;
    reach(true, flow ? !flow.trouble : null);
    if (flow) draw();
  };
  source.addEventListener("ping", () => {
    heard = Date.now();
    if (flow && !flow.trouble) known = heard;
  });
  source.addEventListener("state", (event) => {
    heard = Date.now();
    last = event.lastEventId;
    const first = flow === null;
    const { now: theirs, state } = JSON.parse(event.data);
    ahead = theirs - heard;
    if (first || (flow.trouble && !state.trouble)) refusal = "";
    flow = state;
    known = flow.trouble ? flow.trouble.as_of - ahead : heard;
    reach(true, !flow.trouble);
    draw();
    announce(first);
    if (flow.complete) {
      source.close();
      source = null;
      update(find("connection"), [h("span", {}, "the flow has ended")]);
    }
  });
  source.onerror = lost;
}

/** The connection is gone: finds out why, and tries again. */
async function lost() {
  source?.close();
  source = null;
  let pause = RETRY;
  try {
    await ask(path);
    if (source || document.hidden) return;
    refused += 1;
    pause = Math.min(200 * 2 ** refused, 10_000);
    if (refused >= 3) cut = { what: "the gateway has no room for another page" };
  } catch (error) {
    if (source || document.hidden) return;
    if ([400, 404].includes(error.status)) return unknown(error);
    cut = { what: error.status ? (error.status === 503 ? SERVER : "the gateway refuses what this page asks") : GATEWAY, reason: error.status && error.message };
    reach(Boolean(error.status), error.status === 503 ? false : undefined);
    if (!flow) refusal = error.status ? quoted(error) : "";
  }
  if (flow) draw();
  else problem();
  timer = setTimeout(listen, pause);
}

/** There is no such flow, or the server has lost it. */
function unknown(error) {
  find("about").replaceChildren(flow ? "The server does not know this flow any more. " : "There is no such flow. ", h("a", { href: "/" }, "Start one on the start page"));
  flow = null;
  refusal = quoted(error);
  problem();
  for (const part of ["columns", "cancel", "trace", "json"]) find(part).hidden = true;
  find("state").textContent = "";
  reach(true, true);
}

/** Disconnects while the page is hidden, so that it costs the gateway nothing. */
function look() {
  if (document.hidden) {
    source?.close();
    source = null;
    clearTimeout(timer);
  } else if (!source && !flow?.complete) listen();
}

find("id").textContent = id;
document.title = id;
find("json").href = `${path}.json`;
find("json").hidden = false;
find("holders").addEventListener("click", ({ target }) => target.dataset.crash && press({ ...target.dataset }));
find("cancel").addEventListener("click", async ({ target }) => {
  target.disabled = true;
  refusal = await ask(path, { method: "DELETE" }).then(() => "", (it) => `${it.status ? "Not canceled" : "Not known whether it is canceled"}: ${quoted(it)}`);
  target.disabled = false;
  problem();
});
settings().then((it) => (about = it), () => {});
document.addEventListener("visibilitychange", look);
addEventListener("resize", tick);
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
setInterval(() => document.hidden || flow?.complete || tick(), calm ? 1000 : 100);
setInterval(() => source && Date.now() - heard > SILENCE && lost(), 1000);
look();
