// Questions and their answers, from the moment of asking until the answer is complete: over lost
// connections, reloads, and restarts of the daemon.
//
//   queued → asked → done
//                  ↘ failed
//
// A turn is kept in storage until it ends, under a lock, so that one page only deals with it. It
// is asked with the same id however often it has to be sent: the daemon knows what it has.

import { clean } from "./clean.js";
import { newId } from "./requests.js";
import { keys, load, save } from "./store.js";

const SAVE_MS = 400;
const BUSY_TRIES = 6;
const CLOCKS_MS = 600_000; // so far the clocks of phone and computer may be apart

/** One question with its answer so far. */
export class Turn {
  constructor(fields) {
    this.key = newId(); // in storage; the id of the request changes when it is asked anew
    this.id = newId();
    this.session = null;
    this.question = "";
    this.fields = {}; // of the chat request
    this.at = Date.now();
    this.before = null; // messages of the session when it was asked, if that is known
    this.text = ""; // of the answer, as it came
    this.points = 0; // its length in code points, which is how the daemon counts
    this.wasSent = false;
    this.wasResent = false;
    this.stopWanted = false;
    this.spoken = false; // it was asked by voice
    Object.assign(this, fields);
    this.state = "queued";
    this.attached = false; // its replies are coming in
    this.progress = null;
    this.busy = 0; // times that the daemon had no room
    this.retryAt = 0;
    this.finish = null;
    this.error = null;
  }

  get over() {
    return this.state === "done" || this.state === "failed";
  }

  /** What is kept of it. */
  get kept() {
    const { key, id, session, question, fields, at, before, text, points } = this;
    const { wasSent, wasResent, stopWanted, spoken } = this;
    return {
      ...{ key, id, session, question, fields, at, before, text, points },
      ...{ wasSent, wasResent, stopWanted, spoken },
    };
  }
}

/**
 * All turns of this page. Dispatches "turn" (`event.turn`) whenever one has changed; `event.delta`
 * is the text that has come.
 */
export class Turns extends EventTarget {
  #all = [];
  #connection;
  #count;
  #dirty = new Set();
  #saving = 0;

  /** `count(session)`: how many messages of a session are known, or null. */
  constructor(connection, count = () => null) {
    super();
    this.#connection = connection;
    this.#count = count;
    connection.addEventListener("state", () => {
      if (connection.state === "online") this.#driveAll();
      if (connection.state === "out") this.#forget();
    });
    addEventListener("pagehide", () => this.#saveDirty());
    document.addEventListener("visibilitychange", () => this.#saveDirty());
  }

  /** Turns of a session that are not over, the oldest first; null for those without one. */
  of(session) {
    return this.#all.filter((turn) => turn.session === session);
  }

  /** Ask. The turn is kept at once, and sent as soon as it can be. */
  ask(fields) {
    const turn = new Turn(fields);
    this.#all.push(turn);
    save(`turn.${turn.key}`, turn.kept);
    this.#whenOurs(turn.key, () => this.#drive(turn));
    this.#tell(turn);
    this.#connection.nudge();
    return turn;
  }

  /** End an answer; a question that was never sent is taken back. */
  stop(turn) {
    if (turn.over || turn.stopWanted) return;
    if (!turn.wasSent) {
      this.#end(turn, "done", { finish: "removed" });
      return;
    }
    turn.stopWanted = true;
    this.#save(turn);
    this.#sendStop(turn);
    this.#tell(turn);
  }

  /** Go on with what was under way when the page was closed; `found(turn)` for each. */
  resumeKept(found) {
    const kept = keys("turn.").map(load).filter(Boolean);
    kept.sort((a, b) => a.at - b.at);
    for (const { key } of kept) {
      this.#whenOurs(key, () => {
        const fields = load(`turn.${key}`); // another page may have ended it meanwhile
        if (fields === null) return;
        const turn = new Turn(fields);
        this.#all.push(turn);
        found(turn);
        this.#drive(turn);
      });
    }
  }

  // --- sending ---

  #driveAll() {
    for (const turn of this.#all) this.#drive(turn);
  }

  /** Do what is next for a turn. The questions of one conversation are asked one by one. */
  #drive(turn) {
    if (this.#connection.state !== "online" || turn.over || turn.attached) return;
    const first = this.#all.find((other) => other.session === turn.session);
    if (first !== turn || turn.retryAt > Date.now()) return;
    if (turn.wasSent) this.#resume(turn);
    else this.#send(turn);
  }

  #send(turn) {
    if (!turn.wasSent) turn.before = turn.session && this.#count(turn.session);
    turn.wasSent = true;
    turn.state = "asked";
    turn.attached = true;
    save(`turn.${turn.key}`, turn.kept); // before it is on its way
    const session = turn.session ? { session: turn.session } : {};
    const message = { type: "chat", text: turn.question, ...session, ...turn.fields };
    this.#connection.send(message, this.#handlers(turn, false), turn.id);
    this.#tell(turn);
  }

  #resume(turn) {
    turn.state = "asked";
    turn.attached = true;
    const message = { type: "resume", target: turn.id, offset: turn.points };
    this.#connection.send(message, this.#handlers(turn, true));
    if (turn.stopWanted) this.#sendStop(turn);
    this.#tell(turn);
  }

  #sendStop(turn) {
    if (turn.attached) this.#connection.send({ type: "cancel", target: turn.id }, {});
  }

  // --- replies ---

  #handlers(turn, isResume) {
    return {
      delta: (text) => {
        turn.text += text;
        turn.points += codePoints(text);
        turn.progress = null;
        turn.busy = 0;
        this.#save(turn);
        this.#tell(turn, text);
      },
      progress: (progress) => {
        turn.progress = progress;
        this.#tell(turn);
      },
      done: (reply) => this.#end(turn, "done", { finish: reply.finish_reason, full: reply.text }),
      error: (error) => {
        turn.attached = false;
        if (error.code === "busy" && turn.busy < BUSY_TRIES) this.#waitForRoom(turn, error, isResume);
        else if (isResume && error.code === "not_found") this.#recover(turn);
        else this.#end(turn, "failed", { error });
      },
      lost: () => {
        turn.attached = false;
        turn.progress = null;
        this.#tell(turn);
      },
    };
  }

  #waitForRoom(turn, error, isResume) {
    const ms = Math.max(500, error.retry_after_ms ?? 2_000);
    turn.busy += 1;
    turn.retryAt = Date.now() + ms;
    if (!isResume) {
      // a refusal is an answer, too: with the same id it would be given again
      turn.id = newId();
      turn.wasSent = false;
      turn.state = "queued";
      save(`turn.${turn.key}`, turn.kept);
    }
    setTimeout(() => {
      turn.retryAt = 0;
      this.#drive(turn);
    }, ms);
    this.#tell(turn);
  }

  /**
   * The daemon knows nothing of this answer: it was complete long ago and is in the conversation,
   * or the question never arrived, or the daemon was restarted in mid-answer.
   */
  async #recover(turn) {
    turn.attached = true; // nobody else may go on with it meanwhile
    let messages = [];
    if (turn.session) {
      try {
        const reply = await this.#connection.ask({
          type: "sessions",
          op: "show",
          session: turn.session,
        });
        messages = reply.session.messages ?? [];
      } catch (error) {
        if (error.code !== "not_found") {
          turn.attached = false;
          if (error.code !== "unreachable") this.#end(turn, "failed", { error });
          return; // otherwise again when the connection is back
        }
      }
    }
    turn.attached = false;
    const asked = ours(turn, messages);
    const answer = asked < 0 ? undefined : messages[asked + 1];
    if (answer?.role === "assistant") {
      this.#end(turn, "done", { finish: answer.finish_reason ?? "stop", full: answer.content });
    } else if (turn.stopWanted) {
      this.#end(turn, "done", { finish: "cancelled" });
    } else if (asked < 0 && turn.text === "" && !turn.wasResent) {
      turn.wasResent = true;
      this.#send(turn);
    } else {
      this.#end(turn, "failed", { error: { code: "restarted", message: "" } });
    }
  }

  #end(turn, state, { finish = null, error = null, full }) {
    if (turn.over) return;
    const before = turn.text;
    if (full !== undefined && full !== null) turn.text = full;
    Object.assign(turn, { state, finish, error, attached: false, progress: null });
    this.#all.splice(this.#all.indexOf(turn), 1);
    this.#dirty.delete(turn);
    save(`turn.${turn.key}`, null);
    const rest = turn.text.startsWith(before) ? turn.text.slice(before.length) : undefined;
    this.#tell(turn, rest);
    turn.release?.();
    this.#driveAll();
  }

  /** They were a device's that is no longer paired. */
  #forget() {
    clearTimeout(this.#saving);
    this.#saving = 0;
    this.#dirty.clear();
    for (const turn of this.#all.splice(0)) turn.release?.();
  }

  #tell(turn, delta = "") {
    const event = new Event("turn");
    event.turn = turn;
    event.delta = delta;
    this.dispatchEvent(event);
  }

  // --- storage ---

  /** Run `act` when no other page deals with the turn of this key; at once if none does. */
  #whenOurs(key, act) {
    if (!navigator.locks) {
      act();
      return;
    }
    navigator.locks.request(`assistant.turn.${key}`, () => {
      act();
      const turn = this.#all.find((other) => other.key === key);
      if (turn === undefined) return undefined;
      return new Promise((release) => {
        turn.release = release;
      });
    });
  }

  #save(turn) {
    this.#dirty.add(turn);
    this.#saving ||= setTimeout(() => this.#saveDirty(), SAVE_MS);
  }

  #saveDirty() {
    clearTimeout(this.#saving);
    this.#saving = 0;
    for (const turn of this.#dirty) save(`turn.${turn.key}`, turn.kept);
    this.#dirty.clear();
  }
}

/** Length as the daemon counts it: an emoji is one, though JavaScript says two. */
export function codePoints(text) {
  let n = text.length;
  for (let i = 0; i < text.length - 1; i += 1) {
    const pair = text.charCodeAt(i) >> 10 === 54 && text.charCodeAt(i + 1) >> 10 === 55;
    if (pair) n -= 1;
  }
  return n;
}

/** Which of a session's messages is the question of this turn; -1 if none. */
export function ours(turn, messages) {
  return messages.findLastIndex(
    ({ role, content, created_at: at }, number) =>
      role === "user" &&
      content === turn.question &&
      (turn.before === null ? at * 1000 > turn.at - CLOCKS_MS : number >= turn.before),
  );
}

/** What an error means for a person: a key of i18n.js with its values. */
export function explain(error) {
  const known = {
    restarted: "restarted",
    busy: "tooBusy",
    too_large: "tooLarge",
    not_found: "noModel",
    shutting_down: "shuttingDown",
    deadline: "noAnswer",
    unreachable: "noAnswer",
    unauthorized: "unpaired",
  };
  const key = known[error.code];
  return key ? [key, {}] : ["failed", { reason: clean(error.message || error.code) }];
}
