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
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Makes the children of an element like these, and keeps what is alike: what has the focus, or is pressed. */
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
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

/** Shows in the corner whether the gateway can be reached. */
export function connected(is, text = is ? "connected" : "the gateway is gone; trying again") {
  const corner = find("connection");
  corner.className = is ? "up" : "down";
  if (corner.textContent !== text) corner.textContent = text;
}

/** Fetches JSON. A failure has the problem's `detail` as its message, and its `status`. */
export async function ask(path, options = {}) {
  const headers = { accept: "application/json", ...options.headers };
  const response = await fetch(path, { ...options, headers });
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  throw Object.assign(new Error(body.detail ?? `status ${response.status}`), body, { status: response.status });
}

/** What the gateway says about itself: the kinds of flows, and where Jaeger is. */
export async function settings() {
  const answer = await ask("/page/settings.json");
  for (const link of document.querySelectorAll("[data-jaeger]")) {
    if (!answer.jaeger) continue;
    link.href = answer.jaeger;
    link.hidden = false;
  }
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

/** A state, as a badge shows it: its text and its class. */
export function badge(state, result) {
  switch (state) {
    case "pending":
      return ["running", "now"];
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
