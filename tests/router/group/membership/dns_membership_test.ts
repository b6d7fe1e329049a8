/** Workers found by name: every answer of a name server, and what becomes of none. */

import assert from "node:assert/strict";
import { DnsMembership } from "../../../../router/group/membership/dns_membership.ts";
import { type JoinSource, parseJoin } from "../../../../router/host/join_source.ts";
import { joinedWorker } from "../../../../router/group/worker_source.ts";
import { DnsServer } from "../../../support/dns_server.ts";
import { until } from "../../../support/until.ts";

interface Reported {
  readonly members: string[][];
  readonly troubles: (string | undefined)[];
}

async function following(
  source: JoinSource,
  server: DnsServer,
  play: (reported: Reported) => Promise<void>,
  deadlineMs = 30_000,
): Promise<void> {
  if (source.kind !== "dns" && source.kind !== "srv") assert.fail(`${source.kind} is no name`);
  const membership = new DnsMembership(source, {
    planOf: ({ address: { hostname, port } }) => ({
      key: `${hostname}:${port}`,
      source: joinedWorker({ hostname, port }, undefined),
      load: { model: { random: "tiny" }, kvTokens: 64 },
    }),
    everyMs: 20,
    deadlineMs,
    nameServer: server.nameServer,
  });
  const reported: Reported = { members: [], troubles: [] };
  const over = new AbortController();
  const watching = membership.watch({
    onMembers: (plans) => reported.members.push(plans.map(({ key }) => key)),
    onTrouble: (reason) => reported.troubles.push(reason),
  }, over.signal);
  try {
    await play(reported);
  } finally {
    over.abort();
    await watching;
  }
}

Deno.test("DnsMembership reports all addresses of a name, in order, whenever they change", async () => {
  await using server = await DnsServer.start();
  await following(parseJoin(["dns:workers.test:8100"]), server, async ({ members, troubles }) => {
    await until(() => members.length === 1);
    server.records.set("workers.test", { a: ["10.0.0.10", "10.0.0.9"] });
    await until(() => members.length === 2);
    server.records.set("workers.test", { a: ["10.0.0.9", "10.0.0.10"] });
    await new Promise((resolve) => setTimeout(resolve, 100));
    server.records.set("workers.test", { a: ["10.0.0.9"] });
    await until(() => members.length === 3);
    assert.deepEqual(members, [[], ["10.0.0.9:8100", "10.0.0.10:8100"], ["10.0.0.9:8100"]]);
    assert.ok(troubles.every((trouble) => trouble === undefined), `${troubles}`);
  });
});

Deno.test("DnsMembership reports targets and ports of SRV records", async () => {
  await using server = await DnsServer.start();
  server.records.set("_worker._tcp.test", { srv: [{ target: "b.test", port: 2 }, { target: "a.test", port: 1 }] });
  await following(parseJoin(["srv:_worker._tcp.test"]), server, async ({ members }) => {
    await until(() => members.length === 1);
    assert.deepEqual(members, [["a.test:1", "b.test:2"]]);
  });
});

Deno.test("DnsMembership says when no server answers, and forgets no worker for it", async () => {
  await using server = await DnsServer.start();
  server.records.set("workers.test", { a: ["10.0.0.9"] });
  await following(parseJoin(["dns:workers.test:8100"]), server, async ({ members, troubles }) => {
    await until(() => members.length === 1);
    server.isSilent = true;
    await until(() => troubles.at(-1) !== undefined);
    assert.match(troubles.at(-1) ?? "", /^Cannot resolve dns:workers.test:8100: /);
    server.isSilent = false;
    await until(() => troubles.at(-1) === undefined);
    assert.equal(members.length, 1);
  }, 1000);
});

for (
  const [text, expected] of [
    ["dns:workers.test:8100", { kind: "dns", hostname: "workers.test", port: 8100 }],
    ["dns:8100", { kind: "static", addresses: [{ hostname: "dns", port: 8100 }] }],
    ["nats://n/g", { kind: "nats", url: "nats://n:4222", server: "nats://n:4222", group: "g" }],
    ["tls://u:p@n:1/g-1", { kind: "nats", url: "tls://u:p@n:1", server: "tls://n:1", group: "g-1" }],
  ] as const
) {
  Deno.test(`parseJoin() reads ${text}`, () => assert.deepEqual(parseJoin([text]), expected));
}

Deno.test("parseJoin() refuses what it cannot read, and never prints a password", () => {
  assert.throws(() => parseJoin(["dns:workers.test"]), { message: /must be host:port, given "workers.test"/ });
  assert.throws(() => parseJoin(["srv:a:1"]), { message: 'Cannot join workers: must be srv:NAME, given "srv:a:1"' });
  assert.throws(() => parseJoin(["srv:a", "b:1"]), {
    message: "Cannot join workers: srv: stands alone, given 1 further items",
  });
  assert.throws(() => parseJoin(["nats://user:hidden@n/"]), { message: /GROUP.*given "nats:\/\/…@n\/"$/ });
});
