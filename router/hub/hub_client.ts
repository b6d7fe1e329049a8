/**
 * The hub's endpoints: what a repository holds, and its files from any byte on. Follows redirects itself, so that the
 * token goes to the hub only. Knows HTTP; knows nothing of folders.
 */

import { messageOf } from "../../kernels/errors.ts";
import { z } from "zod";
import type { HubConfig } from "./hub_config.ts";
import { HubError } from "./hub_error.ts";

/** A file of a repository. */
export interface HubFile {
  /** Within the repository, with slashes. */
  readonly path: string;
  readonly bytes: number;
  /** What its content must hash to, and the name of its blob in the cache. */
  readonly hash: { readonly kind: "sha256" | "git"; readonly hex: string };
}

/** A repository at one commit. */
export interface HubRepository {
  readonly commit: string;
  readonly files: readonly HubFile[];
}

/** A file from some byte on. */
export interface HubBody {
  /** The first byte that comes: 0 when the server does not know ranges. */
  readonly from: number;
  readonly chunks: ReadableStream<Uint8Array<ArrayBuffer>>;
}

const MAX_REDIRECTS = 5;
const ANSWER_MS = 30_000;
const MAX_LISTING_BYTES = 16 << 20;

const size = z.number().int().nonnegative();
const LISTING = z.object({
  sha: z.string().regex(/^[0-9a-f]{40}$/),
  siblings: z.array(z.object({
    rfilename: z.string(),
    size,
    blobId: z.string().regex(/^[0-9a-f]{40}$/),
    lfs: z.object({ sha256: z.string().regex(/^[0-9a-f]{64}$/), size }).nullish(),
  })).max(65_536),
});

/** Asks one hub. */
export class HubClient {
  readonly #config: HubConfig;

  constructor(config: HubConfig) {
    this.#config = config;
  }

  /**
   * The files of a repository at its newest commit. Paths that could leave a folder are left out.
   * @throws {HubError} `hub_unreachable`, `hub_refused`; `hub_corrupt` when the answer is none
   */
  async list(repository: string): Promise<HubRepository> {
    const url = `${this.#config.endpoint}/api/models/${repository}/revision/main?blobs=true`;
    const response = await this.#get(url, { "accept": "application/json" }, `list ${repository}`);
    const parsed = LISTING.safeParse(await jsonOf(response, repository));
    if (!parsed.success) {
      throw new HubError("hub_corrupt", `Cannot list ${repository}: ${z.prettifyError(parsed.error)}`);
    }
    const { sha, siblings } = parsed.data;
    const files = siblings.filter(({ rfilename }) => isInside(rfilename)).map((file): HubFile => ({
      path: file.rfilename,
      bytes: file.lfs?.size ?? file.size,
      hash: file.lfs ? { kind: "sha256", hex: file.lfs.sha256 } : { kind: "git", hex: file.blobId },
    }));
    return { commit: sha, files };
  }

  /**
   * Opens a file from a byte on.
   * @throws {HubError} as above
   */
  async open(repository: string, commit: string, { path, from }: { path: string; from: number }): Promise<HubBody> {
    const url = `${this.#config.endpoint}/${repository}/resolve/${commit}/${
      path.split("/").map(encodeURIComponent).join("/")
    }`;
    const headers: Record<string, string> = from > 0 ? { range: `bytes=${from}-` } : {};
    const response = await this.#get(url, headers, `fetch ${repository}/${path}`);
    const { body, status } = response;
    if (body === null) throw new HubError("hub_corrupt", `Cannot fetch ${repository}/${path}: the answer has no body`);
    const start = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
    if (status === 206 && Number(start) !== from) {
      await body.cancel();
      throw new HubError("hub_corrupt", `Cannot fetch ${repository}/${path}: asked from byte ${from}, given ${start}`);
    }
    return { from: status === 206 ? from : 0, chunks: body };
  }

  async #get(url: string, headers: Readonly<Record<string, string>>, action: string): Promise<Response> {
    const { endpoint, token } = this.#config;
    const home = new URL(endpoint).origin;
    let at = new URL(url);
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
      const own = token !== undefined && at.origin === home ? { authorization: `Bearer ${token}` } : {};
      const response = await ask(at, { ...headers, ...own }, action);
      const location = response.headers.get("location");
      if (response.status < 300 || response.status >= 400 || location === null) return await accepted(response, action);
      await response.body?.cancel();
      const next = new URL(location, at);
      if (next.protocol !== "https:" && next.protocol !== at.protocol) {
        throw new HubError(
          "hub_corrupt",
          `Cannot ${action}: a redirect from ${at.protocol} must not lead to ${next.protocol}`,
        );
      }
      at = next;
    }
    throw new HubError("hub_corrupt", `Cannot ${action}: more than ${MAX_REDIRECTS} redirects`);
  }
}

/** The time-out ends with the headers: how long a body may take is for its reader to say. */
async function ask(url: URL, headers: Readonly<Record<string, string>>, action: string): Promise<Response> {
  const control = new AbortController();
  const timer = setTimeout(() => control.abort(new Error(`no answer in ${ANSWER_MS} ms`)), ANSWER_MS);
  try {
    return await fetch(url, { headers, redirect: "manual", signal: control.signal });
  } catch (cause) {
    const reason = messageOf(cause);
    throw new HubError("hub_unreachable", `Cannot ${action}: ${url.host} does not answer: ${reason}`, { cause });
  } finally {
    clearTimeout(timer);
  }
}

async function accepted(response: Response, action: string): Promise<Response> {
  const { status } = response;
  if (response.ok) return response;
  await response.body?.cancel();
  const host = new URL(response.url).host;
  if (status === 401 || status === 403) {
    throw new HubError(
      "hub_refused",
      `Cannot ${action}: ${host} needs a token with read access (HF_TOKEN), status ${status}`,
    );
  }
  if (status === 404) throw new HubError("hub_refused", `Cannot ${action}: ${host} has no such thing, status 404`);
  throw new HubError("hub_unreachable", `Cannot ${action}: ${host} answered with status ${status}`);
}

async function jsonOf(response: Response, repository: string): Promise<unknown> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > MAX_LISTING_BYTES) {
      throw new HubError(
        "hub_corrupt",
        `Cannot list ${repository}: the answer must have at most ${MAX_LISTING_BYTES} bytes`,
      );
    }
    chunks.push(chunk);
  }
  try {
    return JSON.parse(await new Blob(chunks as BlobPart[]).text());
  } catch (cause) {
    throw new HubError("hub_corrupt", `Cannot list ${repository}: the answer is no JSON`, { cause });
  }
}

function isInside(path: string): boolean {
  const parts = path.split("/");
  return !path.includes("\\") && parts.every((part) => part !== "" && part !== "." && part !== "..");
}
