// Pairing: a code from the computer's screen makes this browser a device of the assistant's.

import { buzz, el } from "./dom.js";
import { t } from "./i18n.js";
import { call, post } from "./requests.js";

/** What this device is called, as far as the browser tells. */
async function deviceName() {
  const data = navigator.userAgentData;
  if (data?.getHighEntropyValues) {
    const { model, platform } = await data.getHighEntropyValues(["model", "platform"]);
    if (model || platform) return model || platform;
  }
  const known = /iPhone|iPad|Android|Windows|Macintosh|Linux/.exec(navigator.userAgent);
  return known?.[0].replace("Macintosh", "Mac") ?? t("device");
}

/** The code of the address' fragment, which is then taken out of it (and of the history). */
export function codeOfAddress() {
  const code = location.hash.slice(1);
  if (location.hash || location.pathname !== "/") {
    history.replaceState(null, "", `/${location.search}`);
  }
  return /^[\w-]{6,64}$/.test(code) ? code : "";
}

/**
 * The screen for pairing. `why`: a word in front, as that the device was revoked. Dispatches
 * "paired" (`event.device`) when the four words were compared, "unpair" if they differ.
 */
export class PairScreen extends EventTarget {
  constructor({ code = "", why = "" } = {}) {
    super();
    this.code = el("input", {
      id: "pair-code",
      class: code ? "digits secret" : "digits",
      value: code,
      maxlength: "64",
      inputmode: "numeric",
      autocomplete: "one-time-code",
      autocapitalize: "none",
      spellcheck: "false",
      placeholder: "••••••",
      required: true,
      "aria-describedby": "pair-problem",
    });
    this.name = el("input", { id: "pair-name", maxlength: "64", required: true });
    this.problem = el("p", { id: "pair-problem", class: "problem", role: "alert" });
    this.submit = el("button", { type: "submit", class: "wide" }, t("pair"));
    this.form = el(
      "form",
      { class: "stack", novalidate: true, on: { submit: (event) => this.#pair(event) } },
      el("label", { for: "pair-code" }, t("pairCode")),
      this.code,
      el("label", { for: "pair-name" }, t("pairName")),
      this.name,
      this.problem,
      this.submit,
    );
    const [before, after] = t("pairHow", { command: "\n" }).split("\n");
    this.how = code
      ? el("p", {}, t("pairScanned"))
      : el("p", {}, before, el("code", {}, "assistant pair"), after);
    this.card = el(
      "div",
      { class: "card" },
      el("img", { src: "/icon-any.svg", alt: "", width: "64", height: "64" }),
      el("h1", { tabindex: "-1" }, t("pairTitle")),
      why ? el("p", { class: "why", role: "alert" }, why) : null,
      this.how,
      this.form,
    );
    this.root = el("main", { class: "pair" }, this.card);
    this.#suggestName();
    if (location.protocol === "https:") this.#offerCertificate();
  }

  async #suggestName() {
    const name = await deviceName();
    this.name.value ||= name;
  }

  focus() {
    if (this.code.value) this.submit.focus();
    else this.code.focus();
  }

  async #pair(event) {
    event.preventDefault();
    const code = this.code.value.replace(/[\s-]/g, "");
    const empty = [this.code, this.name].find((input) => !input.value.trim());
    if (empty) {
      empty.focus();
      return;
    }
    if (code.length < 6) {
      this.#say(t("shortCode"));
      this.code.focus();
      return;
    }
    this.#say("");
    this.submit.disabled = true;
    this.submit.textContent = t("pairing");
    try {
      const response = await post("/api/pair", { code, name: this.name.value.trim() });
      this.#compare((await response.json()).device);
    } catch (error) {
      this.#failed(error);
    } finally {
      this.submit.disabled = false;
      this.submit.textContent = t("pair");
    }
  }

  #failed(error) {
    if (error.status === 429) this.#say(t("tooManyTries"));
    else if (error.status === 403) this.#say(t("wrongCode"));
    else if (error.code === "unreachable") this.#say(t("pairOffline"));
    else this.#say(t("pairFailed", { reason: error.message }));
    if (error.status === 403 || error.status === 429) {
      this.code.value = "";
      this.code.classList.remove("secret");
      this.code.focus();
    }
  }

  #say(words) {
    this.problem.textContent = words;
    this.code.setAttribute("aria-invalid", String(words !== ""));
  }

  /** Paired: now the person compares the words on both screens. */
  #compare(device) {
    buzz(30);
    const title = el("h1", { tabindex: "-1" }, t("paired"));
    const done = (name) => () => this.dispatchEvent(Object.assign(new Event(name), { device }));
    this.card.replaceChildren(
      el("img", { src: "/icon-any.svg", alt: "", width: "64", height: "64" }),
      title,
      el("p", {}, t("compareWords")),
      el("ol", { class: "words" }, ...device.words.split(" ").map((word) => el("li", {}, word))),
      el("p", { class: "hint" }, t("wordsDiffer")),
      el(
        "div",
        { class: "stack" },
        el("button", { type: "button", class: "wide", on: { click: done("paired") } }, t("wordsSame")),
        el(
          "button",
          { type: "button", class: "plain danger", on: { click: done("unpair") } },
          t("wordsNotSame"),
        ),
      ),
    );
    title.focus();
  }

  /** How to trust the computer's own certificate authority, if it has one. */
  async #offerCertificate() {
    try {
      await call("/ca.crt", { method: "HEAD" });
    } catch (error) {
      if (error.status !== 404) console.warn("no certificate", error);
      return; // a certificate that browsers know
    }
    this.card.append(
      el(
        "details",
        {},
        el("summary", {}, t("certificate")),
        el("p", {}, t("certificateWhy")),
        el("p", {}, el("a", { href: "/ca.crt", download: "assistant-ca.crt" }, t("certificateGet"))),
        el("p", {}, t("certificateCheck")),
        el("p", {}, t("certificateAndroid")),
        el("p", {}, t("certificateIos")),
      ),
    );
  }
}
