// A small Markdown for answers, written for streams: what is complete is left alone, and only the
// last block is drawn again when text arrives. Nodes are built one by one, HTML is never parsed.

import { copyButton, el } from "./dom.js";
import { t } from "./i18n.js";
import { inline } from "./inline.js";

const DEEPEST = 8;
const FENCE = /^( {0,3})(`{3,}|~{3,})[ \t]*([^`\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const RULE = /^ {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}>[ ]?/;
const ITEM = /^([ \t]*)([-*+•]|\d{1,9}[.)])(?:[ \t]+(.*)|)$/;
const DELIMITER = /^[ \t]*(?:\|[ \t]*)?:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*(?:\|[ \t]*)?$/;

/** Draws text into `root` as it arrives. */
export class Markdown {
  #tail = ""; // text of the last block, which may still change
  #node = null;
  #block = null;
  #levels = [];
  #tailLevels = [];

  constructor(root) {
    this.root = root;
  }

  /** More text; it must be clean (clean.js). */
  append(text) {
    this.#tail += text;
    this.#draw(true);
  }

  /** There is no more. */
  finish() {
    this.#draw(false);
  }

  #draw(open) {
    const lines = this.#tail.split("\n");
    const blocks = parse(lines, 0);
    if (blocks.length === 0) return;
    blocks.forEach((block, number) => {
      const last = number === blocks.length - 1;
      const first = number === 0;
      if (first && this.#grow(block, last)) return;
      if (first) this.#levels = [...this.#tailLevels];
      if (last) this.#tailLevels = [...this.#levels];
      const node = render(block, open && last, this.#levels);
      if (first && this.#node !== null) this.#node.replaceWith(node);
      else this.root.append(node);
      this.#node = node;
      this.#block = block;
    });
    const start = blocks.at(-1).line;
    if (start > 0) this.#tail = lines.slice(start).join("\n");
  }

  /** Add to a code block in place: its scroll position and a selection in it are kept. */
  #grow(block, last) {
    if (!last || block.kind !== "code" || this.#block?.kind !== "code") return false;
    if (block.language !== this.#block.language || !block.text.startsWith(this.#block.text)) {
      return false;
    }
    this.#node.querySelector("code").append(block.text.slice(this.#block.text.length));
    this.#block = block;
    return true;
  }
}

// --- lines to blocks -------------------------------------------------------------------------

/** Blocks of these lines; each knows the line it begins at. */
function parse(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const read = readerOf(lines, at, depth);
    const [block, next] = read(lines, at, depth);
    blocks.push({ ...block, line: at });
    at = next;
  }
  return blocks;
}

function readerOf(lines, at, depth) {
  const line = lines[at];
  if (FENCE.test(line)) return readCode;
  if (HEADING.test(line)) return readHeading;
  if (RULE.test(line)) return readRule;
  if (depth < DEEPEST && QUOTE.test(line)) return readQuote;
  if (depth < DEEPEST && ITEM.test(line)) return readList;
  if (isTable(lines, at)) return readTable;
  return readParagraph;
}

function readCode(lines, at) {
  const [, indent, fence, language] = FENCE.exec(lines[at]);
  const text = [];
  let next = at + 1;
  for (; next < lines.length; next += 1) {
    const closing = FENCE.exec(lines[next]);
    if (closing && !closing[3] && closing[2].startsWith(fence)) {
      return [{ kind: "code", language: language.trim(), text: text.join("\n") }, next + 1];
    }
    text.push(stripIndent(lines[next], indent.length));
  }
  return [{ kind: "code", language: language.trim(), text: text.join("\n") }, next];
}

function readHeading(lines, at) {
  const [, marks, text] = HEADING.exec(lines[at]);
  return [{ kind: "heading", level: marks.length, text: (text ?? "").trim() }, at + 1];
}

function readRule(lines, at) {
  return [{ kind: "rule" }, at + 1];
}

function readQuote(lines, at, depth) {
  const inner = [];
  let next = at;
  for (; next < lines.length; next += 1) {
    if (QUOTE.test(lines[next])) inner.push(lines[next].replace(QUOTE, ""));
    else if (lines[next].trim() && !interrupts(lines, next)) inner.push(lines[next]);
    else break;
  }
  return [{ kind: "quote", blocks: parse(inner, depth + 1) }, next];
}

function readList(lines, at, depth) {
  const [, indent, marker] = ITEM.exec(lines[at]);
  const base = width(indent);
  const ordered = /\d/.test(marker);
  const items = [];
  let next = at;
  let blank = false;
  for (; next < lines.length; next += 1) {
    const line = lines[next];
    const item = ITEM.exec(line);
    if (!line.trim()) {
      blank = true;
      items.at(-1).push("");
      continue;
    }
    // models indent what belongs to an item by two, whatever the width of its number
    const inside = width(/^[ \t]*/.exec(line)[0]) >= base + 2;
    if (item && !inside && !RULE.test(line)) {
      if (/\d/.test(item[2]) !== ordered) break;
      items.push([item[3] ?? ""]);
    } else if (inside) {
      items.at(-1).push(stripIndent(line, base + (ordered ? marker.length + 1 : 2)));
    } else if (!blank && !interrupts(lines, next)) {
      items.at(-1).push(line);
    } else {
      break;
    }
    blank = false;
  }
  const blocks = items.map((item) => parse(item, depth + 1));
  return [{ kind: "list", ordered, start: parseInt(marker, 10), items: blocks }, next];
}

function isTable(lines, at) {
  const [head, rule] = [lines[at], lines[at + 1]];
  return Boolean(head.includes("|") && rule?.includes("|") && DELIMITER.test(rule));
}

function readTable(lines, at) {
  const align = cells(lines[at + 1]).map((cell) =>
    cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : "left",
  );
  const rows = [cells(lines[at])];
  let next = at + 2;
  while (next < lines.length && lines[next].includes("|")) {
    rows.push(cells(lines[next]));
    next += 1;
  }
  return [{ kind: "table", align, rows }, next];
}

function readParagraph(lines, at) {
  let next = at + 1;
  while (next < lines.length && lines[next].trim() && !interrupts(lines, next)) next += 1;
  const text = lines.slice(at, next).map((line) => line.trimStart());
  return [{ kind: "paragraph", text: text.join("\n").trimEnd() }, next];
}

/** Whether a line ends the paragraph above it. */
function interrupts(lines, at) {
  const line = lines[at];
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line)) return true;
  const item = ITEM.exec(line);
  // a number at the start of a line of prose is a list only from 1 on
  if (item && item[3] && (!/\d/.test(item[2]) || parseInt(item[2], 10) === 1)) return true;
  return isTable(lines, at);
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.replaceAll("\\|", "|").trim());
}

function width(indent) {
  return indent.replaceAll("\t", "    ").length;
}

function stripIndent(line, n) {
  let end = 0;
  while (end < n && line[end] === " ") end += 1;
  return line[end] === "\t" && end < n ? line.slice(end + 1) : line.slice(end);
}

// --- blocks to nodes -------------------------------------------------------------------------

/** The node of a block. `levels`: of the headings above, so that none is left out between. */
function render(block, open, levels) {
  switch (block.kind) {
    case "code":
      return codeBlock(block);
    case "heading":
      return heading(block, open, levels);
    case "rule":
      return el("hr");
    case "quote":
      return withBlocks(el("blockquote"), block.blocks, open, levels);
    case "list":
      return list(block, open, levels);
    case "table":
      return table(block, open);
    default:
      return withText(el("p"), block.text, open);
  }
}

function withText(node, text, open) {
  inline(node, text, open);
  return node;
}

function withBlocks(node, blocks, open, levels) {
  blocks.forEach((block, number) => {
    node.append(render(block, open && number === blocks.length - 1, levels));
  });
  return node;
}

function codeBlock({ language, text }) {
  const code = el("code", {}, text);
  const name = language.split(/\s/)[0].slice(0, 30);
  return el(
    "div",
    { class: "code" },
    el("div", { class: "code-head" }, name, copyButton(() => code.textContent, t("copyCode"))),
    // it can be scrolled, so the keyboard must be able to get there
    el("pre", { tabindex: "0" }, code),
  );
}

function heading({ level, text }, open, levels) {
  while (levels.length && levels.at(-1) >= level) levels.pop();
  levels.push(level);
  // the page has a first level, each message a second
  const tag = `h${Math.min(6, 2 + levels.length)}`;
  return withText(el(tag, { class: `head${Math.min(level, 4)}` }), text, open);
}

function list({ ordered, start, items }, open, levels) {
  const node = ordered ? el("ol", { start: start === 1 ? null : start }) : el("ul");
  items.forEach((blocks, number) => {
    const more = open && number === items.length - 1;
    const item = el("li");
    const [first, ...rest] = blocks;
    if (first?.kind === "paragraph") {
      const task = /^\[([ xX])\] /.exec(first.text);
      if (task) item.append(task[1] === " " ? "☐ " : "☑ ");
      withText(item, task ? first.text.slice(4) : first.text, more && !rest.length);
      withBlocks(item, rest, more, levels);
    } else {
      withBlocks(item, blocks, more, levels);
    }
    node.append(item);
  });
  return node;
}

function table({ align, rows }, open) {
  const [head, ...body] = rows;
  const row = (texts, tag) =>
    el(
      "tr",
      {},
      ...align.map((side, column) =>
        withText(el(tag, { class: side }), texts[column] ?? "", open),
      ),
    );
  return el(
    "div",
    { class: "table", tabindex: "0" },
    el(
      "table",
      {},
      el("thead", {}, row(head, "th")),
      el("tbody", {}, ...body.map((texts) => row(texts, "td"))),
    ),
  );
}
