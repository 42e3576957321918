// The WebSocket: requests out, replies in, and what is done when it is lost.

import { call, Failure, newId } from "./requests.js";

const FIRST_DELAY_MS = 400;
const LONGEST_DELAY_MS = 15_000;
const OPENING_MS = 8_000;
const SILENCE_MS = 20_000; // after so long without a word the gateway is asked for one
const ANSWER_MS = 6_000; // which it must give within this
const DAEMON_MS = 1_500; // a daemon that is there says so within this
const AWAY_MS = 3_000; // how often a daemon that is away is looked for
const REVOKED = 4401;

/**
 * The line to the gateway. Dispatches "state" when `state` has changed:
 *
 *   connecting   for the first time
 *   online       requests are sent
 *   offline      no gateway; it is tried again, ever more slowly
 *   away         a gateway, but no daemon
 *   out          this device may not; nothing is tried any more
 */
export class Connection extends EventTarget {
  state = "connecting";
  #socket = null;
  #exchanges = new Map(); // request id → handlers
  #tries = 0;
  #timer = 0;
  #watch = 0;
  #heard = 0;

  /** Connect, and stay connected until `stop`, after which the line is "out". */
  start() {
    addEventListener("online", this.#soon);
    addEventListener("offline", this.#check);
    addEventListener("pageshow", this.#check);
    document.addEventListener("visibilitychange", this.#check);
    this.#open();
  }

  stop() {
    removeEventListener("online", this.#soon);
    removeEventListener("offline", this.#check);
    removeEventListener("pageshow", this.#check);
    document.removeEventListener("visibilitychange", this.#check);
    this.#out();
  }

  /** Somebody waits for the connection: try now. */
  nudge() {
    if (this.state !== "online") this.#soon();
  }

  /**
   * Send a request; its id is returned. Handlers, all optional: `delta(text)`,
   * `progress(reply)`, and of these one is called last: `done(reply)`, `error(error)`, `lost()`.
   */
  send(message, handlers, id = newId()) {
    if (this.state !== "online") {
      queueMicrotask(() => handlers.lost?.());
      return id;
    }
    this.#exchanges.set(id, handlers);
    this.#socket.send(JSON.stringify({ ...message, id }));
    this.#listen();
    return id;
  }

  /** Send a request that has one reply. Throws Failure. */
  ask(message) {
    return new Promise((resolve, reject) => {
      this.send(message, {
        done: resolve,
        error: (error) => reject(new Failure(error.code, error.message)),
        lost: () => reject(new Failure("unreachable", "")),
      });
    });
  }

  // --- opening and closing ---

  #soon = () => {
    if (this.state === "out" || this.#socket !== null) return;
    this.#tries = 0;
    this.#open();
  };

  #open() {
    clearTimeout(this.#timer);
    const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/ws`);
    this.#socket = socket;
    let opened = false;
    // a network that swallows everything would let us wait for minutes
    const patience = setTimeout(() => this.#lost(socket, opened), OPENING_MS);
    socket.onopen = () => {
      clearTimeout(patience);
      opened = true;
      this.#tries = 0;
      this.#demandWord(); // of the daemon: the gateway alone answers nothing
      setTimeout(() => {
        if (socket === this.#socket && this.state !== "online") this.#become("away");
      }, DAEMON_MS);
    };
    socket.onmessage = (event) => this.#receive(JSON.parse(event.data));
    socket.onclose = (event) => {
      clearTimeout(patience);
      if (event.code === REVOKED) this.#out();
      else this.#lost(socket, opened);
    };
  }

  /** The line is gone, whatever the browser believes. */
  #lost(socket, opened) {
    if (socket !== this.#socket) return;
    this.#drop();
    if (this.state === "out") return;
    if (this.state !== "away") this.#become("offline");
    if (!opened) this.#verify();
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#tries);
    this.#tries += 1;
    // not all devices of a house at the same moment
    this.#timer = setTimeout(() => this.#open(), longest * (0.5 + Math.random() / 2));
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    clearTimeout(this.#watch);
    this.#abandonAll();
  }

  #abandonAll() {
    const exchanges = [...this.#exchanges.values()];
    this.#exchanges.clear();
    for (const handlers of exchanges) handlers.lost?.();
  }

  /** A browser does not tell why a WebSocket was refused; a plain request does. */
  async #verify() {
    try {
      await call("/api/me");
    } catch (error) {
      if (error.status === 401) this.#out();
      else if (this.#socket?.readyState !== WebSocket.OPEN) {
        this.#become(error.status === 503 ? "away" : "offline");
      }
    }
  }

  #out() {
    clearTimeout(this.#timer);
    this.#become("out");
    this.#drop();
  }

  #become(state) {
    if (this.state === state || this.state === "out") return;
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }

  // --- is anybody there? ---

  /** The page was woken up, or the network has changed: the line may be dead without a word. */
  #check = () => {
    if (document.hidden || this.state === "out") return;
    if (this.#socket === null) this.#soon();
    else if (this.#socket.readyState === WebSocket.OPEN) this.#demandWord();
  };

  #listen() {
    clearTimeout(this.#watch);
    const after = this.state === "away" ? AWAY_MS : SILENCE_MS;
    this.#watch = setTimeout(() => {
      if (document.hidden) this.#listen();
      else this.#demandWord();
    }, after);
  }

  #away() {
    this.#become("away");
    this.#listen();
  }

  #demandWord() {
    const socket = this.#socket;
    const asked = performance.now();
    const id = newId();
    this.#exchanges.set(id, { done: () => this.#become("online") });
    socket.send(JSON.stringify({ type: "ping", id }));
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => {
      if (this.#heard < asked) this.#lost(socket, true);
      else this.#listen();
    }, ANSWER_MS);
  }

  // --- replies ---

  #receive(reply) {
    this.#heard = performance.now();
    if (reply.id === undefined || reply.id === null) {
      this.#announce(reply);
      return;
    }
    const handlers = this.#exchanges.get(reply.id);
    if (handlers === undefined) return; // of what nobody waits for any more
    if (reply.type === "delta") {
      handlers.delta?.(reply.text);
    } else if (reply.type === "progress") {
      handlers.progress?.(reply);
    } else {
      this.#exchanges.delete(reply.id);
      if (reply.type === "done") handlers.done?.(reply);
      else this.#failed(handlers, reply.error);
    }
  }

  #failed(handlers, error) {
    if (error.code === "unreachable") {
      this.#away();
      handlers.lost?.();
      return;
    }
    // either this one request is not allowed, or the device no longer is
    if (error.code === "unauthorized") this.#verify();
    handlers.error?.(error);
  }

  #announce(reply) {
    if (reply.type === "offline") {
      this.#away();
      this.#abandonAll();
    } else if (reply.type === "online") {
      this.#become("online");
    } else if (reply.type === "error" && reply.error.code === "unauthorized") {
      this.#out();
    }
  }
}
