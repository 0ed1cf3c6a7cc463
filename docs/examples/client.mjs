// Draw one picture through GenServe's ZeroMQ door: node client.mjs "a red circle" circle.png [ENDPOINT]
import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { decode, encode } from "@msgpack/msgpack";
import { Dealer } from "zeromq";

const [prompt, path, endpoint = "tcp://127.0.0.1:12412"] = process.argv.slice(2);
const socket = new Dealer({ linger: 0 });
socket.connect(endpoint);

let ask = ["SUBMIT", { rid: "1", key: randomUUID(), job: { prompt } }];
const send = () => socket.send(["GS1", ask[0], encode(ask[1])]);
await send();
setInterval(send, 5000); // SUBMIT until it is accepted, then WATCH, every 5 s

for await (const [, name, header, ...payload] of socket) {
  const answer = decode(header);
  switch (name.toString()) {
    case "ACCEPTED":
      ask = ["WATCH", { rid: "1", job_id: answer.job_id }];
      break;
    case "PROGRESS":
      console.log(answer.state, answer.step, "of", answer.steps);
      break;
    case "RESULT":
      await writeFile(path, Buffer.concat(payload));
      console.log(path, "seed", answer.job.seed);
      process.exit();
    case "JOB":
      break;
    default: // REJECTED, FAILED, CANCELLED, ERROR
      console.error(name.toString(), answer);
      process.exit(1);
  }
}
