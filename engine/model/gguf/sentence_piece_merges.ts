/**
 * Merges from the scores of sentence pieces: where the original joins the neighbours that make the piece of highest score,
 * byte-pair encoding joins those of the first merge in a list.
 */

/**
 * @param tokens pieces by id
 * @param scores one for each; the higher, the earlier a piece is made
 * @returns pairs of pieces, best first
 */
export function mergesOfScores(tokens: readonly string[], scores: readonly number[]): [left: string, right: string][] {
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const merges: { readonly pair: [string, string]; readonly score: number; readonly left: number }[] = [];
  for (const [id, token] of tokens.entries()) {
    // By character: a split within a surrogate pair makes no piece.
    let left = "";
    for (const character of token) {
      const right = token.slice(left.length);
      if (left !== "" && ids.has(left) && ids.has(right)) {
        merges.push({ pair: [left, right], score: scores[id] ?? -Infinity, left: left.length });
      }
      left += character;
    }
  }
  // Of pairs that make the same piece, the one with the longer beginning: neighbours are joined from the left.
  merges.sort((a, b) => b.score - a.score || b.left - a.left);
  return merges.map(({ pair }) => pair);
}
