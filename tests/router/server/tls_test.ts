/** HTTPS: a certificate and its key, what is said when they are no such thing, and handshakes that never end. */

import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { fileURLToPath } from "node:url";

import { HttpServer } from "../../../router/server/http_server.ts";
import { readTlsFiles } from "../../../router/host/tls_files.ts";
import { RawHttp } from "../../support/raw_http.ts";

const fixture = (name: string) => fileURLToPath(new URL(`../../fixtures/tls/${name}.pem`, import.meta.url));
const PATHS = { cert: fixture("cert"), key: fixture("key") };

Deno.test("HTTPS answers those who trust its certificate; clear text and silent handshakes are cut", async () => {
  const tls = await readTlsFiles(PATHS);
  const server = await HttpServer.listen({ host: "127.0.0.1", port: 0, maxConnections: 10, headMs: 2000, tls });
  const addresses: string[] = [];
  const errors: unknown[] = [];
  server.serve({
    answer: (request, { address }) => {
      addresses.push(address);
      return Promise.resolve(Response.json({ url: request.url }));
    },
    onRefused: () => {},
    onError: (error) => void errors.push(error),
  });
  const { port } = server.address;
  using client = Deno.createHttpClient({ caCerts: [tls.cert] });
  try {
    const response = await fetch(`https://localhost:${port}/v1/models`, { client });
    assert.deepEqual(await response.json(), { url: `https://localhost:${port}/v1/models` });
    assert.deepEqual(addresses, ["127.0.0.1"]);
    assert.equal(server.connections, 1, "a TLS connection counts once");
    using silent = await RawHttp.open(port);
    using plain = await RawHttp.open(port);
    await plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert.doesNotMatch(await plain.ended(15_000), /HTTP/);
    assert.equal(await silent.ended(15_000), "");
    assert.equal(
      (await (await fetch(`https://localhost:${port}/`, { client })).json()).url,
      `https://localhost:${port}/`,
    );
  } finally {
    await server.close();
  }
  assert.deepEqual(errors, []);
});

Deno.test("readTlsFiles() refuses a key that is not the certificate's, and what only looks like PEM", async () => {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const path = await Deno.makeTempFile({ suffix: ".pem" });
  try {
    await Deno.writeTextFile(path, privateKey.export({ type: "pkcs8", format: "pem" }).toString());
    await assert.rejects(readTlsFiles({ ...PATHS, key: path }), /Cannot use --tls-key: it is not the key of the cert/);
    await Deno.writeTextFile(path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    await assert.rejects(readTlsFiles({ ...PATHS, cert: path }), /Cannot use --tls-cert and --tls-key: /);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("readTlsFiles() names the file that is missing or holds something else", async () => {
  await assert.rejects(readTlsFiles({ ...PATHS, key: "/nowhere" }), /Cannot read --tls-key: .*\/nowhere/);
  await assert.rejects(
    readTlsFiles({ cert: PATHS.key, key: PATHS.key }),
    /Cannot use --tls-cert: .*key.pem holds no CERTIFICATE in PEM form/,
  );
});
