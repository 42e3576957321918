// The phone (and any larger screen): a conversation, the list of the others, the state.

import { Chat } from "./chat.js";
import { el, iconButton, openDialog } from "./dom.js";
import { t } from "./i18n.js";
import { Panel } from "./panel.js";
import { SessionList } from "./sessions.js";

const PATIENCE_MS = 1_200; // a line that is back within this was never mentioned
const SHOWN_MS = 2_500;

/** Everything of the phone's. Dispatches "unpair". */
export class Phone extends EventTarget {
  #timer = 0;
  #wide = matchMedia("(min-width: 60rem)");

  constructor(parts) {
    super();
    const { connection, me } = parts;
    this.connection = connection;
    this.chat = new Chat(parts);
    this.sessions = new SessionList(connection);
    this.panel = new Panel(connection);
    this.panel.addEventListener("unpair", () => this.dispatchEvent(new Event("unpair")));
    this.title = el("h1", { class: "title" });
    this.menu = iconButton("menu", t("openConversations"), () => this.#openDrawer());
    this.banner = el("div", { class: "banner", role: "status" });
    this.header = el(
      "header",
      { class: "bar" },
      this.menu,
      this.title,
      iconButton("pulse", t("status"), () => this.panel.open(me)),
      iconButton("add", t("newChat"), () => this.chat.begin()),
    );
    this.aside = el("aside", { class: "aside", "aria-label": t("conversations") });
    this.drawer = el("dialog", { class: "drawer", "aria-label": t("conversations") });
    this.root = el(
      "div",
      { class: "phone" },
      this.aside,
      el(
        "div",
        { class: "column" },
        this.header,
        this.banner,
        this.chat.thread.root,
        this.chat.composer.root,
      ),
      this.drawer,
    );
    this.#place();
    this.#wide.addEventListener("change", () => this.#place());
    this.#listen();
    this.#fitKeyboard();
  }

  /** Show the conversation of the last time. */
  start() {
    this.chat.reopen();
    this.chat.composer.focus();
  }

  /** A question that was under way when the page was closed; the chat hears of it by itself. */
  adopt(turn) {
    if (turn.session === this.chat.session) this.chat.show(turn);
  }

  /** Neither hear nor speak any more: this device is no longer paired. */
  silence() {
    this.chat.silence();
  }

  #listen() {
    const { chat, sessions, connection } = this;
    chat.addEventListener("title", () => {
      this.title.textContent = chat.title || t("newChat");
      document.title = chat.title ? `${chat.title} · ${t("app")}` : t("app");
      sessions.current = chat.session;
      sessions.draw();
    });
    chat.addEventListener("sessions", () => this.#sessionsSeen && sessions.refresh());
    sessions.addEventListener("open", ({ session }) => {
      this.drawer.close();
      chat.open(session.id, session.title);
    });
    sessions.addEventListener("begin", () => {
      this.drawer.close();
      chat.begin();
    });
    sessions.addEventListener("renamed", ({ session }) => {
      if (session.id === chat.session) chat.setTitle(session.title);
    });
    sessions.addEventListener("deleted", ({ id }) => {
      if (id === chat.session) chat.begin();
    });
    connection.addEventListener("state", () => this.#stateChanged());
  }

  get #sessionsSeen() {
    return this.#wide.matches || this.drawer.open;
  }

  /** The list is beside the conversation where there is room, else in a drawer. */
  #place() {
    if (this.#wide.matches) this.drawer.close();
    (this.#wide.matches ? this.aside : this.drawer).append(this.sessions.root);
    if (this.#wide.matches) this.sessions.refresh();
  }

  #openDrawer() {
    openDialog(this.drawer);
    this.sessions.refresh();
  }

  #stateChanged() {
    clearTimeout(this.#timer);
    const { state } = this.connection;
    const cut = state === "offline" || state === "away";
    if (cut) {
      this.#timer = setTimeout(() => this.#say(state), PATIENCE_MS);
    } else if (state === "online") {
      if (this.#sessionsSeen) this.sessions.refresh();
      if (!this.banner.dataset.state) return;
      this.#say("online");
      this.#timer = setTimeout(() => this.#say(""), SHOWN_MS);
    }
  }

  #say(state) {
    this.banner.dataset.state = state;
    this.banner.textContent = state && t(state);
  }

  /** Safari lays the keyboard over the page, and tells only here how much of it is left. */
  #fitKeyboard() {
    const view = window.visualViewport;
    view?.addEventListener("resize", () => {
      const covered = Math.max(0, innerHeight - view.height - view.offsetTop);
      this.root.style.setProperty("--covered", view.scale === 1 ? `${covered}px` : "0px");
    });
  }
}
