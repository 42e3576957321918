// Asks a running daemon one question over the raw protocol (docs/protocol.md), nothing of this
// project in between:   ASSISTANTD_ENDPOINT=ipc:///path/to/socket node ask.mjs "question"
// Prints the answer as it is written. Exit codes: 0 done, 1 the daemon answered with an error
// or something that is no reply, 2 wrong usage, 3 the daemon was silent too long.
import { Dealer } from "zeromq"

const PROTOCOL = "assistant/1"
const SILENCE_MS = 120_000 // the first request of a daemon may wait for its model to load

const endpoint = process.env.ASSISTANTD_ENDPOINT
const question = process.argv[2] ?? "What is the capital of France?"
if (!endpoint) {
  console.error("set ASSISTANTD_ENDPOINT to where the daemon listens, as ipc:///path/to/socket")
  process.exit(2)
}

const socket = new Dealer({ linger: 500, receiveTimeout: SILENCE_MS, receiveHighWaterMark: 0 })
socket.connect(endpoint)

const requestId = "node-1"
const request = { type: "chat", text: question, temperature: 0, max_tokens: 48 }
await socket.send([PROTOCOL, requestId, JSON.stringify(request)])

process.exitCode = await readAnswer()
socket.close()

// Reads replies up to the last one; returns the exit code.
async function readAnswer() {
  let streamed = ""
  for (;;) {
    let frames
    try {
      frames = await socket.receive()
    } catch (error) {
      if (error.code !== "EAGAIN") throw error
      console.error(`no word from ${endpoint} for ${SILENCE_MS / 1000} s; is the daemon running?`)
      return 3
    }
    const [protocol, id, body] = frames.map((frame) => frame.toString("utf8"))
    if (frames.length !== 3 || protocol !== PROTOCOL || id !== requestId) {
      console.error(`not a reply to this request: ${frames.length} frames, ${protocol}, ${id}`)
      return 1
    }
    const reply = JSON.parse(body)
    if (reply.error) {
      console.error(`${reply.error.code}: ${reply.error.message}`)
      return 1
    }
    if (reply.type === "delta") {
      streamed += reply.text
      process.stdout.write(reply.text)
    } else if (reply.type === "progress") {
      console.error(`${reply.stage}: ${reply.message}`)
    } else if (reply.done === true) {
      process.stdout.write("\n")
      if (reply.text !== streamed) {
        console.error("the pieces do not add up to the text of the last message")
        return 1
      }
      console.error(`${reply.finish_reason}, ${reply.timings.completion_tokens} tokens`)
      return 0
    }
  }
}
