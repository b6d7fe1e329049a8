/** The page's files: found, typed, compressed, kept by browsers, and under a policy that lets nothing else in. */

import assert from "node:assert/strict";

import { PAGE_PATHS } from "../../../router/http/page_route.ts";
import { TestService } from "../../support/test_service.ts";

Deno.test("GET / and its files come with a type, a policy, and no script or style inside the page", async () => {
  using service = await TestService.open();
  for (const path of PAGE_PATHS) {
    const response = await service.app.request(path);
    const text = await response.text();
    assert.equal(response.status, 200, path);
    assert.match(response.headers.get("content-type") ?? "", /^(text\/(html|css|javascript)|image\/svg\+xml)/);
    assert.equal(response.headers.get("x-content-type-options"), "nosniff");
    const policy = response.headers.get("content-security-policy") ?? "";
    assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'/);
    assert.match(policy, /frame-ancestors 'none'; require-trusted-types-for 'script'/);
    assert.doesNotMatch(policy, /unsafe|\*|https?:/);
    if (path !== "/") continue;
    assert.doesNotMatch(text, /<script(?![^>]* src="\/page\/)|<style| style=| on\w+=/, "nothing inline");
    for (const [, link] of text.matchAll(/(?:src|href)="([^"]+)"/g)) assert.ok(PAGE_PATHS.includes(link ?? ""), link);
  }
});

Deno.test("GET /page/main.js is compressed for those who can read that, and not sent again unchanged", async () => {
  using service = await TestService.open();
  const plain = await service.app.request("/page/main.js");
  const zipped = await service.app.request("/page/main.js", { headers: { "accept-encoding": "br, gzip" } });
  assert.equal(plain.headers.get("content-encoding"), null);
  assert.equal(zipped.headers.get("content-encoding"), "gzip");
  const [whole, small] = [await plain.bytes(), await zipped.bytes()];
  assert.ok(small.length < whole.length / 2);
  const unzipped = new Response(small).body?.pipeThrough(new DecompressionStream("gzip"));
  assert.deepEqual(await new Response(unzipped).bytes(), whole);
  const etag = plain.headers.get("etag") ?? "";
  const again = await service.app.request("/page/main.js", { headers: { "if-none-match": etag } });
  assert.deepEqual([again.status, await again.text()], [304, ""]);
  const head = await service.app.request("/", { method: "HEAD" });
  assert.deepEqual([head.status, await head.text()], [200, ""]);
  assert.equal((await service.app.request("/page/other.js")).status, 404);
  assert.equal((await service.app.request("/", { method: "POST" })).status, 405);
});
