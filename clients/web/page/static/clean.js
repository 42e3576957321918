// Takes out of a model's text what is meant for terminals or misleads the eye.

// what may need work at all; most pieces of text have none of it
const SUSPECT = /[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb]/;
const LONGEST_STRING = 1024;

/**
 * Removes escape sequences, control characters, and marks that reorder text; line ends become
 * "\n". A sequence may begin in one piece and end in a later one.
 */
export class Cleaner {
  #state = "text"; // escape, csi, string, string-end
  #length = 0; // of a string so far
  #afterReturn = false;

  push(piece) {
    if (this.#state === "text" && !this.#afterReturn && !SUSPECT.test(piece)) return piece;
    let clean = "";
    for (const char of piece) clean += this.#next(char);
    return clean;
  }

  #next(char) {
    const code = char.codePointAt(0);
    if (this.#state === "escape") {
      if (char === "[") return this.#go("csi");
      if ("]PX^_".includes(char)) return this.#go("string");
      if (code >= 0x20 && code <= 0x2f) return "";
      this.#go("text");
      if (code >= 0x30 && code <= 0x7e) return "";
    } else if (this.#state === "csi") {
      if (code >= 0x20 && code <= 0x3f) return "";
      this.#go("text");
      if (code >= 0x40 && code <= 0x7e) return "";
    } else if (this.#state === "string") {
      if (code === 0x1b) return this.#go("string-end");
      if (code === 0x07 || code === 0x9c) return this.#go("text");
      // a string without an end must not swallow the rest of the answer
      this.#length += 1;
      if (char !== "\n" && this.#length < LONGEST_STRING) return "";
      this.#go("text");
    } else if (this.#state === "string-end") {
      if (char === "\\") return this.#go("text");
      this.#go("escape");
      return this.#next(char);
    }
    return this.#text(char, code);
  }

  #text(char, code) {
    const afterReturn = this.#afterReturn;
    this.#afterReturn = code === 0x0d;
    if (char === "\n") return afterReturn ? "" : char;
    if (code === 0x0d || code === 0x85 || code === 0x2028 || code === 0x2029) return "\n";
    if (code === 0x1b) return this.#go("escape");
    if (code === 0x9b) return this.#go("csi");
    if ([0x90, 0x98, 0x9d, 0x9e, 0x9f].includes(code)) return this.#go("string");
    return char === "\t" || !SUSPECT.test(char) ? char : "";
  }

  #go(state) {
    this.#state = state;
    this.#length = 0;
    return "";
  }
}

/** A whole text, cleaned. */
export function clean(text) {
  return new Cleaner().push(text);
}
