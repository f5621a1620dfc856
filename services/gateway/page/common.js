// What both pages use: making elements, formatting, and the flows that this browser started.

/** Makes an element: h("a", { href: "/" }, "Home"). Properties that begin with "--" are set as style. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** Makes an element of a drawing. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("--")) element.style.setProperty(name, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true && !name.startsWith("aria-") ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Updates the children of an element in place. Elements that stay keep their focus and pressed state. */
export function update(parent, children) {
  children.forEach((child, place) => {
    const old = parent.childNodes[place];
    if (!old) parent.append(child);
    else if (old.nodeName !== child.nodeName) old.replaceWith(child);
    else if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== child.data) old.data = child.data;
    } else {
      for (const { name } of [...old.attributes]) if (!child.hasAttribute(name)) old.removeAttribute(name);
      for (const { name, value } of child.attributes) {
        if (old.getAttribute(name) === value) continue;
        // The policy of the page allows styles by script, and not as text.
        if (name === "style") old.style.cssText = value;
        else old.setAttribute(name, value);
      }
      update(old, [...child.childNodes]);
    }
  });
  while (parent.childNodes.length > children.length) parent.lastChild.remove();
}

export const find = (id) => document.getElementById(id);

/** A time in milliseconds, as people say it. */
export function seconds(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const whole = Math.round(ms / 1000);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** Shows whether the gateway and the server are reachable. `server` is null while that is not known. */
export function reach(gateway, server) {
  const part = (name, is) => h("span", is == null ? {} : { class: is ? "up" : "down" }, `${name} ${is == null ? "not known" : is ? "connected" : "unreachable; trying again"}`);
  update(find("connection"), [part("gateway", gateway), part("Resonate Server", server)]);
}

/** A command on one line, to be copied. It is focusable, so that the keyboard can scroll it. */
export const command = (text) => h("code", { class: "command", tabindex: "0" }, text);

/** Advice while the server is unreachable. `start`: the command that starts it, if known. */
export const patience = (start) =>
  start
    ? ["Nothing is lost: every call and every stored step is in the server's store. If the server is down, start it again (if it is paused, unpause it): ", command(start)]
    : ["Nothing is lost that is in the server's store, and all goes on by itself when the server is back. Only the server that ", h("code", {}, "cargo run"), " brings along has its store in memory: if that one was killed, start everything again."];

/** Advice while the gateway is unreachable. `start`: the command that starts a group, if known. */
export const alone = (start) => ["Flows go on without the gateway. This page goes on by itself when the gateway answers again. ", ...(start ? ["If it is down, start it again: ", command(start.replace("{group}", "gateway"))] : [])];

/** An answer that is a problem, as a sentence. */
export const quoted = ({ status, message }) => (status ? `The gateway answered: “${message}”` : "The gateway cannot be reached.");

/** Fetches JSON. A failure has the problem's `detail` as its message, and its `status`. */
export async function ask(path, options = {}) {
  const headers = { accept: "application/json", ...options.headers };
  // A gateway without a server answers after three seconds.
  const response = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(options.method ? 15_000 : 5_000) });
  const body = await response.json().catch((error) => (error instanceof SyntaxError ? {} : Promise.reject(error)));
  if (response.ok) return body;
  throw Object.assign(new Error(body.detail ?? `status ${response.status}`), body, { status: response.status });
}

/** What the gateway says about itself: the kinds of flows, where Jaeger is, and what starts what is down. */
export async function settings() {
  const answer = await ask("/page/settings.json");
  if (answer.jaeger) document.querySelectorAll("[data-jaeger]").forEach((it) => Object.assign(it, { href: answer.jaeger, hidden: false }));
  return answer;
}

const KEY = "flows";
const MOST = 50;

/** The flows that this browser started, newest first. */
export function flows() {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY));
    return Array.isArray(stored) ? stored.filter((it) => typeof it?.id === "string") : [];
  } catch {
    return [];
  }
}

/** Adds a flow to them, or changes what is known of it. */
export function remember(id, known, add = false) {
  const all = flows();
  const old = all.find((flow) => flow.id === id);
  if (!old && !add) return;
  if (old) Object.assign(old, known);
  else all.unshift({ id, ...known });
  try {
    localStorage.setItem(KEY, JSON.stringify(all.slice(0, MOST)));
  } catch {
    // A browser that stores nothing has no list.
  }
}

/** A state, as a badge shows it: its text and its class. `queued`: no process has taken the work. */
export function badge(state, result, queued) {
  switch (state) {
    case "pending":
      return queued ? ["waits for a process", ""] : ["running", "now"];
    case "resolved":
      return [result == null ? "done" : `done · ${result}`, "ok"];
    case "rejected":
      return ["failed", "bad"];
    case "rejected_canceled":
      return ["canceled", "bad"];
    case "rejected_timedout":
      return ["timed out", "bad"];
    default:
      return [state ?? "unknown", ""];
  }
}
