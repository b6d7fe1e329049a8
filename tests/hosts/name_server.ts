/** A name server as a program: `name_server.ts ADDRESS FILE` answers from a file of JSON that may change. */

import { DnsServer } from "../support/dns_server.ts";

const EVERY_MS = 100;
const DNS_PORT = 53;

const [address = "0.0.0.0", file = ""] = Deno.args;
const server = await DnsServer.start(address, DNS_PORT);
for (;;) {
  server.records.clear();
  for (const [name, a] of Object.entries<string[]>(JSON.parse(await Deno.readTextFile(file)))) {
    server.records.set(name, { a });
  }
  await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
}
