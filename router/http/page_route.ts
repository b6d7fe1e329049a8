/**
 * `GET /` and the files that the page is made of, as the `page` task has built them into `router/page/built/`. Knows names,
 * types and headers; knows nothing of what the page does.
 */

import { createHash } from "node:crypto";
import { promisify } from "node:util";
import { gzip } from "node:zlib";

const BUILT = new URL("../page/built/", import.meta.url);

/** Path → file and type. */
const FILES: Readonly<Record<string, { readonly file: string; readonly type: string }>> = {
  "/": { file: "index.html", type: "text/html; charset=utf-8" },
  "/page/main.js": { file: "main.js", type: "text/javascript; charset=utf-8" },
  "/page/main.css": { file: "main.css", type: "text/css; charset=utf-8" },
  "/page/icon.svg": { file: "icon.svg", type: "image/svg+xml" },
};

/** All paths that lead to the page. */
export const PAGE_PATHS: readonly string[] = Object.keys(FILES);

/**
 * Nothing but what this service serves, and no script that the page did not come with: answers of a model are text from a
 * stranger. Trusted types keep strings out of the places where they could become scripts.
 */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types dompurify",
].join("; ");

const SECURITY_HEADERS = {
  "content-security-policy": CONTENT_SECURITY_POLICY,
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
} as const;

/** A file in memory, whole and compressed. */
interface PageFile {
  readonly plain: Uint8Array<ArrayBuffer>;
  readonly gzipped: Uint8Array<ArrayBuffer>;
  readonly etag: string;
}

const loaded = new Map<string, Promise<PageFile>>();

/** Answers for one of `PAGE_PATHS`; files are read once. */
export async function pageAnswer(path: string, { headers: asked }: Request): Promise<Response> {
  const { file, type } = FILES[path] ?? { file: "", type: "" };
  const { plain, gzipped, etag } = await load(file);
  const headers = {
    ...SECURITY_HEADERS,
    "content-type": type,
    etag,
    vary: "accept-encoding",
    // Asked for again each time, and answered with 304: a new version shows at once.
    "cache-control": "no-cache",
  };
  if (asked.get("if-none-match") === etag) return new Response(null, { status: 304, headers });
  if (!/\bgzip\b/.test(asked.get("accept-encoding") ?? "")) return new Response(plain, { headers });
  return new Response(gzipped, { headers: { ...headers, "content-encoding": "gzip" } });
}

function load(file: string): Promise<PageFile> {
  const known = loaded.get(file) ?? read(file);
  loaded.set(file, known);
  // What could not be read is tried again at the next request, which reports it too.
  known.catch(() => loaded.delete(file));
  return known;
}

async function read(file: string): Promise<PageFile> {
  const plain = await Deno.readFile(new URL(file, BUILT));
  // In a thread of its own: the router's loop is on the token path.
  const gzipped = new Uint8Array(await promisify(gzip)(plain, { level: 9 }));
  return { plain, gzipped, etag: `"${createHash("sha256").update(plain).digest("hex").slice(0, 32)}"` };
}
