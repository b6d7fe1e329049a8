/**
 * Entry of a grammar thread: checks specifications and follows answers, one job after the other. Keeps a matcher for each
 * answer that its owner has not told it to forget; knows nothing of requests.
 */

import { messageOf } from "../../kernels/errors.ts";
import { readModelConfig } from "../../engine/model/model_config.ts";
import { Tokenizer } from "../../engine/text/tokenizer.ts";
import type { GrammarSpec } from "./grammar_spec.ts";
import type { FromGrammarWorker, GrammarJob, ToGrammarWorker } from "./grammar_thread.ts";
import { MaskAnswers } from "./mask_slots.ts";
import { Utf8Tokens } from "./utf8_tokens.ts";
import { byteLevelVocabulary } from "./vocabulary.ts";
import { CompileError, GrammarEngine, type TokenMatcher } from "./xgrammar.ts";

/** What `deno check` lacks without the worker library: this file's own end of the channel. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<ToGrammarWorker>) => void) | null;
  postMessage(message: FromGrammarWorker, transfer: Transferable[]): void;
}

const scope = globalThis as unknown as WorkerScope;
const matchers = new Map<number, TokenMatcher>();
let engine: GrammarEngine | undefined;
/** Undefined: there was no short job yet. */
let slots: MaskAnswers | undefined;

/** Jobs wait for each other: the library's calls are asynchronous, its state is not made for that. */
let last: Promise<void> = Promise.resolve();

scope.onmessage = ({ data }) => {
  last = last.then(() => receive(data));
};

/** Jobs in slots that were posted before a message come before it; after it, the thread waits for those that come next. */
async function receive(message: ToGrammarWorker): Promise<void> {
  await answerPosted();
  await handle(message);
  slots?.messageHandled();
  if (message.kind === "share") slots = new MaskAnswers(message.memory);
  await answerPosted();
}

async function answerPosted(): Promise<void> {
  for (let job = slots?.next(); slots !== undefined && job !== undefined; job = slots.next()) {
    const { id, keep, tokens, mask } = job;
    const follows = { kind: "follow", spec: undefined, from: keep + tokens.length, words: mask.length } as const;
    try {
      if (engine === undefined) throw new Error("A job came before the vocabulary was loaded");
      await follow(engine, { ...follows, matcher: job.matcher, keep, tokens }, mask);
      slots.finish("done");
    } catch (error) {
      slots.finish("failed");
      fail(id, error);
    }
  }
  if (slots?.isClosed !== true) return;
  slots = undefined;
  scope.postMessage({ kind: "free" }, []);
}

async function handle(message: ToGrammarWorker): Promise<void> {
  const id = message.kind === "job" ? message.id : undefined;
  try {
    if (message.kind === "load") {
      const tokenizer = await Tokenizer.load(message.directory);
      const { eosTokens } = await readModelConfig(message.directory);
      const tokens = byteLevelVocabulary(tokenizer, new Set(message.markers));
      const bytes = tokens.map((spelling, id) =>
        spelling === "" || eosTokens.includes(id) ? undefined : tokenizer.tokenBytes(id)
      );
      engine = await GrammarEngine.load({ tokens, stopTokens: eosTokens, text: new Utf8Tokens(bytes) });
      scope.postMessage({ kind: "loaded" }, []);
    } else if (message.kind === "forget") {
      matchers.get(message.matcher)?.close();
      matchers.delete(message.matcher);
    } else if (message.kind === "job") {
      const masks = await run(message.job);
      scope.postMessage({ kind: "done", id: message.id, masks }, [masks.buffer]);
    }
  } catch (error) {
    fail(id, error);
  }
}

function fail(id: number | undefined, error: unknown): void {
  const message = messageOf(error);
  scope.postMessage({ kind: "failed", id, compile: error instanceof CompileError, message }, []);
}

async function run(job: GrammarJob): Promise<Uint32Array<ArrayBuffer>> {
  if (engine === undefined) throw new Error("A job came before the vocabulary was loaded");
  if (job.kind === "follow") {
    const masks = new Uint32Array((job.keep + job.tokens.length - job.from + 1) * job.words);
    await follow(engine, job, masks);
    return masks;
  }
  const matcher = await engine.matcher(job.spec);
  const mask = new Uint32Array(job.words);
  await matcher.mask(mask);
  matcher.close();
  if (mask.every((word) => word === 0)) throw new CompileError("no answer can satisfy it");
  return mask;
}

/** @param masks all zero; those after the first `from` tokens, …, after all of them: u32 [number of states, words] */
async function follow(
  grammars: GrammarEngine,
  { matcher: name, spec, keep, tokens, from, words }: Extract<GrammarJob, { kind: "follow" }>,
  masks: Uint32Array,
): Promise<void> {
  const matcher = await matcherOf(grammars, name, spec);
  matcher.rollBack(keep);
  if (matcher.length < keep) throw new Error(`Only ${matcher.length} of the ${keep} tokens before were followed`);
  const end = keep + tokens.length;
  for (let length = matcher.length; length <= end; length++) {
    if (length >= from) await matcher.mask(masks.subarray((length - from) * words, (length - from + 1) * words));
    const token = tokens[length - keep];
    if (token !== undefined && !matcher.accept(token)) {
      throw new Error(`Token ${token} at ${length} of the answer is not allowed by its grammar`);
    }
  }
}

async function matcherOf(grammars: GrammarEngine, name: number, spec: GrammarSpec | undefined): Promise<TokenMatcher> {
  const known = matchers.get(name);
  if (known !== undefined) return known;
  if (spec === undefined) throw new Error(`Answer ${name} goes on before it has begun`);
  const matcher = await grammars.matcher(spec);
  matchers.set(name, matcher);
  return matcher;
}
