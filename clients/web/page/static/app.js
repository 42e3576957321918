// Where it begins: who is this device, and which of the screens is shown.

import { canRecord, Speaker } from "./audio.js";
import { Connection } from "./connection.js";
import { el } from "./dom.js";
import { language, t } from "./i18n.js";
import { codeOfAddress, PairScreen } from "./pair.js";
import { Phone } from "./phone.js";
import { call, post } from "./requests.js";
import { Announcer } from "./speech.js";
import { forgetAll, keepAgain, load, save } from "./store.js";
import { Turns } from "./turns.js";
import { followUpdates } from "./updates.js";
import { isWatch, Watch } from "./watch.js";

const stage = document.getElementById("stage");
const announcer = new Announcer(document.getElementById("said"));
const notice = document.getElementById("notice");
const TOLD_MS = 6_000;
let connection = null;
let face = null; // what a device that is paired shows

function show(name, node) {
  document.documentElement.dataset.screen = name;
  stage.replaceChildren(node);
}

/** Talk with the assistant, as the device `me` (the answer of /api/me). */
async function talk(me) {
  codeOfAddress(); // of no use to a device that is paired
  keepAgain();
  save("me", me);
  const counts = new Map();
  const line = new Connection();
  connection = line;
  line.addEventListener("state", () => {
    if (line.state === "out" && connection === line) leave(t("revoked"));
  });
  const turns = new Turns(line, (session) => counts.get(session) ?? null);
  const speaker = me.speak && globalThis.AudioContext ? new Speaker(me.languages) : null;
  const hear = me.hear && canRecord();
  const parts = { connection: line, turns, announcer, speaker, counts, hear, me };
  const shown = isWatch() ? new Watch(parts) : new Phone(parts);
  face = shown;
  shown.addEventListener?.("unpair", unpair);
  show(isWatch() ? "watch" : "phone", shown.root);
  shown.start?.(); // at once: whoever types quickly asks in the conversation that is open
  turns.resumeKept((turn) => shown.adopt(turn));
  // the locks are given in order: after this one, what is ours of the kept turns is here
  await navigator.locks?.request("assistant.started", { mode: "shared" }, () => {});
  if (connection !== line) return; // it turned out meanwhile that this device is no longer paired
  line.start();
  performance.mark("ready");
}

/** Ask for a code. */
function pair(why = "") {
  const screen = new PairScreen({ code: codeOfAddress(), why });
  screen.addEventListener("paired", start);
  screen.addEventListener("unpair", unpair);
  show("pair", screen.root);
  screen.focus();
  performance.mark("ready");
}

/** This device is no longer one of the assistant's: nothing of it stays here. */
function leave(why) {
  const line = connection;
  connection = null;
  line?.stop();
  face?.silence();
  face = null;
  // a sheet that is open lies over everything
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.close();
    dialog.remove();
  }
  announcer.forget();
  forgetAll();
  pair(why);
}

async function unpair() {
  try {
    await post("/api/unpair");
  } catch (error) {
    if (error.status !== 401) {
      // the cookie is good still: as long as the computer was not told, this device is paired
      tell(t("noAnswer"));
      return;
    }
  }
  leave(t("unpaired"));
}

async function start() {
  const known = load("me");
  // at once, also without a network; in a moment the gateway may say otherwise
  if (known && location.hash === "") await talk(known);
  try {
    const me = await (await call("/api/me")).json();
    if (connection === null) await talk(me);
    else save("me", me);
  } catch (error) {
    if (error.status === 401) {
      if (connection !== null) leave(t("revoked"));
      else if (nothingShown()) pair();
    } else if (nothingShown()) {
      pair(t("pairOffline"));
    }
  }
}

/** A remark that goes by itself. */
function tell(words) {
  notice.replaceChildren(words);
  setTimeout(() => notice.textContent === words && notice.replaceChildren(), TOLD_MS);
}

function nothingShown() {
  return stage.childElementCount === 0;
}

document.documentElement.lang = language;
document.title = t("app");
followUpdates(notice);
start();
