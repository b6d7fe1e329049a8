/**
 * Clients that ask for dense answers without a pause, and what became of each answer: compared with the same request
 * before anything was broken. Knows the wire; knows nothing of what is done to the service meanwhile.
 */

import { Random } from "../support/random.ts";
import { SseReader } from "../support/sse_reader.ts";

/** A request of one of the load's kinds; answers to the same one are the same. */
export type LoadRequest = Readonly<Record<string, unknown>>;

/** How an answer ended: whole, with an error event, without a word, or before it began. */
export type Ending = "whole" | "error event" | "no end" | "refused";

/** One answer, as its client saw it. */
export interface Answer {
  readonly ending: Ending;
  readonly text: string;
  /** The code of its error or its status; empty when it is whole. */
  readonly reason: string;
  /** The longest time without a byte. */
  readonly silenceMs: number;
}

const WORDS = "the sea was calm and the harbour lay in fog while old men told of ships gone north".split(" ");

/** An answer that is rebuilt again and again takes long; one that a service forgets must not hold up the run for good. */
const ANSWER_MS = 1_800_000;

/** After a refusal, so that a service that refuses is not asked in a circle. */
const REFUSED_PAUSE_MS = 500;

/** Words of the prompt and tokens of the answer; every other one is drawn with a seed, not greedily. */
export const REQUESTS: readonly LoadRequest[] = ([
  [10, 30],
  [20, 40],
  [60, 60],
  [150, 60],
  [300, 40],
  [40, 120],
  [15, 20],
  [600, 30],
] as const).map(([words, tokens], index) => {
  const random = new Random(index);
  const content = Array.from({ length: words }, () => WORDS[random.integer(WORDS.length)]).join(" ");
  return {
    messages: [{ role: "user", content }],
    max_tokens: tokens,
    ignore_eos: true,
    attention: { mode: "dense" },
    stream: true,
    ...(index % 2 === 0 ? { temperature: 0 } : { temperature: 0.8, seed: index }),
  };
});

/** Asks once and reads to the end. */
export async function ask(origin: string, request: LoadRequest): Promise<Answer> {
  let stream: SseReader | undefined;
  try {
    const response = await fetch(`${origin}/v1/chat/completions`, {
      method: "POST",
      body: JSON.stringify(request),
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    if (response.status !== 200 || response.body === null) {
      await response.body?.cancel();
      return { ending: "refused", text: "", reason: String(response.status), silenceMs: 0 };
    }
    stream = new SseReader(response.body);
    return answerOf(await stream.finish());
  } catch (error) {
    const reason = error instanceof Error ? error.name : String(error);
    return { ...(stream && answerOf(stream)), ending: "no end", text: stream?.text() ?? "", reason, silenceMs: NaN };
  }
}

function answerOf(stream: SseReader): Answer {
  const times = stream.events.map(({ atMs }) => atMs);
  const silenceMs = Math.max(0, ...times.slice(1).map((ms, i) => ms - (times[i] ?? ms)));
  const ending = stream.error !== undefined ? "error event" : stream.done ? "whole" : "no end";
  return { ending, text: stream.text(), reason: stream.error?.code ?? "", silenceMs };
}

/** Answers by kind, and how they compare with those that nothing disturbed. */
export class AnswerTally {
  readonly #undisturbed: readonly string[];
  readonly #endings: Record<Ending, number> = { whole: 0, "error event": 0, "no end": 0, refused: 0 };
  readonly #reasons = new Map<string, number>();
  /** Whole answers that differ, and unfinished ones that are no beginning of what they should have been. */
  readonly differing: { readonly request: number; readonly text: string }[] = [];
  longestSilenceMs = 0;

  /** @param undisturbed the text of the answer to each of the requests */
  constructor(undisturbed: readonly string[]) {
    this.#undisturbed = undisturbed;
  }

  get endings(): Readonly<Record<Ending, number>> {
    return this.#endings;
  }

  /** Why answers were not whole, with how many. */
  get reasons(): ReadonlyMap<string, number> {
    return this.#reasons;
  }

  add(request: number, { ending, text, reason, silenceMs }: Answer): void {
    this.#endings[ending]++;
    if (reason !== "") this.#reasons.set(reason, (this.#reasons.get(reason) ?? 0) + 1);
    const expected = this.#undisturbed[request] ?? "";
    const isAsExpected = ending === "whole" ? text === expected : expected.startsWith(text);
    if (!isAsExpected) this.differing.push({ request, text });
    if (silenceMs > this.longestSilenceMs) this.longestSilenceMs = silenceMs;
  }
}

/** Runs from its making until `stop`. */
export class AnswerLoad {
  readonly tally: AnswerTally;
  readonly #origin: string;
  readonly #clients: readonly Promise<void>[];
  #isOver = false;

  constructor(origin: string, { clients, tally }: { readonly clients: number; readonly tally: AnswerTally }) {
    this.#origin = origin;
    this.tally = tally;
    this.#clients = Array.from({ length: clients }, (_, client) => this.#loop(new Random(client)));
  }

  /** Lets what runs end. */
  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#clients);
  }

  async #loop(random: Random): Promise<void> {
    while (!this.#isOver) {
      const index = random.integer(REQUESTS.length);
      const answer = await ask(this.#origin, REQUESTS[index] ?? {});
      this.tally.add(index, answer);
      if (answer.ending !== "refused") continue;
      await new Promise((resolve) => setTimeout(resolve, REFUSED_PAUSE_MS));
    }
  }
}
