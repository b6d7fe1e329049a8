/** An HTTP server alone in a process, for tests that take its file descriptors away; prints its port. */

import { connectionLimit, descriptorLimit } from "../../router/server/connection_limit.ts";
import { HttpServer } from "../../router/server/http_server.ts";

const server = await HttpServer.listen({
  host: "127.0.0.1",
  port: 0,
  maxConnections: connectionLimit(undefined, descriptorLimit()),
  tls: undefined,
});
server.serve({
  answer: () => Promise.resolve(Response.json({ status: "ok" })),
  onRefused: () => {},
  onError: () => {},
});
Deno.stdout.writeSync(new TextEncoder().encode(`${server.address.port}\n`));
