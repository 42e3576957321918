// Runs in the audio thread: hands the microphone's samples to the page, a piece at a time.

const PIECE = 1024;

class Recorder extends AudioWorkletProcessor {
  #piece = new Float32Array(PIECE);
  #filled = 0;

  constructor() {
    super();
    this.port.onmessage = () => {
      this.#hand();
      this.port.postMessage(null); // that was the last
    };
  }

  process([input]) {
    const samples = input[0];
    if (samples === undefined) return true; // the microphone is still opening
    for (const sample of samples) {
      this.#piece[this.#filled] = sample;
      this.#filled += 1;
      if (this.#filled === PIECE) this.#hand();
    }
    return true;
  }

  #hand() {
    const piece = this.#piece.slice(0, this.#filled);
    this.#filled = 0;
    this.port.postMessage(piece, [piece.buffer]);
  }
}

registerProcessor("recorder", Recorder);
