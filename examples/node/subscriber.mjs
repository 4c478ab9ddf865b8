// A subscriber in Node: node examples/node/subscriber.mjs ENDPOINT [COUNT]
import { Subscriber } from "zeromq"

const [endpoint, count = "0"] = process.argv.slice(2)
const socket = new Subscriber()
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
