/** Who may use a service: keys, pages, host names, how many at once; and the line that each request leaves. */

import assert from "node:assert/strict";

import { AccessControl, type AccessOptions, type AnsweredRequest } from "../../../router/access/access_control.ts";
import { AllowedHosts } from "../../../router/access/allowed_hosts.ts";
import { AllowedOrigins } from "../../../router/access/allowed_origins.ts";
import { ApiKeys } from "../../../router/access/api_keys.ts";
import { ClientQuota } from "../../../router/access/client_quota.ts";
import { contextOf } from "../../../router/access/request_context.ts";

/** An application of one route that always answers, behind an access control. */
class Access {
  readonly lines: AnsweredRequest[] = [];
  /** Ends the answers given so far. */
  readonly close: (() => void)[] = [];
  readonly #control: AccessControl;

  constructor(options: Partial<AccessOptions> = {}, answer = (_: Request) => Response.json({ status: "ok" })) {
    this.#control = new AccessControl(answer, {
      hosts: new AllowedHosts("127.0.0.1", []),
      origins: new AllowedOrigins([]),
      keys: undefined,
      quota: new ClientQuota(undefined),
      onAnswered: (line) => this.lines.push(line),
      onInternalError: (error) => assert.fail(String(error)),
      ...options,
    });
  }

  async ask(headers: Record<string, string> = {}, options: {
    readonly url?: string;
    readonly method?: string;
    readonly address?: string;
  } = {}): Promise<{ status: number; headers: Headers; error: Record<string, unknown> | undefined }> {
    const { url = "http://127.0.0.1:8000/v1/models", method = "GET", address = "127.0.0.1" } = options;
    const peer = {
      address,
      malformed: new AbortController().signal,
      onClosed: (callback: () => void) => void this.close.push(callback),
    };
    const response = await this.#control.answer(new Request(url, { method, headers }), peer);
    const text = await response.text();
    return { status: response.status, headers: response.headers, error: text === "" ? {} : JSON.parse(text).error };
  }
}

const KEYS = ApiKeys.parse("# of the team\nalice:sk-alice\n\nbob@lab:sk-bob:2\r\nalice:sk-alice-next\n");

Deno.test("API keys: without a known one 401 in OpenAI's form; /health and /ready stay open", async () => {
  const access = new Access({ keys: KEYS });
  for (
    const authorization of [undefined, "Bearer sk-alic", "Bearer sk-alicee", "sk-alice", "Basic sk-alice", "Bearer "]
  ) {
    const refused = await access.ask(authorization === undefined ? {} : { authorization });
    assert.equal(refused.status, 401, authorization);
    assert.equal(refused.headers.get("www-authenticate"), "Bearer");
    assert.deepEqual(refused.error, {
      message: "Cannot answer without a valid API key: expected the header Authorization: Bearer KEY",
      type: "invalid_request_error",
      param: null,
      code: "invalid_api_key",
    });
  }
  for (const authorization of ["Bearer sk-alice", "bearer sk-alice-next", "Bearer sk-bob:2"]) {
    assert.equal((await access.ask({ authorization })).status, 200, authorization);
  }
  assert.equal((await access.ask({ "x-api-key": "sk-alice" })).status, 200);
  for (const path of ["health", "ready"]) {
    assert.equal((await access.ask({}, { url: `http://127.0.0.1:8000/${path}` })).status, 200);
  }
  for (const path of ["metrics", "openapi.json", "health/", "v1/nothing"]) {
    assert.equal((await access.ask({}, { url: `http://127.0.0.1:8000/${path}` })).status, 401, path);
  }
});

Deno.test("below /v1/messages a refusal has Anthropic's form, as all of its errors", async () => {
  const url = "http://127.0.0.1:8000/v1/messages";
  const errorOf = async (access: Access, path = "") =>
    (await access.ask({}, { url: url + path, method: "POST" })).error;
  const message = "Cannot answer without a valid API key: expected the header Authorization: Bearer KEY";
  for (const path of ["", "/count_tokens"]) {
    assert.deepEqual(await errorOf(new Access({ keys: KEYS }), path), { type: "authentication_error", message });
  }
  assert.equal((await errorOf(new Access({ quota: new ClientQuota(0) })))?.type, "rate_limit_error");
  assert.equal((await errorOf(new Access({ keys: KEYS }), "_of_others"))?.code, "invalid_api_key");
});

Deno.test("the page itself is open to anyone, and may ask from its own origin; a rebound name may not", async () => {
  const access = new Access({ keys: KEYS });
  for (const path of ["", "page/main.js", "page/anything"]) {
    assert.equal((await access.ask({}, { url: `http://127.0.0.1:8000/${path}` })).status, 200, path);
  }
  assert.equal((await access.ask({}, { url: "http://127.0.0.1:8000/pages" })).status, 401);
  const authorization = "Bearer sk-alice";
  const from = async (origin: string, url: string, hosts: AllowedHosts) => {
    const { status, headers } = await new Access({ keys: KEYS, hosts }).ask({ authorization, origin }, { url });
    assert.equal(headers.get("access-control-allow-origin"), null, "its own page needs no leave");
    return status;
  };
  const [local, open, named] = [["127.0.0.1"], ["0.0.0.0"], ["0.0.0.0", "tide.example"]].map(([bound = "", ...names]) =>
    new AllowedHosts(bound, names)
  );
  assert.ok(local !== undefined && open !== undefined && named !== undefined);
  const cases = [
    ["http://127.0.0.1:8000", "http://127.0.0.1:8000/v1/models", local, 200],
    ["http://localhost:8000", "http://localhost:8000/v1/models", local, 200],
    ["http://localhost:3000", "http://localhost:8000/v1/models", local, 403],
    ["http://10.0.0.5:8000", "http://10.0.0.5:8000/v1/models", open, 200],
    ["http://evil.example:8000", "http://evil.example:8000/v1/models", open, 403],
    ["https://tide.example", "http://tide.example/v1/models", named, 200],
    ["null", "http://127.0.0.1:8000/v1/models", local, 403],
  ] as const;
  for (const [origin, url, hosts, status] of cases) {
    assert.equal(await from(origin, url, hosts), status, `${origin} asks ${url}`);
  }
});

Deno.test("ApiKeys.parse() names the line at fault and never a key", () => {
  const cases = [
    ["alice:sk-a\nno key here\n", /line 2 is not name:key/],
    ["alice:\n", /line 1 is not name:key/],
    ["a b:sk-a\n", /line 1 is not name:key/],
    ["alice:sk-a\nbob:sk-a\n", /the key on line 2 was given before/],
    ["# none\n", /it holds no key/],
  ] as const;
  for (const [text, message] of cases) {
    assert.throws(
      () => ApiKeys.parse(text),
      (error: Error) => message.test(error.message) && !/sk-a/.test(error.message),
    );
  }
});

Deno.test("ApiKeys.read() names a file that cannot be read", async () => {
  await assert.rejects(ApiKeys.read("/nowhere/keys"), /Cannot read --api-key-file: .*\/nowhere\/keys/);
});

Deno.test("a web page is refused with 403 unless its origin is allowed, before a route sees the request", async () => {
  let reached = 0;
  const options = { origins: new AllowedOrigins(["https://app.example", "http://localhost:3000"]) };
  const access = new Access(options, () => {
    reached++;
    return Response.json({});
  });
  for (const origin of ["https://evil.example", "null", "https://app.example:8443", "http://app.example", "*"]) {
    const refused = await access.ask({ origin }, { method: "POST" });
    assert.deepEqual([refused.status, refused.error?.code], [403, "origin_not_allowed"], origin);
    assert.equal(refused.headers.get("access-control-allow-origin"), null);
  }
  assert.equal(reached, 0);
  const allowed = await access.ask({ origin: "https://app.example" }, { method: "POST" });
  assert.equal(allowed.status, 200);
  assert.equal(allowed.headers.get("access-control-allow-origin"), "https://app.example");
  assert.equal(allowed.headers.get("vary"), "Origin");
  assert.equal((await access.ask({}, { method: "POST" })).status, 200, "curl sends no Origin");
  assert.equal((await new Access({ origins: new AllowedOrigins(["*"]) }).ask({ origin: "https://any" })).status, 200);
});

Deno.test("a preflight of an allowed origin is answered without a key, another is refused", async () => {
  const access = new Access({ keys: KEYS, origins: new AllowedOrigins(["https://app.example"]) });
  const preflight = (origin: string) =>
    access.ask({
      origin,
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization,content-type,x-stainless-os",
    }, { method: "OPTIONS" });
  const { status, headers } = await preflight("https://app.example");
  assert.equal(status, 204);
  assert.equal(headers.get("access-control-allow-origin"), "https://app.example");
  assert.equal(headers.get("access-control-allow-headers"), "authorization,content-type,x-stainless-os");
  assert.match(headers.get("access-control-allow-methods") ?? "", /POST/);
  assert.equal((await preflight("https://evil.example")).status, 403);
  const unauthorized = await access.ask({ origin: "https://app.example" }, { method: "POST" });
  assert.equal(unauthorized.status, 401);
  assert.equal(unauthorized.headers.get("access-control-allow-origin"), "https://app.example", "the page may read why");
});

Deno.test("bound to loopback, a foreign Host is refused unless it is allowed", async () => {
  const status = async (bound: string, names: readonly string[], host: string) => {
    const access = new Access({ hosts: new AllowedHosts(bound, names) });
    return (await access.ask({}, { url: `http://${host}/v1/models` })).status;
  };
  for (
    const host of ["127.0.0.1:8000", "localhost:1", "LOCALHOST", "[::1]:8000", "127.8.8.8", "a.localhost", "localhost."]
  ) {
    for (const bound of ["127.0.0.1", "::1", "localhost"]) assert.equal(await status(bound, [], host), 200, host);
  }
  for (const host of ["evil.example:8000", "localhost.evil.example", "192.168.1.9", "127.0.0.1.nip.io", "[::2]"]) {
    assert.equal(await status("127.0.0.1", [], host), 403, host);
    assert.equal(await status("127.0.0.1", ["gpu.lan"], host), 403, host);
    assert.equal(await status("0.0.0.0", [], host), 200, host);
  }
  assert.equal(await status("127.0.0.1", ["gpu.lan"], "GPU.lan:8000"), 200);
  assert.equal(await status("0.0.0.0", ["gpu.lan"], "evil.example"), 403);
  assert.equal(await status("0.0.0.0", ["gpu.lan"], "10.1.2.3:8000"), 200, "an address needs no DNS");
});

Deno.test("ClientQuota bounds what one client runs at once, by key or by address", async () => {
  const access = new Access({ keys: KEYS, quota: new ClientQuota(2) });
  const alice = { authorization: "Bearer sk-alice" };
  assert.equal((await access.ask(alice)).status, 200);
  assert.equal((await access.ask({ authorization: "Bearer sk-alice-next" })).status, 200);
  const third = await access.ask(alice);
  assert.deepEqual([third.status, third.error?.code], [429, "rate_limit_exceeded"]);
  assert.equal(third.error?.message, "Cannot take the request: 2 of this client run, at most 2 may");
  assert.ok(Number(third.headers.get("retry-after")) > 0);
  assert.equal((await access.ask({ authorization: "Bearer sk-bob:2" })).status, 200, "others are not affected");
  assert.equal((await access.ask(alice, { url: "http://127.0.0.1/ready" })).status, 200);
  const [first] = access.close;
  first?.();
  first?.();
  assert.equal((await access.ask(alice)).status, 200);
  assert.equal((await access.ask(alice)).status, 429, "a place is given back once");
  const open = new Access({ quota: new ClientQuota(1) });
  assert.equal((await open.ask({}, { address: "10.0.0.1" })).status, 200);
  assert.equal((await open.ask({}, { address: "10.0.0.1" })).status, 429);
  assert.equal((await open.ask({}, { address: "10.0.0.2" })).status, 200);
});

Deno.test("x-request-id is the client's, or made; a harmful one is replaced", async () => {
  const access = new Access({ keys: KEYS });
  const idFor = async (sent: string | undefined, path = "health") => {
    const url = `http://127.0.0.1/${path}`;
    return (await access.ask(sent === undefined ? {} : { "x-request-id": sent }, { url })).headers.get("x-request-id");
  };
  assert.equal(await idFor("mine-1"), "mine-1");
  assert.equal(await idFor("mine-2", "v1/models"), "mine-2", "a refusal has it too");
  const made = /^[0-9a-f-]{36}$/;
  assert.match(await idFor(undefined) ?? "", made);
  assert.match(await idFor("a".repeat(129)) ?? "", made);
  assert.match(await idFor("a b") ?? "", made);
  assert.deepEqual(access.lines.slice(0, 2).map(({ origin }) => origin.requestId), ["mine-1", "mine-2"]);
});

Deno.test("each request leaves one line, with who asked and what became of it; one that is recorded leaves none here", async () => {
  const access = new Access({ keys: KEYS }, (request) => {
    if (request.url.endsWith("/generate")) contextOf(request)?.record();
    return Response.json({});
  });
  const authorization = "Bearer sk-bob:2";
  await access.ask({ authorization }, { url: "http://127.0.0.1/v1/models?secret=1", address: "10.0.0.7" });
  await access.ask({ authorization }, { url: "http://127.0.0.1/generate" });
  await access.ask({ authorization: "Bearer nonsense" });
  const [served, refused, ...more] = access.lines;
  assert.deepEqual(more, []);
  assert.deepEqual([served?.status, served?.errorCode], [200, undefined]);
  const { client, key, method, path } = served?.origin ?? {};
  assert.deepEqual([client, key, method, path], ["10.0.0.7", "bob@lab", "GET", "/v1/models"]);
  assert.deepEqual([refused?.status, refused?.errorCode, refused?.origin.key], [401, "invalid_api_key", undefined]);
});

Deno.test("an application that fails is a 500 in the one shape", async () => {
  const errors: unknown[] = [];
  const access = new Access({ onInternalError: (error) => void errors.push(error) }, () => {
    throw new Error("secret");
  });
  const failed = await access.ask();
  assert.deepEqual([failed.status, failed.error?.code], [500, "internal_error"]);
  assert.ok(!JSON.stringify(failed.error).includes("secret"));
  assert.equal(errors.length, 1);
});
