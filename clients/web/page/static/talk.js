// The button to talk: held like a radio's, or tapped to begin and tapped to end. With the keyboard
// it is pressed twice.

import { Recording, transcribe } from "./audio.js";
import { buzz, iconButton } from "./dom.js";
import { t } from "./i18n.js";

const HELD_MS = 350;

/**
 * Dispatches "phase" when `phase` has changed (idle, opening, listening, hearing), "text"
 * (`event.text`) with what was understood, and "trouble" (`event.error`, null if nothing was).
 * The CSS variable --level of the button follows the voice.
 */
export class TalkButton extends EventTarget {
  phase = "idle";
  #recording = null;
  #pressed = 0;
  #keyboard = true; // until a pointer says otherwise
  #tapped = false; // it listens until it is pressed again

  constructor(label = t("hold")) {
    super();
    this.button = iconButton("mic", label, () => this.#click(), {
      on: {
        click: () => this.#click(),
        pointerdown: (event) => this.#down(event),
        pointerup: () => this.#up(),
        pointercancel: () => this.#up(),
        contextmenu: (event) => event.preventDefault(),
      },
    });
    this.button.classList.add("talk");
  }

  /** What to do or to wait for now, in words; `idle` is said when it does nothing. */
  words(idle) {
    if (this.phase === "idle") return idle;
    if (this.phase === "hearing") return t("hearing");
    if (this.phase === "opening") return t("listening");
    return this.#tapped ? t("tapToSend") : t("releaseToSend");
  }

  /** Throw away what is being said. */
  async cancel() {
    const recording = this.#recording;
    this.#recording = null;
    this.#become("idle");
    await recording?.close();
  }

  #down(event) {
    if (event.button !== 0) return;
    this.#keyboard = false;
    this.button.setPointerCapture(event.pointerId);
    if (this.phase === "listening") {
      this.#pressed = 0; // the second tap: it ends when the finger is lifted
      return;
    }
    this.#pressed = performance.now();
    this.#tapped = false;
    this.#begin();
  }

  #up() {
    const held = performance.now() - this.#pressed > HELD_MS;
    if (this.phase === "listening" && held) this.#finish();
    // let go while the browser still asked whether it may: what was meant is not known
    else if (this.phase === "opening" && held) this.cancel();
    else if (this.#pressed && this.phase !== "idle") this.#tap();
  }

  #click() {
    const keyboard = this.#keyboard;
    this.#keyboard = true;
    if (!keyboard) return;
    this.#tap();
    if (this.phase === "idle") this.#begin();
    else if (this.phase === "listening") this.#finish();
  }

  #tap() {
    this.#tapped = true;
    this.#become(this.phase); // the words have changed
  }

  async #begin() {
    if (this.phase !== "idle") return;
    const recording = new Recording();
    this.#recording = recording;
    this.#become("opening");
    try {
      await recording.start({
        level: (x) => this.button.style.setProperty("--level", x.toFixed(2)),
        full: () => this.#finish(),
      });
    } catch (error) {
      await recording.close();
      if (this.#recording === recording) this.#trouble(error);
      return;
    }
    if (this.#recording !== recording) {
      await recording.close(); // it was cancelled meanwhile
      return;
    }
    buzz(15);
    this.#become("listening");
  }

  async #finish() {
    const recording = this.#recording;
    if (this.phase !== "listening") return;
    this.#become("hearing");
    try {
      const sound = await recording.stop();
      const text = sound === null ? "" : await transcribe(sound);
      if (this.#recording !== recording) return;
      if (text === "") {
        this.#trouble(null);
        return;
      }
      this.#recording = null;
      this.#become("idle");
      this.dispatchEvent(Object.assign(new Event("text"), { text }));
    } catch (error) {
      if (this.#recording === recording) this.#trouble(error);
    }
  }

  #trouble(error) {
    this.#recording = null;
    this.#become("idle");
    this.dispatchEvent(Object.assign(new Event("trouble"), { error }));
  }

  #become(phase) {
    this.phase = phase;
    this.button.dataset.phase = phase;
    this.button.setAttribute("aria-pressed", String(phase === "listening"));
    this.dispatchEvent(new Event("phase"));
  }
}

/** What to tell when nothing was understood. */
export function talkTrouble(error) {
  if (error === null) return t("notUnderstood");
  if (["NotAllowedError", "NotFoundError", "NotReadableError"].includes(error.name)) {
    return t("noMicrophone");
  }
  return error.code === "unreachable" ? t("noAnswer") : t("failed", { reason: error.message });
}
