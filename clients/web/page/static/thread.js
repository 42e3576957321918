// The messages of one conversation, on a scroller that stays at the end while it is being read.

import { el, iconButton } from "./dom.js";
import { t } from "./i18n.js";

const PAGE = 30; // messages drawn at a time: long conversations are drawn from their end
const NEAR_PX = 80;

/** A scroller with messages. */
export class Thread {
  #earlier = []; // makers of messages that are not drawn yet, the oldest first
  #pinned = true;

  constructor() {
    this.more = el(
      "button",
      { type: "button", class: "word more", hidden: true, on: { click: () => this.#drawEarlier() } },
      t("earlier"),
    );
    this.list = el("div", { class: "thread" });
    this.scroller = el(
      "div",
      // the keyboard must be able to scroll it
      { class: "scroller", tabindex: "0", role: "region", "aria-label": t("conversation") },
      this.more,
      this.list,
    );
    this.jump = iconButton("down", t("latest"), () => this.toEnd(true), { hidden: true });
    this.jump.classList.add("jump");
    this.root = el("main", { class: "main" }, this.scroller, this.jump);
    this.scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    const resized = new ResizeObserver(() => {
      if (this.#pinned) this.toEnd();
    });
    resized.observe(this.list);
    resized.observe(this.scroller);
    new IntersectionObserver(([entry]) => entry.isIntersecting && this.#drawEarlier(), {
      root: this.scroller,
      rootMargin: "400px 0px 0px 0px",
    }).observe(this.more);
  }

  /** Show other messages: functions that make an element each, the oldest first. */
  fill(makers) {
    this.#earlier = makers.slice(0, -PAGE);
    this.list.replaceChildren(...makers.slice(-PAGE).map((make) => make()));
    this.more.hidden = this.#earlier.length === 0;
    this.toEnd();
  }

  add(...nodes) {
    this.list.append(...nodes);
    if (this.#pinned) this.toEnd();
  }

  toEnd(smooth = false) {
    this.#pinned = true;
    this.jump.hidden = true;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.scroller.scrollTo({
      top: this.scroller.scrollHeight,
      behavior: smooth && !still ? "smooth" : "instant",
    });
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    const near = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    this.#pinned = near;
    this.jump.hidden = near;
  }

  #drawEarlier() {
    const makers = this.#earlier.splice(-PAGE);
    if (!makers.length) return;
    const fromEnd = this.scroller.scrollHeight - this.scroller.scrollTop;
    this.list.prepend(...makers.map((make) => make()));
    this.more.hidden = this.#earlier.length === 0;
    this.scroller.scrollTop = this.scroller.scrollHeight - fromEnd;
  }
}
