// Making elements. Text goes in as text nodes only: nothing on this page is ever parsed as HTML.

import { t } from "./i18n.js";

/**
 * An element. `props`: `class`, `on: {event: listener}`, `data: {…}`; attributes otherwise, where
 * true means present, and false, null and undefined absent. Children: nodes or strings.
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === "data") {
      Object.assign(node.dataset, value);
    } else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

// on a grid of 24, drawn with round strokes of 1.75
const ICONS = {
  menu: "M4 7h16M4 12h16M4 17h10",
  add: "M12 5v14M5 12h14",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M8 8h8v8H8z",
  mic: "M12 3a3 3 0 0 0-3 3v5a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3zM6 11a6 6 0 0 0 12 0M12 17v4",
  copy: "M9 9h10v11H9zM15 9V5H5v11h4",
  check: "M5 12.5l4.5 4.5L19 7",
  retry: "M19 6v5h-5M18.5 11A7 7 0 1 0 19 14.5",
  speaker: "M5 10v4h3l4 4V6l-4 4zM15.5 9a4 4 0 0 1 0 6M18 6.5a8 8 0 0 1 0 11",
  pulse: "M3 12h4l3-7 4 14 3-7h4",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  close: "M6 6l12 12M18 6L6 18",
  down: "M12 5v14M6 13l6 6 6-6",
  keyboard: "M4 7h16v10H4zM7.5 10.5h.01M12 10.5h.01M16.5 10.5h.01M8 13.5h8",
  back: "M15 5l-7 7 7 7",
  clock: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM12 8v4l3 2",
};

/** A line drawing by name, hidden from screen readers: what it means is the label beside it. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", `icon icon-${name}`);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A round button with a drawing, named by `label`. */
export function iconButton(name, label, click, props = {}) {
  return el(
    "button",
    { type: "button", class: "round", "aria-label": label, title: label, on: { click }, ...props },
    icon(name),
  );
}

/** Change what a round button shows and is called. */
export function setIconButton(button, name, label) {
  if (button.getAttribute("aria-label") === label) return;
  button.setAttribute("aria-label", label);
  button.title = label;
  button.replaceChildren(icon(name));
}

/** Put text on the clipboard; tells whether that worked. */
export async function copyText(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch (error) {
      console.warn("the clipboard refused", error); // then the old way, below
    }
  }
  const area = el("textarea", { class: "sr", readonly: true, "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}

/** A button that copies what `text()` gives, and says so for a moment. */
export function copyButton(text, label) {
  const button = iconButton("copy", label, async () => {
    const copied = await copyText(text());
    setIconButton(button, copied ? "check" : "copy", copied ? t("copied") : t("notCopied"));
    setTimeout(() => setIconButton(button, "copy", label), 1600);
  });
  button.classList.add("small");
  return button;
}

/** Open a dialog over the page; a click beside it closes it, as Esc does. */
export function openDialog(dialog) {
  if (!dialog.dataset.ready) {
    dialog.dataset.ready = "yes";
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
  }
  dialog.showModal();
}

/** A short buzz, where there is a motor; browsers allow none before the page was touched. */
export function buzz(...pattern) {
  if (navigator.userActivation?.hasBeenActive !== false) navigator.vibrate?.(pattern);
}
