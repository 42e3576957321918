// Where a question is typed or spoken.

import { canRecord } from "./audio.js";
import { el, iconButton, setIconButton } from "./dom.js";
import { t } from "./i18n.js";
import { load, save } from "./store.js";
import { TalkButton, talkTrouble } from "./talk.js";

const DRAFT_MS = 300;

/** Dispatches "send" (`event.text`, `event.spoken`) and "stop". */
export class Composer extends EventTarget {
  #answering = false;
  #draft = "draft.";
  #saving = 0;

  /** `hear`: whether the gateway can. */
  constructor({ hear }) {
    super();
    this.input = el("textarea", {
      rows: "1",
      placeholder: t("ask"),
      "aria-label": t("message"),
      enterkeyhint: "send",
      autocomplete: "off",
      on: {
        input: () => this.#changed(),
        keydown: (event) => this.#key(event),
      },
    });
    this.action = iconButton("send", t("send"), () => this.#act());
    this.action.classList.add("action");
    this.talk = hear && canRecord() ? this.#makeTalk() : null;
    this.trouble = el("p", { class: "trouble", role: "status" });
    this.root = el(
      "footer",
      { class: "composer" },
      this.trouble,
      el("div", { class: "pill" }, this.input, this.talk?.button ?? null, this.action),
    );
    this.#show();
  }

  /** Whether an answer is being written, which can be stopped. */
  set answering(value) {
    this.#answering = value;
    this.#show();
  }

  /** Go to another conversation, which has a draft of its own. */
  set session(session) {
    this.#keep();
    this.#draft = `draft.${session}`;
    this.text = load(this.#draft) ?? "";
  }

  get text() {
    return this.input.value;
  }

  set text(text) {
    this.input.value = text;
    this.#fit();
    this.#show();
  }

  focus() {
    // on a phone that would open the keyboard over half of the page
    if (!matchMedia("(pointer: coarse)").matches) this.input.focus();
  }

  #changed() {
    this.trouble.textContent = "";
    this.#fit();
    this.#show();
    this.#saving ||= setTimeout(() => this.#keep(), DRAFT_MS);
  }

  #keep() {
    clearTimeout(this.#saving);
    this.#saving = 0;
    if (this.#draft !== "draft.") save(this.#draft, this.text || null);
  }

  #fit() {
    if (CSS.supports("field-sizing", "content")) return;
    this.input.style.height = "auto";
    this.input.style.height = `${this.input.scrollHeight}px`;
  }

  #key(event) {
    // Enter that ends a syllable of Hangul is the input method's
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.#send();
    }
  }

  #act() {
    if (this.text.trim() || !this.#answering) this.#send();
    else this.dispatchEvent(new Event("stop"));
  }

  #send() {
    const text = this.text.trim();
    if (!text) return;
    this.text = "";
    this.#keep();
    this.dispatchEvent(Object.assign(new Event("send"), { text, spoken: false }));
  }

  #show() {
    const empty = !this.text.trim();
    const stops = empty && this.#answering;
    setIconButton(this.action, stops ? "stop" : "send", stops ? t("stop") : t("send"));
    this.action.disabled = empty && !stops;
    if (this.talk) this.talk.button.hidden = !empty || this.#answering;
  }

  #makeTalk() {
    const talk = new TalkButton();
    talk.addEventListener("text", ({ text }) => {
      this.dispatchEvent(Object.assign(new Event("send"), { text, spoken: true }));
    });
    talk.addEventListener("trouble", ({ error }) => {
      this.trouble.textContent = talkTrouble(error); // until something else is done
    });
    talk.addEventListener("phase", () => {
      this.input.placeholder = talk.words(t("ask"));
      if (talk.phase === "opening") this.trouble.textContent = "";
      this.root.dataset.talk = talk.phase;
    });
    return talk;
  }
}
