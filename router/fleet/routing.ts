/**
 * Where a request goes that several groups could run: the rule, as a pure function. The group that has least to do before the
 * request's first token is the one that holds the longest prefix of its prompt, unless too many others are there already.
 */

import { PAGE_TOKENS } from "../../engine/span.ts";
import type { Prospect } from "../scheduling/outlook.ts";

/** What a request would find in a group. */
export interface Candidate extends Prospect {
  /** Of the group. */
  readonly index: number;
  /** Other choices of the same request are there. */
  readonly hasSiblings: boolean;
}

/**
 * What each sequence of a group counts for, in tokens to be read, where some group has more of the prompt cached than another:
 * a prefix of n pages draws n sequences more to its group than run elsewhere, and no further ones.
 */
const SEQUENCE_TOKENS = PAGE_TOKENS;

/**
 * The same where no group has more of it. Decoding an answer of 500 tokens among others takes about as long as reading so
 * many; counted for less, chats of mixed lengths that come together were dealt evenly by their prompts alone, 18 and 14 of 32.
 */
const ANSWER_TOKENS = 4096;

/**
 * Groups in the order in which a request should try them.
 * @param tokens of the request that are known: its prompt, and what was drawn already
 * @param candidates groups that could run it; their order decides between equals
 */
export function inOrder(tokens: number, candidates: readonly Candidate[]): readonly Candidate[] {
  const withRoom = candidates.filter(({ hasRoom }) => hasRoom);
  const longestWithRoom = Math.max(-1, ...withRoom.map(({ cachedTokens }) => cachedTokens));
  const isBehind = ({ hasRoom, cachedTokens }: Candidate) => !hasRoom && cachedTokens <= longestWithRoom;
  const isApart = ({ hasSiblings, hasRoom }: Candidate) => !hasSiblings || (!hasRoom && withRoom.length > 0);
  const areCachesAlike = new Set(candidates.map(({ cachedTokens }) => cachedTokens)).size === 1;
  const sequenceTokens = areCachesAlike ? ANSWER_TOKENS : SEQUENCE_TOKENS;
  /** Tokens to be read before the request's first one is drawn, and what the others there count for. */
  const costOf = ({ unreadTokens, cachedTokens, sequences }: Candidate) =>
    unreadTokens + tokens - cachedTokens + sequenceTokens * sequences;
  return candidates.toSorted((a, b) =>
    Number(isApart(a)) - Number(isApart(b)) ||
    Number(isBehind(a)) - Number(isBehind(b)) ||
    costOf(a) - costOf(b) ||
    b.freePages - a.freePages
  );
}
