// The watch: one button, one question, one answer in large letters.

import { canRecord } from "./audio.js";
import { clean } from "./clean.js";
import { buzz, el, iconButton } from "./dom.js";
import { t } from "./i18n.js";
import { AnswerView, ending, waitingFor } from "./message.js";
import { Sentences } from "./speech.js";
import { load, save } from "./store.js";
import { TalkButton, talkTrouble } from "./talk.js";

const GLANCE = {
  system:
    "You answer on a watch. Answer in one or two short sentences of at most 140 characters in all, " +
    "in the language of the question. No lists, no Markdown.",
  max_tokens: 80,
};

/** Whether this is a watch: as small as one, or told to be one by ?watch. */
export function isWatch() {
  const small = (width, height) => width <= 450 && height <= 450;
  return (
    new URLSearchParams(location.search).has("watch") ||
    small(screen.width, screen.height) ||
    // of a phone with its keyboard open only the height is small
    (small(innerWidth, innerHeight) && screen.width > 1000)
  );
}

/** The one screen, with faces: ready, typing, answer. */
export class Watch {
  #turn = null;
  #view = null;
  #fresh = false; // the face of an answer was opened just now
  #sentences = new Sentences();

  constructor({ connection, turns, announcer, speaker, hear }) {
    Object.assign(this, { connection, turns, announcer, speaker });
    const query = new URLSearchParams(location.search);
    document.documentElement.classList.toggle("is-round", query.has("round"));
    this.root = el("main", { class: "watch" });
    this.heading = el("h1", { class: "sr" }, t("app"));
    this.line = el("p", { class: "watch-line", role: "status" });
    this.talk = hear && canRecord() ? this.#makeTalk() : null;
    this.#makeReady();
    this.#makeTyping();
    this.#makeAnswer();
    turns.addEventListener("turn", ({ turn, delta }) => {
      if (turn === this.#turn) this.#turned(delta);
    });
    connection.addEventListener("state", () => this.#draw());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing) this.#escape();
    });
    this.#show("ready");
  }

  /** Take over a question that was under way when the page was closed. */
  adopt(turn) {
    this.#turn = turn;
    this.#begin();
  }

  /** Neither hear nor speak any more: this device is no longer paired. */
  silence() {
    this.talk?.cancel();
    this.speaker?.stop();
  }

  // --- faces ---

  #makeReady() {
    const type = () => this.#show("typing");
    const last = load("last");
    this.big = this.talk?.button ?? iconButton("keyboard", t("typeInstead"), type);
    this.big.classList.add("big");
    this.hint = el("p", { class: "watch-hint" });
    this.keyboard = this.talk ? iconButton("keyboard", t("typeInstead"), type) : null;
    this.last = iconButton("clock", t("lastAnswer"), () => this.#showLast(), { hidden: !last });
    this.ready = el(
      "section",
      { class: "face face-ready", "aria-label": t("ask") },
      this.big,
      this.hint,
      el("div", { class: "watch-row" }, this.keyboard, this.last),
    );
  }

  #makeTyping() {
    this.input = el("input", {
      "aria-label": t("message"),
      placeholder: t("ask"),
      enterkeyhint: "send",
      autocomplete: "off",
    });
    const send = el("button", { type: "submit", class: "wide" }, t("send"));
    const back = iconButton("back", t("back"), () => this.#show("ready"));
    this.typing = el(
      "section",
      { class: "face face-typing", "aria-label": t("typeInstead") },
      el(
        "form",
        { class: "stack", on: { submit: (event) => this.#typed(event) } },
        this.input,
        send,
      ),
      el("div", { class: "watch-row" }, back),
    );
  }

  #makeAnswer() {
    this.question = el("p", { class: "watch-question" });
    this.holder = el("div", { class: "glance" });
    this.ended = el("p", { class: "note", hidden: true });
    this.stopButton = iconButton("stop", t("stop"), () => this.#stop());
    this.againButton = iconButton("retry", t("retry"), () => this.#again());
    this.newButton = iconButton(this.talk ? "mic" : "keyboard", t("askAgain"), () =>
      this.#show("ready"),
    );
    this.newButton.classList.add("primary");
    this.answer = el(
      "section",
      // it scrolls, so the keyboard and the crown must get there
      { class: "face face-answer", tabindex: "0", "aria-label": t("conversation") },
      this.question,
      this.holder,
      this.ended,
      el("div", { class: "watch-row" }, this.stopButton, this.againButton, this.newButton),
    );
  }

  #show(face) {
    if (this.face === face) return;
    this.face = face;
    this.root.replaceChildren(this.heading, this.line, this[face]);
    if (face === "ready") this.#setHint();
    if (face === "ready") this.last.hidden = !load("last");
    if (face === "typing") this.input.focus();
    else if (face === "ready") this.big.focus({ preventScroll: true });
    this.#draw();
  }

  #setHint(words) {
    this.hint.textContent = words ?? this.talk?.words(t("hold")) ?? t("typeInstead");
  }

  // --- asking ---

  #makeTalk() {
    const talk = new TalkButton();
    talk.addEventListener("text", ({ text }) => this.#ask(text, true));
    talk.addEventListener("phase", () => {
      this.#setHint();
      if (talk.phase === "opening") this.speaker?.stop();
    });
    talk.addEventListener("trouble", ({ error }) => {
      buzz(40, 60, 40);
      this.#setHint(talkTrouble(error));
    });
    for (const event of ["pointerup", "click"]) {
      talk.button.addEventListener(event, () => this.speaker?.unlock());
    }
    return talk;
  }

  #typed(event) {
    event.preventDefault();
    const text = this.input.value.trim();
    if (!text) return;
    this.input.value = "";
    this.#ask(text, false);
  }

  #ask(question, spoken) {
    this.speaker?.stop();
    this.#turn = this.turns.ask({ question, spoken, fields: GLANCE });
    this.#begin();
  }

  #begin() {
    this.#sentences = new Sentences();
    this.#view = new AnswerView();
    this.#open(this.#turn.question);
    this.#view.update(this.#turn.text);
    this.#draw();
  }

  #open(question) {
    this.question.textContent = clean(question);
    this.holder.replaceChildren(this.#view.root);
    this.#view.root.classList.add("only");
    this.ended.hidden = true;
    this.#show("answer");
    this.answer.scrollTop = 0;
    this.#fresh = true;
  }

  #showLast() {
    const { question, text } = load("last");
    this.#turn = null;
    this.#view = new AnswerView();
    this.#open(question);
    this.#view.update(text);
    this.#view.finish();
    this.#draw();
  }

  #stop() {
    this.speaker?.stop();
    if (this.#turn) this.turns.stop(this.#turn);
  }

  #again() {
    const question = this.question.textContent;
    this.#ask(question, this.#turn?.spoken ?? false);
  }

  #escape() {
    this.talk?.cancel();
    if (this.#turn && !this.#turn.over) this.#stop();
    else this.#show("ready");
  }

  // --- the answer ---

  #turned(delta) {
    const turn = this.#turn;
    if (turn.finish === "removed") {
      this.#turn = null;
      this.#show("ready");
      return;
    }
    this.#view.update(turn.text);
    if (delta) {
      this.announcer.push(clean(delta));
      if (turn.spoken) {
        this.#sentences.push(clean(delta)).forEach((sentence) => this.speaker?.add(sentence));
      }
    }
    if (turn.over) this.#over(turn);
    this.#draw();
  }

  #over(turn) {
    this.#view.finish();
    if (turn.spoken) this.#sentences.flush().forEach((sentence) => this.speaker?.add(sentence));
    this.announcer.flush();
    const words = ending(turn);
    this.announcer.say(words ?? t("answered"));
    this.ended.textContent = words ?? "";
    this.ended.hidden = words === null || turn.finish === "length";
    if (turn.state === "done" && turn.text) {
      save("last", { question: turn.question, text: turn.text });
      buzz(30);
    } else {
      buzz(40, 60, 40);
    }
  }

  #draw() {
    const { state } = this.connection;
    const cut = state === "offline" || state === "away";
    this.line.hidden = !cut;
    this.line.textContent = cut ? t(state === "away" ? "awayShort" : "offlineShort") : "";
    const turn = this.#turn;
    const busy = turn !== null && !turn.over;
    const hadFocus = this.stopButton === document.activeElement;
    if (busy) this.#view.waitFor(waitingFor(turn, state === "online"));
    this.stopButton.hidden = !busy;
    this.newButton.hidden = busy;
    // what can be pressed next has the focus, as its crown and keyboard want it
    if (busy ? this.#fresh : hadFocus) {
      (busy ? this.stopButton : this.newButton).focus({ preventScroll: true });
    }
    this.#fresh = false;
    this.againButton.hidden = busy || (turn?.state !== "failed" && turn?.finish !== "cancelled");
  }
}
