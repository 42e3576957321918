// Markdown inside of a line: emphasis, code, links. Builds nodes; text stays text.

import { el } from "./dom.js";

const DEEPEST = 6;
const SPECIAL = /[\\`*_~[!<\nh]/g;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const LINK =
  /!?\[((?:[^[\]\\\n]|\\.){0,500})\]\( ?<?((?:[^\s<>()]|\([^\s<>()]{0,500}\)){1,2000})>?(?: ["'][^"'\n]{0,300}["'])? ?\)/y;
const ANGLED = /<(https?:\/\/[^\s<>]{1,2000})>/y;
const BARE = /https?:\/\/[!#-;=?-[\]_a-z~]{1,2000}/y;
const SPACE = /\s/;
const WORD = /[\p{L}\p{N}]/u;

/**
 * Append the nodes of `text` to `parent`. `open`: more text is to come, so bold and code that are
 * not closed yet are shown as such and not as stars.
 */
export function inline(parent, text, open = false, depth = 0) {
  new Inline(text, open, depth).into(parent);
}

class Inline {
  constructor(text, open, depth) {
    this.text = text;
    this.open = open;
    this.depth = depth;
    this.unclosed = new Set(); // delimiters of which no end is left, so that none is sought again
  }

  into(parent) {
    const { text } = this;
    let at = 0; // where the text that is not yet appended begins
    const flush = (end) => {
      if (end > at) parent.append(text.slice(at, end));
    };
    SPECIAL.lastIndex = 0;
    for (let i = this.#seek(0); i < text.length; i = this.#seek(i)) {
      const found = this.#at(i);
      if (found === null) {
        i += 1;
        continue;
      }
      flush(found.from ?? i);
      if (found.node !== null) parent.append(found.node);
      i = at = found.end;
    }
    flush(text.length);
  }

  #seek(from) {
    SPECIAL.lastIndex = from;
    return SPECIAL.exec(this.text)?.index ?? this.text.length;
  }

  /** What begins at `i`: its node and where it ends; null if that is plain text. */
  #at(i) {
    const { text } = this;
    switch (text[i]) {
      case "\\":
        return this.#escape(i);
      case "\n":
        return this.#lineBreak(i);
      case "`":
        return this.#code(i);
      case "*":
      case "_":
      case "~":
        return this.depth < DEEPEST ? this.#emphasis(i) : null;
      case "!":
      case "[":
        return this.depth < DEEPEST ? this.#link(i) : null;
      case "<":
        ANGLED.lastIndex = i;
        return this.#address(ANGLED.exec(text));
      default:
        return this.#bare(i);
    }
  }

  #escape(i) {
    const next = this.text[i + 1];
    return next !== undefined && PUNCTUATION.test(next) ? { node: next, end: i + 2 } : null;
  }

  #lineBreak(i) {
    // two blanks in front are Markdown's old way to break a line, and show nothing
    let from = i;
    while (from > 0 && this.text[from - 1] === " ") from -= 1;
    return { node: el("br"), from, end: i + 1 };
  }

  #code(i) {
    const { text } = this;
    const n = runLength(text, i);
    const ticks = "`".repeat(n);
    if (!this.unclosed.has(ticks)) {
      for (let end = text.indexOf(ticks, i + n); end >= 0; ) {
        const length = runLength(text, end);
        if (length === n) return { node: codeSpan(text.slice(i + n, end)), end: end + n };
        end = text.indexOf(ticks, end + length);
      }
      this.unclosed.add(ticks);
      if (this.open && i + n < text.length) {
        return { node: codeSpan(text.slice(i + n)), end: text.length };
      }
    }
    return { node: ticks, end: i + n };
  }

  #emphasis(i) {
    const { text } = this;
    const char = text[i];
    const n = runLength(text, i);
    const before = text[i - 1] ?? " ";
    const after = text[i + n] ?? " ";
    const run = { node: text.slice(i, i + n), end: i + n };
    if (SPACE.test(after) || n > 3 || (char === "~" && n !== 2)) return run;
    if (char === "_" && WORD.test(before)) return run; // snake_case
    const delimiter = text.slice(i, i + n);
    let end = this.#closing(delimiter, i + n);
    if (end < 0) {
      if (!(this.open && n === 2 && char !== "_")) return run;
      end = text.length;
    }
    const node = el(char === "~" ? "del" : n === 1 ? "em" : "strong");
    const inner = n === 3 ? node.appendChild(el("em")) : node;
    inline(inner, text.slice(i + n, end), this.open && end === text.length, this.depth + 1);
    return { node, end: Math.min(text.length, end + n) };
  }

  /** Where the run that ends `delimiter` begins, or -1. */
  #closing(delimiter, from) {
    const { text } = this;
    if (this.unclosed.has(delimiter)) return -1;
    let at = from;
    while ((at = text.indexOf(delimiter, at)) >= 0) {
      const length = runLength(text, at);
      const before = text[at - 1];
      const after = text[at + length] ?? " ";
      // of a longer run the last characters close, as in **bold *and italic***
      const fits = length === delimiter.length || length === 3;
      const inWord = delimiter[0] === "_" && WORD.test(after);
      if (at > from && fits && !SPACE.test(before) && before !== "\\" && !inWord) {
        return at + length - delimiter.length;
      }
      at += length;
    }
    this.unclosed.add(delimiter);
    return -1;
  }

  #link(i) {
    LINK.lastIndex = i;
    const match = LINK.exec(this.text);
    if (match === null) return null;
    // a picture would be fetched from somebody else's server: its description is a link instead
    const node = anchor(match[2]);
    if (node === null) return { node: match[0], end: i + match[0].length };
    inline(node, match[1] || match[2], false, DEEPEST);
    return { node, end: i + match[0].length };
  }

  #address(match) {
    const node = match && anchor(match[1]);
    if (!node) return null;
    node.append(match[1]);
    return { node, end: match.index + match[0].length };
  }

  #bare(i) {
    if (i > 0 && WORD.test(this.text[i - 1])) return null;
    BARE.lastIndex = i;
    const match = BARE.exec(this.text);
    if (match === null) return null;
    // what ends a sentence is not of the address, nor a bracket that was opened before it
    let url = match[0].replace(/[.,;:!?*_~'\]]+$/, "");
    if (url.endsWith(")") && !url.includes("(")) url = url.slice(0, -1);
    const node = anchor(url);
    if (node === null) return null;
    node.append(url);
    return { node, end: i + url.length };
  }
}

function runLength(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

function codeSpan(text) {
  const padded = text.startsWith(" ") && text.endsWith(" ") && text.trim();
  return el("code", {}, padded ? text.slice(1, -1) : text);
}

/** A link to an http(s) address; null for anything else, as javascript: and data: are. */
function anchor(address) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return null; // not an absolute address: not a link
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return null;
  return el("a", {
    href: url.href,
    rel: "noopener noreferrer nofollow",
    target: "_blank",
    title: url.href,
  });
}
