// One question or answer in a conversation.

import { clean, Cleaner } from "./clean.js";
import { copyButton, el, icon, iconButton } from "./dom.js";
import { percent, t } from "./i18n.js";
import { Markdown } from "./markdown.js";
import { explain } from "./turns.js";

/** A question. `note`, if there is one, goes below it. */
export function userMessage(text) {
  const note = el("div", { class: "note", hidden: true });
  const bubble = el("div", { class: "bubble" }, clean(text));
  const root = el("article", { class: "msg user" }, el("h2", { class: "sr" }, t("you")), bubble, note);
  return { root, note };
}

/** An answer, whole or as it comes. `actions`: elements for below it, once it is complete. */
export class AnswerView {
  #raw = "";
  #drawn = 0;
  #cleaner = new Cleaner();
  #frame = 0;

  constructor() {
    this.body = el("div", { class: "md" });
    this.wait = el("div", { class: "wait" }, dots(), el("span"));
    this.note = el("div", { class: "note", hidden: true });
    this.actions = el("div", { class: "acts", hidden: true });
    this.root = el(
      "article",
      { class: "msg bot" },
      el("h2", { class: "sr" }, t("assistant")),
      ...[this.body, this.wait, this.note, this.actions],
    );
    this.markdown = new Markdown(this.body);
    this.text = ""; // clean
  }

  /** Show this much of the answer; drawn with the next frame. */
  update(raw) {
    if (!raw.startsWith(this.#raw)) this.#restart();
    this.#raw = raw;
    this.#frame ||= requestAnimationFrame(() => this.draw());
  }

  /** What it is waiting for; null when it is not. */
  waitFor(words) {
    this.wait.hidden = words === null;
    this.wait.classList.toggle("quiet", words === "");
    this.root.classList.toggle("live", words === "");
    this.wait.lastChild.textContent = words ?? "";
  }

  /** Draw what has come by now. Returns the clean text that is new. */
  draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const fresh = this.#cleaner.push(this.#raw.slice(this.#drawn));
    this.#drawn = this.#raw.length;
    this.text += fresh;
    if (fresh) this.markdown.append(fresh);
    return fresh;
  }

  /** It is complete. */
  finish() {
    this.draw();
    this.markdown.finish();
    this.waitFor(null);
    if (this.text) this.actions.prepend(copyButton(() => this.text, t("copy")));
    this.actions.hidden = this.actions.childElementCount === 0;
  }

  #restart() {
    this.body.replaceChildren();
    this.markdown = new Markdown(this.body);
    this.#cleaner = new Cleaner();
    this.#drawn = 0;
    this.text = "";
  }
}

function dots() {
  return el("span", { class: "dots", "aria-hidden": "true" }, el("i"), el("i"), el("i"));
}

/** A remark below a message, with what can be done about it. */
export function remark(note, words, ...buttons) {
  note.replaceChildren(el("span", {}, words), ...buttons);
  note.hidden = false;
}

/** A small button with words. */
export function wordButton(name, words, click) {
  return el("button", { type: "button", class: "word", on: { click } }, icon(name), words);
}

/** A small button without. */
export function actionButton(name, words, click, kind = "") {
  const button = iconButton(name, words, click);
  button.classList.add("small");
  if (kind) button.classList.add(kind);
  return button;
}

/** What a turn is waiting for, in words; null if its text is coming or has come. */
export function waitingFor(turn, online) {
  if (turn.over) return null;
  if (turn.stopWanted) return t("stopping");
  if (turn.retryAt) {
    return t("busy", { seconds: Math.max(1, Math.round((turn.retryAt - Date.now()) / 1000)) });
  }
  if (!online) return turn.wasSent ? t("reconnecting") : t("waiting");
  if (!turn.attached) return turn.wasSent ? t("reconnecting") : t("waitingTurn");
  const { progress } = turn;
  if (progress?.stage === "queued") return clean(progress.message);
  if (progress?.stage === "load") return t("loading");
  if (progress?.stage === "prefill" && progress.total) {
    return t("reading", { percent: percent(progress.completed / progress.total) });
  }
  return "";
}

/** How a turn ended, in words; null if there is nothing to say about it. */
export function ending(turn) {
  if (turn.state === "failed") return t(...explain(turn.error));
  if (turn.finish === "cancelled") return t("stopped");
  if (turn.finish === "length" || turn.finish === "deadline") return t("cutOff");
  return null;
}
