// For the curious: what the daemon is doing, asked for only while somebody looks.

import { el, iconButton, openDialog } from "./dom.js";
import { number, size, t } from "./i18n.js";

const EVERY_MS = 2_000;

/** A sheet with the daemon's state. Dispatches "unpair". */
export class Panel extends EventTarget {
  #timer = 0;

  constructor(connection) {
    super();
    this.connection = connection;
    this.facts = el("dl", { class: "facts" });
    this.bar = el("div", { class: "ledger", role: "img", hidden: true });
    this.legend = el("ul", { class: "legend" });
    this.offline = el("p", { class: "hint", hidden: true }, t("statusOffline"));
    this.device = el("dl", { class: "facts" });
    this.unpair = el("button", { type: "button", class: "plain danger" }, t("unpair"));
    this.unpair.addEventListener("click", () => this.#unpair());
    const close = iconButton("close", t("close"), () => this.sheet.close());
    this.sheet = el(
      "dialog",
      { class: "sheet", "aria-labelledby": "panel-title", on: { close: () => this.#closed() } },
      el("div", { class: "sheet-head" }, el("h2", { id: "panel-title" }, t("status")), close),
      ...[this.offline, this.facts, this.bar, this.legend],
      el("h3", {}, t("thisDevice")),
      this.device,
      this.unpair,
    );
    document.body.append(this.sheet);
  }

  /** Open it. `me`: the answer of /api/me. */
  open(me) {
    const { name, words } = me.device;
    show(this.device, [
      [t("pairName"), name],
      [t("words"), words],
    ]);
    this.unpair.textContent = t("unpair");
    delete this.unpair.dataset.sure;
    openDialog(this.sheet);
    this.#look();
  }

  #closed() {
    clearTimeout(this.#timer);
  }

  async #look() {
    clearTimeout(this.#timer);
    try {
      this.#draw((await this.connection.ask({ type: "status" })).status);
      this.offline.hidden = true;
    } catch (error) {
      this.offline.hidden = false;
      if (error.code !== "unreachable") console.warn("no status", error);
    }
    if (this.sheet.open) this.#timer = setTimeout(() => this.#look(), EVERY_MS);
  }

  #draw(status) {
    const { memory, plan, budget, queue, model } = status;
    const used = size(memory.rss);
    const speed = status.tokens_per_second;
    show(this.facts, [
      [t("state"), t(`state_${status.state}`)],
      [t("model"), model?.name],
      [t("speed"), speed && t("perSecond", { n: number(speed, speed < 10 ? 1 : 0) })],
      [t("memory"), budget ? t("ofBudget", { used, budget: size(budget) }) : used],
      [t("queue"), `${number(queue.active)}, ${number(queue.waiting)}`],
      [t("served"), number(status.requests_served)],
      [t("version"), status.version],
    ]);
    this.#drawLedger(plan?.owners ?? {});
  }

  /** Who has how much of the memory budget. */
  #drawLedger(owners) {
    const shares = Object.entries(owners)
      .filter(([name, bytes]) => bytes > 0 && name !== "margin")
      .sort((a, b) => b[1] - a[1]);
    const label = ([name, bytes]) => `${t(name)} ${size(bytes)}`;
    this.bar.hidden = shares.length === 0;
    this.bar.setAttribute("aria-label", `${t("memory")}: ${shares.map(label).join(", ")}`);
    this.bar.replaceChildren(
      ...shares.map(([, bytes], number) => {
        const part = el("span", { class: `share${number % 6}` });
        part.style.flexGrow = String(bytes);
        return part;
      }),
    );
    this.legend.replaceChildren(
      ...shares.map((share, number) =>
        el("li", {}, el("i", { class: `share${number % 6}` }), label(share)),
      ),
    );
  }

  #unpair() {
    if (this.unpair.dataset.sure) {
      this.sheet.close();
      this.dispatchEvent(new Event("unpair"));
    }
    this.unpair.dataset.sure = "yes";
    this.unpair.textContent = t("unpairSure");
  }
}

function show(list, facts) {
  list.replaceChildren(
    ...facts
      .filter(([, value]) => value)
      .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
  );
}
