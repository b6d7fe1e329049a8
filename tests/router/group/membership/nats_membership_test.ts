/** Workers found on a NATS server: announced, renewed, withdrawn, lapsed; and a server that goes and comes back. */

import { Kvm } from "@nats-io/kv";
import { connect } from "@nats-io/transport-node";
import assert from "node:assert/strict";
import { readAnnouncement } from "../../../../router/group/membership/announcement.ts";
import { parseNatsPlace } from "../../../../router/host/join_source.ts";
import { NatsAnnouncer } from "../../../../router/group/membership/nats_announcer.ts";
import { NatsBucket } from "../../../../router/group/membership/nats_bucket.ts";
import { NatsMembership } from "../../../../router/group/membership/nats_membership.ts";
import { joinedWorker } from "../../../../router/group/worker_source.ts";
import { PROTOCOL_VERSION } from "../../../../workers/protocol.ts";
import { HAS_NATS, NATS_NOTE, NatsServer } from "../../../support/nats_server.ts";
import { until } from "../../../support/until.ts";

const TIMING = { leaseMs: 1500, answerMs: 1000 };

interface Stage {
  readonly server: NatsServer;
  /** Who is there, as reported last: names, and those refused in brackets. */
  readonly members: string[][];
  readonly troubles: (string | undefined)[];
  announce(name: string, protocol?: number): NatsAnnouncer;
}

async function withNats(play: (stage: Stage) => Promise<void>): Promise<void> {
  await using server = await NatsServer.start();
  const place = parseNatsPlace(server.place("g"));
  const membership = new NatsMembership(place, {
    planOf: ({ name = "", address, refusal }) => ({
      key: refusal === undefined ? name : `(${name})`,
      source: joinedWorker(address, undefined),
      load: { model: { random: "tiny" }, kvTokens: 64 },
    }),
    timing: TIMING,
  });
  const announcers: NatsAnnouncer[] = [];
  const stage: Stage = {
    server,
    members: [],
    troubles: [],
    announce(name, protocol = PROTOCOL_VERSION) {
      const announcement = { address: `${name}:8100`, protocol, version: "0.0.0" };
      const announcer = new NatsAnnouncer({ place, name, announcement, log: () => {}, timing: TIMING });
      announcers.push(announcer);
      return announcer;
    },
  };
  const over = new AbortController();
  const watching = membership.watch({
    onMembers: (plans) => stage.members.push(plans.map(({ key }) => key)),
    onTrouble: (reason) => stage.troubles.push(reason),
  }, over.signal);
  try {
    await play(stage);
  } finally {
    over.abort();
    await watching;
    for (const announcer of announcers) await announcer.close();
  }
}

const natsTest = (name: string, play: (stage: Stage) => Promise<void>) =>
  Deno.test({ name: `${name}${NATS_NOTE}`, ignore: !HAS_NATS, fn: () => withNats(play) });

natsTest("workers are found when they announce themselves, and gone when they withdraw", async (stage) => {
  const { members } = stage;
  await until(() => members.length === 1);
  const first = stage.announce("a");
  await until(() => members.at(-1)?.join() === "a");
  stage.announce("b", PROTOCOL_VERSION - 1);
  await until(() => members.at(-1)?.join() === "a,(b)");
  first.loaded({ adapter: "fake", digest: "d", kvTokens: 64 });
  await first.close();
  await until(() => members.at(-1)?.join() === "(b)");
});

natsTest("a worker that dies is gone when its lease has lapsed; one that lives is not", async (stage) => {
  const { members, server } = stage;
  stage.announce("lives");
  const startedMs = performance.now();
  const dead = new NatsBucket(parseNatsPlace(server.place("g")), TIMING);
  await dead.put("dead", JSON.stringify({ address: "dead:1", protocol: PROTOCOL_VERSION, version: "" }));
  await dead.close();
  await until(() => members.at(-1)?.join() === "dead,lives");
  await until(() => members.at(-1)?.join() === "lives", 20_000);
  assert.ok(performance.now() - startedMs > TIMING.leaseMs / 2);
});

natsTest(
  "while the server is away what was reported stands; back, even without its memory, all is found again",
  async (stage) => {
    const { members, troubles, server } = stage;
    stage.announce("a");
    await until(() => members.at(-1)?.join() === "a");
    const before = members.length;
    await server.stop();
    await until(() => troubles.at(-1) !== undefined);
    assert.match(troubles.at(-1) ?? "", /^Cannot (watch|look for) workers?: NATS at nats:\/\/127\.0\.0\.1:\d+: /);
    await server.restart({ isEmpty: true });
    await until(() => troubles.at(-1) === undefined, 15_000);
    await until(() => members.at(-1)?.join() === "a", 15_000);
    assert.ok(members.slice(before).every((names) => names.length <= 1));
  },
);

natsTest("a bucket that is deleted under a watch is watched again once workers have made it", async (stage) => {
  const { members, server } = stage;
  stage.announce("a");
  await until(() => members.at(-1)?.join() === "a");
  const connection = await connect({ servers: `127.0.0.1:${server.port}` });
  try {
    await (await new Kvm(connection).open("tidepool-g")).destroy();
  } finally {
    await connection.close();
  }
  stage.announce("b");
  await until(() => members.at(-1)?.join() === "a,b", 20_000);
});

Deno.test("readAnnouncement() finds no worker in what is no announcement, and says which version is spoken", () => {
  for (const text of ["", "{", "null", "3", "[]", '{"address":7}', '{"address":"a"}', '{"address":"a:99999"}']) {
    assert.equal(readAnnouncement(text), undefined, text);
  }
  assert.deepEqual(readAnnouncement('{"address":"a:1","protocol":6,"version":"1"}', 6), {
    address: { hostname: "a", port: 1 },
  });
  assert.deepEqual(
    readAnnouncement('{"address":"a:1","protocol":5,"version":"0.9"}', 6)?.refusal,
    "it speaks protocol version 5 (tidepool 0.9), this router 6",
  );
});
