// A conversation: its messages, the answer that is being written, and what can be done with them.

import { Composer } from "./composer.js";
import { clean } from "./clean.js";
import { el } from "./dom.js";
import { t } from "./i18n.js";
import {
  actionButton,
  AnswerView,
  ending,
  remark,
  userMessage,
  waitingFor,
  wordButton,
} from "./message.js";
import { newId } from "./requests.js";
import { Sentences } from "./speech.js";
import { load, save } from "./store.js";
import { Thread } from "./thread.js";
import { explain, ours } from "./turns.js";

/** Dispatches "title" when the title has changed, and "sessions" when the list may have. */
export class Chat extends EventTarget {
  title = "";
  session = "";
  #loaded = false; // whether the messages of before are shown
  #loading = 0;
  #outdated = false; // an answer was completed while its conversation was being fetched
  #views = new Map(); // key of a turn → its view
  #counts; // messages of sessions, for the turns

  /** `speaker` is null where the gateway cannot speak. */
  constructor({ connection, turns, announcer, speaker, counts, hear }) {
    super();
    Object.assign(this, { connection, turns, announcer, speaker });
    this.#counts = counts;
    this.thread = new Thread();
    this.composer = new Composer({ hear });
    this.composer.addEventListener("send", ({ text, spoken }) => this.ask(text, spoken));
    this.composer.addEventListener("stop", () => this.stop());
    for (const event of ["pointerup", "click"]) {
      this.composer.talk?.button.addEventListener(event, () => this.speaker?.unlock());
    }
    this.composer.talk?.addEventListener("phase", () => {
      if (this.composer.talk.phase === "opening") this.speaker?.stop();
    });
    turns.addEventListener("turn", (event) => this.#turned(event.turn, event.delta));
    connection.addEventListener("state", () => {
      if (connection.state === "online" && !this.#loaded) this.#load();
      for (const view of this.#views.values()) this.#refresh(view);
    });
    document.addEventListener("keydown", (event) => {
      // while Hangul is composed, Escape is the input method's
      if (event.key !== "Escape" || event.isComposing) return;
      if (!document.querySelector("dialog[open]")) this.stop();
    });
  }

  // --- which conversation ---

  /** Begin a new conversation. */
  begin(session = `chat-${newId().slice(0, 8)}`) {
    this.#show(session, "");
    this.#loaded = true;
    this.#counts.set(this.session, 0);
    this.thread.fill([() => this.#greeting()]);
    this.composer.focus();
  }

  /** Open one that there is. */
  open(session, title = "") {
    this.#show(session, title);
    this.#load();
  }

  /** The one that was open when the page was closed, or a new one. */
  reopen() {
    const last = load("session");
    if (last?.id && last.title) this.open(last.id, last.title);
    else this.begin(last?.id || undefined);
  }

  #show(session, title) {
    this.speaker?.stop();
    this.#loading += 1;
    this.#loaded = false;
    this.session = session;
    this.#views.clear();
    this.thread.fill([]);
    this.composer.session = session;
    this.setTitle(title);
    this.#showTurns();
  }

  /** Another title, as after renaming. */
  setTitle(title) {
    this.title = title;
    save("session", { id: this.session, title });
    this.dispatchEvent(new Event("title"));
  }

  async #load() {
    if (this.connection.state !== "online") return;
    const loading = (this.#loading += 1);
    this.#outdated = false;
    let session;
    try {
      const request = { type: "sessions", op: "show", session: this.session };
      session = (await this.connection.ask(request)).session;
    } catch (error) {
      if (loading !== this.#loading || error.code === "unreachable") return; // later, then
      if (error.code !== "not_found") this.#notLoaded(error);
      // else it was deleted elsewhere, or its first question is still to be sent
      else if (this.turns.of(this.session).length) this.#loaded = true;
      else this.begin();
      return;
    }
    if (loading !== this.#loading) return;
    if (this.#outdated) {
      this.#load();
      return;
    }
    this.#loaded = true;
    const messages = this.#withoutTurns(session.messages);
    this.#counts.set(session.id, messages.length);
    this.setTitle(session.title);
    this.#views.clear();
    this.thread.fill(this.#makers(messages));
    this.#showTurns();
  }

  /** Say that the messages could not be fetched, and why. */
  #notLoaded(error) {
    const note = el("div", { class: "note bad" });
    const again = wordButton("retry", t("retryLoad"), () => {
      note.remove();
      this.#load();
    });
    remark(note, t(...explain(error)), again);
    this.thread.list.prepend(note);
  }

  /** Without the question and answer that are still under way here: they are shown as such. */
  #withoutTurns(messages) {
    const [turn] = this.turns.of(this.session);
    const asked = turn?.wasSent ? ours(turn, messages) : -1;
    return asked < 0 ? messages : messages.slice(0, asked);
  }

  /** Functions that draw the stored messages. */
  #makers(messages) {
    const makers = [];
    messages.forEach(({ role, content, finish_reason: finish, answered = true }, number) => {
      if (role === "assistant") {
        const question = messages[number - 1]?.content ?? "";
        makers.push(() => this.#storedAnswer(question, content, finish));
      } else if (role === "user") {
        const next = messages[number + 1];
        // what was asked again is shown once
        const again = !answered && next?.role === "user" && next.content === content;
        if (!again) makers.push(() => this.#storedQuestion(content, answered));
      }
    });
    return makers;
  }

  #storedQuestion(text, answered) {
    const { root, note } = userMessage(text);
    if (!answered) {
      const again = wordButton("retry", t("retry"), () => {
        root.remove();
        this.ask(text);
      });
      remark(note, t("lostAnswer"), again);
    }
    return root;
  }

  #storedAnswer(question, text, finish) {
    const view = new AnswerView();
    view.update(text);
    this.#complete(view, question, { finish });
    return view.root;
  }

  #greeting() {
    const idea = (key) =>
      el("button", { type: "button", class: "idea", on: { click: () => this.ask(t(key)) } }, t(key));
    return el(
      "div",
      { class: "greeting" },
      el("img", { src: "/icon-any.svg", alt: "", width: "72", height: "72" }),
      el("p", { class: "greeting-title" }, t("greeting")),
      el("p", { class: "greeting-note" }, t("greetingNote")),
      el("div", { class: "ideas" }, ...["idea1", "idea2", "idea3"].map(idea)),
    );
  }

  // --- asking ---

  /** Ask in this conversation. */
  ask(text, spoken = false) {
    this.thread.list.querySelector(".greeting")?.remove();
    this.speaker?.stop();
    if (!this.title) this.setTitle([...text.replace(/\s+/g, " ")].slice(0, 60).join(""));
    this.turns.ask({ session: this.session, question: text, spoken });
    this.thread.toEnd(true);
  }

  /** Neither hear nor speak. */
  silence() {
    this.composer.talk?.cancel();
    this.speaker?.stop();
  }

  /** Stop the answer that is being written, and what is said of it. */
  stop() {
    this.silence();
    const [turn] = this.turns.of(this.session);
    if (turn) this.turns.stop(turn);
  }

  // --- the answer under way ---

  /** Show a turn of this conversation that was not asked here. */
  show(turn) {
    this.thread.list.querySelector(".greeting")?.remove();
    this.#view(turn);
    this.#showWhetherAnswering();
  }

  #showWhetherAnswering() {
    // a question that waits for the connection is taken back, not stopped
    this.composer.answering = this.turns.of(this.session).some((turn) => turn.wasSent);
  }

  #showTurns() {
    for (const turn of this.turns.of(this.session)) this.#view(turn);
    this.#showWhetherAnswering();
  }

  #view(turn) {
    let view = this.#views.get(turn.key);
    if (view === undefined) {
      const question = userMessage(turn.question);
      view = { turn, question, answer: new AnswerView(), sentences: new Sentences() };
      this.#views.set(turn.key, view);
      this.thread.add(question.root, view.answer.root);
      view.answer.update(turn.text);
    }
    this.#refresh(view);
    return view;
  }

  #turned(turn, delta) {
    if (turn.over) this.dispatchEvent(new Event("sessions"));
    if (turn.session !== this.session) return;
    const view = this.#view(turn);
    view.answer.update(turn.text);
    if (delta) this.announcer.push(clean(delta));
    if (delta && turn.spoken) this.#speak(view, delta);
    if (turn.over) this.#ended(view);
    this.#showWhetherAnswering();
  }

  #refresh(view) {
    const { turn, question, answer } = view;
    const waiting = turn.over ? null : waitingFor(turn, this.connection.state === "online");
    answer.waitFor(waiting);
    const unsent = !turn.over && !turn.wasSent;
    answer.root.hidden = unsent;
    if (unsent) {
      const back = wordButton("close", t("takeBack"), () => this.turns.stop(turn));
      // a button that has the focus must not be exchanged for its like
      if (question.note.hidden) remark(question.note, waiting, back);
      else question.note.firstChild.textContent = waiting;
    } else {
      question.note.hidden = true;
    }
  }

  #ended(view) {
    const { turn, question, answer } = view;
    this.#views.delete(turn.key);
    this.#outdated = true;
    if (turn.finish === "removed") {
      question.root.remove();
      answer.root.remove();
      if (!this.composer.text) this.composer.text = turn.question;
      return;
    }
    const answered = turn.state === "done";
    const known = this.#counts.get(turn.session);
    if (known !== undefined) this.#counts.set(turn.session, known + (answered ? 2 : 1));
    if (turn.spoken) view.sentences.flush().forEach((sentence) => this.speaker?.add(sentence));
    this.#complete(answer, turn.question, turn);
    this.announcer.flush();
    this.announcer.say(ending(turn) ?? t("answered"));
    if (!answered) {
      const again = wordButton("retry", t("retry"), () => {
        question.root.remove();
        answer.root.remove();
        this.ask(turn.question, turn.spoken);
      });
      remark(answer.note, ending(turn), again);
      answer.note.classList.add("bad");
    }
  }

  /** Below a complete answer: copy, read aloud, ask again. */
  #complete(view, question, { finish, state }) {
    view.finish();
    if (this.speaker && view.text) view.actions.append(this.#speakButton(view));
    if (state !== "failed") {
      view.actions.append(
        actionButton("retry", t("retry"), () => this.ask(question), "again"),
      );
      view.actions.hidden = false;
      const words = ending({ finish });
      if (words) remark(view.note, words);
    }
  }

  #speak(view, delta) {
    for (const sentence of view.sentences.push(clean(delta))) this.speaker?.add(sentence);
  }

  #speakButton(view) {
    return actionButton("speaker", t("readAloud"), () => {
      const { speaker } = this;
      const wasSpeaking = speaker.speaking;
      speaker.stop();
      if (wasSpeaking) return;
      speaker.unlock();
      const sentences = new Sentences();
      for (const sentence of [...sentences.push(view.text), ...sentences.flush()]) {
        speaker.add(sentence);
      }
    });
  }
}
