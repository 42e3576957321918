// What is kept on this device: who it is, drafts, and questions whose answers are not complete.
// Never answers that are: those are on the computer.

const PREFIX = "assistant.";
let closed = false; // after `forgetAll`: whatever still ends then leaves nothing behind
const memory = new Map(); // where the browser gives no storage, as in some private windows

function attempt(act, otherwise) {
  try {
    return act();
  } catch (error) {
    console.warn("the browser keeps nothing for this page", error);
    return otherwise();
  }
}

/** The value kept under `key`, or null. */
export function load(key) {
  const name = PREFIX + key;
  const text = attempt(
    () => localStorage.getItem(name),
    () => memory.get(name) ?? null,
  );
  return text === null ? null : JSON.parse(text);
}

/** Keep a value; null forgets it. */
export function save(key, value) {
  const name = PREFIX + key;
  if (value === null) {
    memory.delete(name);
    attempt(
      () => localStorage.removeItem(name),
      () => {},
    );
    return;
  }
  if (closed) return;
  const text = JSON.stringify(value);
  attempt(
    () => localStorage.setItem(name, text),
    () => memory.set(name, text),
  );
}

/** Names of all that is kept and begins with `start`. */
export function keys(start) {
  const kept = attempt(
    () => Object.keys(localStorage),
    () => [...memory.keys()],
  );
  const full = PREFIX + start;
  return kept.filter((name) => name.startsWith(full)).map((name) => name.slice(PREFIX.length));
}

/** Forget everything, as when the device is no longer paired; nothing is kept until `keepAgain`. */
export function forgetAll() {
  closed = true;
  for (const key of keys("")) save(key, null);
}

/** Keep things (again): this device is paired. */
export function keepAgain() {
  closed = false;
}
