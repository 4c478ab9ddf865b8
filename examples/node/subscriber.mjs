// A subscriber in Node: node examples/node/subscriber.mjs ENDPOINT [COUNT [SERVER_KEY_FILE CLIENT_SECRET_FILE]]
import { readFileSync } from "node:fs"
import { Subscriber } from "zeromq"

const [endpoint, count = "0", server, own] = process.argv.slice(2)
const key = (file, kind) => readFileSync(file, "utf8").match(new RegExp(`^\\s*${kind}-key\\s*=\\s*"(.{40})"`, "m"))[1]
const socket = new Subscriber()
if (own) {
  socket.curveServerKey = key(server, "public")
  socket.curvePublicKey = key(own, "public")
  socket.curveSecretKey = key(own, "secret")
}
socket.connect(endpoint)
socket.subscribe("all/")
let events = 0
for await (const [topic, header, lines] of socket) {
  for (const line of lines.toString().trimEnd().split("\n")) {
    const event = JSON.parse(line)
    console.log(event.processName, event.eventName, event.args.map(a => `${a.name}=${a.value}`).join(" "))
  }
  events += JSON.parse(header).count
  if (Number(count) && events >= Number(count)) break
}
socket.close()
