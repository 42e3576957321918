// Answers for the ear: sentence by sentence, without Markdown's signs.

const END = /(?:[.!?…。！？]["'”’)\]*_]*(?=\s)|\n)\s*/g;
const NUMBERED = /(?:^|\s)\d{1,3}\.\s*$/; // "1." of a list ends no sentence

/** Collects a streamed text and gives it back in sentences, each of them once. */
export class Sentences {
  #rest = "";

  push(text) {
    this.#rest += text;
    const found = [];
    let start = 0;
    for (const match of this.#rest.matchAll(END)) {
      const end = match.index + match[0].length;
      const sentence = this.#rest.slice(start, end);
      if (NUMBERED.test(sentence) && !match[0].startsWith("\n")) continue;
      start = end;
      found.push(plain(sentence));
    }
    this.#rest = this.#rest.slice(start);
    return found.filter(Boolean);
  }

  flush() {
    const last = plain(this.#rest);
    this.#rest = "";
    return last ? [last] : [];
  }
}

/** Text without the signs of Markdown. */
export function plain(text) {
  return text
    .replace(/!?\[([^\]\n]{0,500})\]\([^)\s]{0,2000}\)/g, "$1")
    .replace(/[*_`#|~]+|^[ \t]*[>•-]\s+/gm, "")
    .replace(/\s+/g, " ")
    .trim();
}

/**
 * A live region for screen readers. The answer itself is not one: it would be read anew with every
 * token. Here each sentence is added once, when it is complete.
 */
export class Announcer {
  static LONGEST = 12;
  #sentences = new Sentences();

  constructor(region) {
    this.region = region;
  }

  push(text) {
    this.#sentences.push(text).forEach((sentence) => this.say(sentence));
  }

  flush() {
    this.#sentences.flush().forEach((sentence) => this.say(sentence));
  }

  /** Nothing of what was said stays. */
  forget() {
    this.#sentences = new Sentences();
    this.region.replaceChildren();
  }

  say(text) {
    const line = document.createElement("p");
    line.textContent = text;
    this.region.append(line);
    while (this.region.childElementCount > Announcer.LONGEST) this.region.firstChild.remove();
  }
}
