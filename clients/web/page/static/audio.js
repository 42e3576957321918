// The microphone as a WAV file, and answers read aloud.

import { call, post } from "./requests.js";

const RATE = 16_000;
const LONGEST_S = 60;
const LONGEST_BYTES = 3_900_000; // the gateway takes 4 MB
const SHORTEST_S = 0.3;
const TRANSCRIBING_MS = 60_000;
const SPEAKING_MS = 60_000;
const AHEAD = 2; // sentences that are asked for before their turn
const BUSY_TRIES = 5;
const BUSY_MS = 1_500;

/** Whether this browser lets a page record at all; without https it does not. */
export function canRecord() {
  return Boolean(navigator.mediaDevices?.getUserMedia && globalThis.AudioWorkletNode);
}

/** One recording. */
export class Recording {
  #pieces = [];
  #samples = 0;
  #ended = null;

  /**
   * Open the microphone; resolves when it is heard.
   *
   * `level(x)` is called with 0 to 1 while it records, `full()` when it can hold no more.
   * Throws what getUserMedia throws: NotAllowedError, NotFoundError, …
   */
  async start({ level, full }) {
    this.stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true },
    });
    this.context = new AudioContext({ sampleRate: RATE });
    let source;
    try {
      source = this.context.createMediaStreamSource(this.stream);
    } catch (error) {
      if (error.name !== "NotSupportedError") throw error;
      // a browser that does not convert rates: then the gateway does
      await this.context.close();
      this.context = new AudioContext();
      source = this.context.createMediaStreamSource(this.stream);
    }
    await this.context.audioWorklet.addModule("/static/recorder.js");
    this.node = new AudioWorkletNode(this.context, "recorder", { numberOfOutputs: 0 });
    const longest = Math.min(LONGEST_S * this.context.sampleRate, LONGEST_BYTES / 2);
    const heard = new Promise((resolve) => {
      this.node.port.onmessage = ({ data }) => {
        resolve();
        if (data === null) {
          this.#ended?.();
          return;
        }
        this.#pieces.push(data);
        this.#samples += data.length;
        level(loudness(data));
        if (this.#samples >= longest) full();
      };
    });
    source.connect(this.node);
    await this.context.resume();
    await heard;
  }

  /** Close the microphone. The recording as a WAV file, or null if there is hardly any. */
  async stop() {
    const ended = new Promise((resolve) => {
      this.#ended = resolve;
    });
    this.node.port.postMessage("end");
    await ended;
    const rate = this.context.sampleRate;
    await this.close();
    return this.#samples < SHORTEST_S * rate ? null : wav(this.#pieces, this.#samples, rate);
  }

  /** Close the microphone, so that the device no longer says that it is on. */
  async close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    if (this.context && this.context.state !== "closed") await this.context.close();
  }
}

function loudness(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  const decibels = 10 * Math.log10(sum / (samples.length || 1) + 1e-9);
  return Math.min(1, Math.max(0, (decibels + 55) / 45));
}

/** 16-bit mono. */
function wav(pieces, n, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * n));
  const ascii = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  ascii(0, "RIFF");
  view.setUint32(4, 36 + 2 * n, true);
  ascii(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  ascii(36, "data");
  view.setUint32(40, 2 * n, true);
  let at = 44;
  for (const piece of pieces) {
    for (const sample of piece) {
      view.setInt16(at, Math.max(-1, Math.min(1, sample)) * 32767, true);
      at += 2;
    }
  }
  return new Blob([view], { type: "audio/wav" });
}

/** What was said in a WAV file. Throws Failure. */
export async function transcribe(blob) {
  const headers = { "content-type": "audio/wav" };
  const options = { method: "POST", body: blob, headers, timeout: TRANSCRIBING_MS };
  const response = await call("/api/hear", options);
  return (await response.json()).text.trim();
}

/**
 * Reads sentences aloud, one after the other; the next are fetched while one is heard. Not all at
 * once: the gateway lets few wait, of all its pages, and refuses the others.
 */
export class Speaker extends EventTarget {
  #queue = []; // {text, sound}: a promise of decoded sound, null until it is asked for
  #playing = null;
  #round = 0; // goes up with `stop`: what was fetched for an earlier one is not played

  /** `languages`: those that the gateway can speak. */
  constructor(languages) {
    super();
    this.languages = languages ?? [];
  }

  /** Must be called while a button is pressed: browsers allow no sound without. */
  unlock() {
    this.context ??= new AudioContext();
    this.context.resume();
  }

  get speaking() {
    return this.#playing !== null || this.#queue.length > 0;
  }

  add(sentence) {
    this.#queue.push({ text: sentence, sound: null });
    this.#fetchAhead();
    if (this.#playing === null) this.#next();
    this.dispatchEvent(new Event("change"));
  }

  stop() {
    this.#round += 1;
    this.#queue = [];
    const playing = this.#playing;
    this.#playing = null;
    playing?.stop?.();
    this.dispatchEvent(new Event("change"));
  }

  #fetchAhead() {
    for (const part of this.#queue.slice(0, AHEAD)) part.sound ??= this.#fetch(part.text);
  }

  async #fetch(text, tries = 1) {
    const round = this.#round;
    const language = /[가-힣]/.test(text) ? "ko" : "en";
    const known = this.languages.includes(language) ? { language } : {};
    try {
      const response = await post("/api/speak", { text, ...known }, { timeout: SPEAKING_MS });
      return await this.context.decodeAudioData(await response.arrayBuffer());
    } catch (error) {
      if (error.code === "busy" && tries < BUSY_TRIES) {
        await new Promise((resolve) => setTimeout(resolve, BUSY_MS));
        return round === this.#round ? this.#fetch(text, tries + 1) : null;
      }
      console.warn("not spoken", error); // the answer is there to be read
      return null;
    }
  }

  async #next() {
    const round = this.#round;
    this.#playing = {};
    while (this.#queue.length && round === this.#round) {
      const sound = await this.#queue[0].sound;
      if (round !== this.#round) return;
      this.#queue.shift();
      this.#fetchAhead();
      if (sound !== null) await this.#play(sound);
    }
    if (round !== this.#round) return;
    this.#playing = null;
    this.dispatchEvent(new Event("change"));
  }

  #play(sound) {
    const source = this.context.createBufferSource();
    source.buffer = sound;
    source.connect(this.context.destination);
    this.#playing = source;
    return new Promise((resolve) => {
      source.onended = resolve;
      source.start();
    });
  }
}
