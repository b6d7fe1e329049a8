/** Which known path a client may have meant. Knows paths; knows nothing of requests. */

/** Paths of other servers, and what does the same here. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  "/api/chat": "/v1/chat/completions",
  "/api/generate": "/v1/completions",
  "/api/tags": "/v1/models",
  "/completion": "/v1/completions",
  "/generate": "/v1/completions",
};

/** Differences, in single characters, up to which a path counts as meant. */
const MAX_DISTANCE = 4;

/** @returns undefined when none is near */
export function nearestPath(path: string, known: readonly string[]): string | undefined {
  const elsewhere = ELSEWHERE[path];
  if (elsewhere !== undefined) return elsewhere;
  const plain = path.slice(0, 200).replace(/\/+$/, "").replace(/\/{2,}/g, "/").replace(/^(\/v1)+(?=\/)/, "");
  const candidates = [...new Set(known)].filter((one) => !one.includes("*") && !one.includes(":"));
  const rated = candidates.map((one) => ({ one, distance: distanceOf(plain, one.replace(/^\/v1(?=\/)/, "")) }));
  const best = rated.sort((a, b) => a.distance - b.distance)[0];
  return best !== undefined && best.distance <= Math.min(MAX_DISTANCE, plain.length / 2) ? best.one : undefined;
}

/** Levenshtein's. */
function distanceOf(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
