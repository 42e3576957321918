// The gateway's plain HTTP part.

/** A request that failed: `code` as in docs/protocol.md, or "unreachable" if nobody answered. */
export class Failure extends Error {
  constructor(code, message, status = 0) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/**
 * Fetch from the gateway.
 *
 * Throws Failure: the gateway refused, could not be reached, or took longer than `timeout` ms.
 */
export async function call(path, { method = "GET", body, headers, timeout = 10_000 } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      body,
      headers,
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
      signal: AbortSignal.timeout?.(timeout), // a watch may have an old browser
    });
  } catch (error) {
    throw new Failure("unreachable", String(error.message));
  }
  if (response.ok) return response;
  throw new Failure(...(await problemOf(response)), response.status);
}

async function problemOf(response) {
  const text = await response.text();
  try {
    const { code, message } = JSON.parse(text).error;
    return [code, message];
  } catch {
    // a proxy in between answers with a page of its own
    return ["internal", `${response.status} ${response.statusText}`];
  }
}

/** POST a JSON object. */
export function post(path, value = {}, options = {}) {
  const headers = { "content-type": "application/json" };
  return call(path, { method: "POST", body: JSON.stringify(value), headers, ...options });
}

/** A request id: unique per device, not guessable. */
export function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // on a page that is not secure
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
