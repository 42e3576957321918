// The list of conversations, and renaming and deleting them.

import { clean } from "./clean.js";
import { el, iconButton, openDialog } from "./dom.js";
import { t, when } from "./i18n.js";
import { save } from "./store.js";
import { explain } from "./turns.js";

/** Dispatches "open" and "renamed" (`event.session`), "begin", and "deleted" (`event.id`). */
export class SessionList extends EventTarget {
  current = "";
  #sessions = null;

  constructor(connection) {
    super();
    this.connection = connection;
    this.list = el("ul", { class: "sessions" });
    this.empty = el("p", { class: "hint", hidden: true });
    const fresh = iconButton("add", t("newChat"), () => this.dispatchEvent(new Event("begin")));
    this.root = el(
      "div",
      { class: "sidebar" },
      el("div", { class: "side-head" }, el("h2", {}, t("conversations")), fresh),
      el("nav", { "aria-label": t("conversations") }, this.list),
      this.empty,
    );
  }

  /** Fetch the list anew. */
  async refresh() {
    try {
      const reply = await this.connection.ask({ type: "sessions", op: "list" });
      this.#sessions = reply.sessions ?? [];
    } catch (error) {
      if (error.code !== "unreachable") console.warn("no list of conversations", error);
    }
    this.draw();
  }

  draw() {
    const sessions = this.#sessions ?? [];
    this.empty.textContent = this.#sessions ? t("noConversations") : t("conversationsOffline");
    this.empty.hidden = sessions.length > 0;
    this.list.replaceChildren(...sessions.map((session) => this.#row(session)));
  }

  #row(session) {
    const title = clean(session.title).trim() || session.id;
    const open = () => this.#dispatch("open", { session });
    return el(
      "li",
      {},
      el(
        "button",
        {
          type: "button",
          class: "session",
          "aria-current": session.id === this.current ? "true" : null,
          on: { click: open },
        },
        el("span", { class: "session-title" }, title),
        el("span", { class: "session-when" }, when(session.updated_at)),
      ),
      iconButton("more", t("retitle", { title }), () => this.#edit(session)),
    );
  }

  /** A sheet with the title, to be changed, and a button that deletes. */
  #edit(session) {
    const input = el("input", { id: "session-title", maxlength: "200", value: session.title });
    const remove = el("button", { type: "button", class: "plain danger" }, t("remove"));
    const problem = el("p", { class: "problem", role: "alert", hidden: true });
    const act = async (work) => {
      const words = await work();
      problem.textContent = words;
      problem.hidden = words === "";
      if (words === "") sheet.close();
    };
    const sheet = el(
      "dialog",
      { class: "sheet", "aria-label": t("conversation"), on: { close: () => sheet.remove() } },
      el(
        "form",
        { class: "stack" },
        el("label", { for: "session-title" }, t("title")),
        input,
        problem,
        el("button", { type: "submit", class: "wide" }, t("save")),
        remove,
        el(
          "button",
          { type: "button", class: "plain", on: { click: () => sheet.close() } },
          t("cancel"),
        ),
      ),
    );
    sheet.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      act(() => this.#rename(session, input.value));
    });
    remove.addEventListener("click", () => {
      if (remove.dataset.sure) act(() => this.#delete(session));
      remove.dataset.sure = "yes";
      remove.textContent = t("removeSure");
    });
    document.body.append(sheet);
    openDialog(sheet);
    input.select();
  }

  async #rename(session, text) {
    const title = text.trim();
    if (!title || title === session.title) return "";
    return this.#change({ type: "sessions", op: "rename", session: session.id, title }, () =>
      this.#dispatch("renamed", { session: { ...session, title } }),
    );
  }

  async #delete(session) {
    return this.#change({ type: "sessions", op: "delete", session: session.id }, () => {
      save(`draft.${session.id}`, null);
      this.#dispatch("deleted", { id: session.id });
    });
  }

  /** Why it was not done, in words; "" once it is, after `done()`. */
  async #change(request, done) {
    let there = true;
    try {
      await this.connection.ask(request);
    } catch (error) {
      if (error.code !== "not_found") return t(...explain(error));
      there = false; // it was deleted elsewhere
    }
    if (there || request.op === "delete") done();
    this.refresh();
    return "";
  }

  #dispatch(name, fields) {
    this.dispatchEvent(Object.assign(new Event(name), fields));
  }
}
