/**
 * A server that speaks the hub's endpoints, on a port of its own: listings, redirects to another origin, ranges; and that
 * fails on demand. Knows the files it is given.
 */

import { createHash } from "node:crypto";

/** What the next answers with a file's content do. */
export interface HubFaults {
  /** Ends each body after so many bytes; each entry is used once, then bodies are whole. */
  readonly cuts?: number[];
  /** Answers to a range with the whole file. */
  readonly ignoresRanges?: boolean;
  /** Sends other bytes of the same length. */
  readonly corrupts?: boolean;
  /** Answers with this status to everything. */
  readonly status?: number;
  /** Refuses what comes without this token; content at the other origin refuses any. */
  readonly token?: string;
}

/** One that runs. */
export interface HubServer extends AsyncDisposable {
  readonly endpoint: string;
  /** Requests so far: method, path and range. */
  readonly requests: string[];
  faults: HubFaults;
}

const COMMIT = "0123456789abcdef0123456789abcdef01234567";

/** @param files content by path; those that end in `.safetensors` or `.gguf` are large ones, hashed with SHA-256 */
export function startHub(repository: string, files: Readonly<Record<string, Uint8Array<ArrayBuffer>>>): HubServer {
  const requests: string[] = [];
  const state = { faults: {} as HubFaults };
  const storage = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => {
    const range = request.headers.get("range");
    const path = decodeURIComponent(new URL(request.url).pathname.slice(1));
    requests.push(`storage ${path} ${range ?? "whole"}`);
    if (request.headers.has("authorization")) return new Response("no tokens here", { status: 400 });
    return content(files[path] ?? new Uint8Array(0), range, state.faults);
  });
  const hub = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => {
    const { pathname } = new URL(request.url);
    const { status, token } = state.faults;
    requests.push(`hub ${pathname}`);
    if (status !== undefined) return new Response("", { status });
    if (token !== undefined && request.headers.get("authorization") !== `Bearer ${token}`) {
      return new Response("", { status: 401 });
    }
    if (pathname === `/api/models/${repository}/revision/main`) return Response.json(listing(files));
    const prefix = `/${repository}/resolve/${COMMIT}/`;
    const path = decodeURIComponent(pathname.slice(prefix.length));
    if (!pathname.startsWith(prefix) || files[path] === undefined) return new Response("", { status: 404 });
    const location = `http://127.0.0.1:${storage.addr.port}/${path}`;
    return new Response(null, { status: 302, headers: { location } });
  });
  return {
    endpoint: `http://127.0.0.1:${hub.addr.port}`,
    requests,
    get faults() {
      return state.faults;
    },
    set faults(faults: HubFaults) {
      state.faults = faults;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([hub.shutdown(), storage.shutdown()]);
    },
  };
}

function listing(files: Readonly<Record<string, Uint8Array>>): unknown {
  const siblings = Object.entries(files).map(([rfilename, bytes]) => {
    const isLarge = /\.(safetensors|gguf)$/.test(rfilename);
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    const blobId = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
    return {
      rfilename,
      size: bytes.length,
      blobId,
      ...(isLarge && { lfs: { sha256, size: bytes.length, pointerSize: 130 } }),
    };
  });
  return { id: "org/model", sha: COMMIT, siblings };
}

function content(whole: Uint8Array<ArrayBuffer>, range: string | null, faults: HubFaults): Response {
  const given = faults.corrupts ? whole.map((byte) => byte ^ 1) : whole;
  const from = faults.ignoresRanges ? 0 : Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
  const cut = faults.cuts?.shift();
  const body = given.slice(from);
  const headers = from > 0 ? { "content-range": `bytes ${from}-${whole.length - 1}/${whole.length}` } : undefined;
  const init = { status: from > 0 ? 206 : 200, ...(headers && { headers }) };
  if (cut === undefined) return new Response(body, init);
  // In two turns: what was sent before the error must arrive.
  let sent = false;
  const stream = new ReadableStream({
    async pull(controller) {
      if (!sent) controller.enqueue(body.slice(0, cut));
      else {
        await new Promise((resolve) => setTimeout(resolve, 20));
        controller.error(new Error("cut"));
      }
      sent = true;
    },
  });
  return new Response(stream, init);
}
