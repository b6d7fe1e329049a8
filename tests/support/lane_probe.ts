/** Opens a lane between two ends in this process, and prints how that went: for processes with few permissions. */

import { openLanes } from "../../workers/open_lanes.ts";
import { tcpPair } from "./tcp_pair.ts";

const [HOST, MS] = ["127.0.0.1", 30_000];
const members = [{ hostname: HOST, port: 0 }, { hostname: HOST, port: 0 }];
const outcome = ["open", "open"];
const conns = await tcpPair();
const sides = await Promise.all(
  conns.map((conn, index) =>
    openLanes(new Map([[1 - index, conn]]), { epoch: 1, index, members }, {
      address: { hostname: HOST, port: 0 },
      secret: undefined,
      identity: undefined,
      trust: undefined,
      signal: new AbortController().signal,
      deadlineMs: MS,
      onMissing: (_, reason) => outcome[index] = reason,
    })
  ),
);
for (const lanes of sides) for (const lane of lanes.values()) lane.close();
for (const conn of conns) conn.close();
await Deno.stdout.write(new TextEncoder().encode(outcome.join("; ")));
