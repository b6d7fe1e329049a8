import assert from "node:assert/strict";
import { Ajv2020 } from "ajv/dist/2020.js";

import { Tokenizer } from "../../../engine/text/tokenizer.ts";
import { AnswerReader } from "../../../router/answer/answer_reader.ts";
import { callGrammar } from "../../../router/answer/tool_formats.ts";
import { RequestError } from "../../../router/errors.ts";
import { GrammarService } from "../../../router/grammar/grammar_service.ts";
import type { GrammarSpec } from "../../../router/grammar/grammar_spec.ts";
import { normalizeSchema } from "../../../router/grammar/json_schema.ts";
import { Random } from "../../support/random.ts";
import { randomSchema } from "../../support/random_schema.ts";
import { MODEL_DIRECTORY } from "../../support/test_service.ts";

const WORDS = 4096 / 32;
const STOP = 1;
const tokenizer = await Tokenizer.load(MODEL_DIRECTORY);

async function withService(body: (service: GrammarService) => Promise<void>, compileMs = 5000): Promise<void> {
  const service = new GrammarService({ directory: MODEL_DIRECTORY, compileMs });
  try {
    await body(service);
  } finally {
    service.close();
  }
}

function allowed(mask: Uint32Array): number[] {
  const ids: number[] = [];
  mask.forEach((word, at) => {
    for (let left = word; left !== 0; left &= left - 1) ids.push(32 * at + 31 - Math.clz32(left & -left));
  });
  return ids;
}

/** Writes an answer of random tokens; prefers ends, as random tokens seldom find them. */
async function write(
  service: GrammarService,
  spec: GrammarSpec,
  random: Random,
  most = 150,
): Promise<string | undefined> {
  const constraint = service.follow(spec);
  const tokens: number[] = [];
  try {
    while (tokens.length < most) {
      const mask = await constraint.masks(Uint32Array.from(tokens), tokens.length, WORDS);
      const choices = allowed(mask);
      assert.ok(choices.length > 0, `stuck after ${JSON.stringify(tokenizer.decode(tokens))}`);
      if (choices.includes(STOP)) return tokenizer.decode(tokens);
      tokens.push(choices[random.integer(choices.length)] ?? 0);
    }
    return undefined;
  } finally {
    constraint.close();
  }
}

const spec = (schema: unknown): GrammarSpec => ({ kind: "json", schema: normalizeSchema(schema, "x") });

Deno.test("GrammarService takes the calls of every tool format, and required ones are read as calls again", async () => {
  const parameters = normalizeSchema(
    { type: "object", properties: { city: { type: "boolean" } }, required: ["city"] },
    "x",
  );
  const names = ["weather", "weather_tomorrow"];
  const tools = names.map((name) => ({ name, parameters }));
  let finished = 0;
  await withService(async (service) => {
    for (const format of ["hermes", "llama", "mistral"] as const) {
      for (const isSingle of [true, false]) {
        await service.check(callGrammar(format, tools, { isRequired: false, isSingle }));
        const required = callGrammar(format, tools, { isRequired: true, isSingle });
        await service.check(required);
        const text = await write(service, required, new Random(1));
        if (text === undefined) continue;
        finished++;
        const reader = new AnswerReader({ tools: { format, names }, reasoning: undefined });
        const parts = [...reader.push(text), ...reader.flush()];
        const called = parts.flatMap((part) => (part.kind === "call" ? [part.name] : []));
        assert.ok(called.length > 0 && called.every((name) => names.includes(name)), text);
        assert.ok(!parts.some(({ kind }) => kind === "content"), text);
        if (isSingle) assert.equal(called.length, 1);
      }
    }
  });
  assert.ok(finished >= 3, `${finished} answers finished`);
});

Deno.test("GrammarService: random answers to 200 random schemas satisfy an independent validator", async () => {
  await withService(async (service) => {
    const ajv = new Ajv2020({ strict: false, validateFormats: false });
    let finished = 0;
    for (let seed = 0; seed < 200; seed++) {
      const random = new Random(seed);
      const schema = randomSchema(random);
      const text = await write(service, spec(schema), random);
      if (text === undefined) continue;
      finished++;
      const said = `${JSON.stringify(schema)} is not satisfied by ${JSON.stringify(text)}`;
      assert.doesNotThrow(() => JSON.parse(text), said);
      assert.ok(ajv.compile(schema)(JSON.parse(text)), said);
    }
    assert.ok(finished >= 140, `only ${finished} of 200 answers were finished`);
  });
});

const FORMS: readonly (readonly [name: string, spec: GrammarSpec, form: RegExp])[] = [
  ["a pattern", { kind: "regex", pattern: "[a-c]{2,4}-\\d{3}" }, /^[a-c]{2,4}-\d{3}$/],
  ["a choice", { kind: "choice", texts: ["red", "green"] }, /^(red|green)$/],
  ["a grammar", { kind: "gbnf", grammar: 'root ::= "<" [0-9]{3} ">"' }, /^<\d{3}>$/],
  ["a tag", { kind: "tag", begin: "[", content: { kind: "choice", texts: ["a"] }, end: "]" }, /^\[a\]$/],
];

Deno.test("GrammarService follows patterns, choices, grammars and tags", async () => {
  await withService(async (service) => {
    for (const [name, form, expected] of FORMS) {
      await service.check(form, "x");
      assert.match(await write(service, form, new Random(3)) ?? "", expected, name);
    }
  });
});

Deno.test("GrammarService goes back to an earlier token, and gives the masks of several states at once", async () => {
  await withService(async (service) => {
    const constraint = service.follow({ kind: "gbnf", grammar: 'root ::= "a" ("b" | "c") "d"' });
    const [a, b, c, d] = ["a", "b", "c", "d"].map((text) => tokenizer.encode(text)[0] ?? 0) as [
      number,
      number,
      number,
      number,
    ];
    const after = async (...tokens: number[]) => await constraint.masks(Uint32Array.from(tokens), 0, WORDS);
    const first = await after(a, b);
    assert.equal(first.length, 3 * WORDS);
    assert.deepEqual(allowed(first.subarray(WORDS, 2 * WORDS)).filter((id) => [b, c, d].includes(id)), [b, c]);
    const again = await after(a, c);
    assert.deepEqual(again.subarray(0, 2 * WORDS), first.subarray(0, 2 * WORDS));
    assert.ok(allowed(again.subarray(2 * WORDS)).includes(d));
    await assert.rejects(after(a, d), /not allowed by its grammar/);
    assert.deepEqual(await after(a, b), first, "it goes on after a mistake");
  });
});

const BROKEN: readonly (readonly [name: string, spec: GrammarSpec, reason: RegExp])[] = [
  ["a look-ahead", { kind: "regex", pattern: "(?=a)b" }, /Lookahead is not supported/],
  ["an open bracket", { kind: "regex", pattern: "[" }, /Unclosed/],
  ["a missing rule", { kind: "gbnf", grammar: "root ::= missing" }, /missing/],
  ["a grammar without a root", { kind: "gbnf", grammar: 'other ::= "a"' }, /root/],
];

Deno.test("GrammarService says why a grammar cannot be compiled, and goes on", async () => {
  await withService(async (service) => {
    const running = service.follow({ kind: "choice", texts: ["red", "green"] });
    const before = await running.masks(new Uint32Array(), 0, WORDS);
    for (const [name, broken, reason] of BROKEN) {
      for (const _ of [1, 2]) {
        await assert.rejects(service.check(broken, "field"), (error) => {
          assert.ok(error instanceof RequestError, name);
          assert.equal(error.param, "field");
          assert.match(error.message, reason, name);
          return true;
        });
      }
    }
    assert.deepEqual(await running.masks(new Uint32Array(), 0, WORDS), before);
  });
});

Deno.test("GrammarService gives up grammars that take too long to compile, and takes no new one while two still compile", async () => {
  // Each takes seconds; Deno cannot end a thread in the middle of it.
  const slow = (most: number): GrammarSpec => ({ kind: "gbnf", grammar: `root ::= ([a-z]{1,${most}} "x"){1,100}` });
  const quick = (word: string): GrammarSpec => ({ kind: "gbnf", grammar: `root ::= "${word}"` });
  await withService(async (service) => {
    await service.check(quick("known"));
    for (const most of [200, 201]) {
      await assert.rejects(service.check(slow(most), "grammar"), /Cannot compile the grammar of the answer/);
    }
    await assert.rejects(
      service.check(quick("new")),
      (error: unknown) => error instanceof RequestError && error.code === "queue_full",
    );
    await service.check(quick("known"));
    const deadlineMs = performance.now() + 600_000;
    for (let isTaken = false; !isTaken;) {
      assert.ok(performance.now() < deadlineMs, "the slow grammars still compile");
      await new Promise((resolve) => setTimeout(resolve, 100));
      isTaken = await service.check(quick("new")).then(() => true, () => false);
    }
  }, 1000);
});

Deno.test("GrammarService remembers for a while that a grammar took too long, and tries it again after that", async () => {
  const slow: GrammarSpec = { kind: "gbnf", grammar: `root ::= ([a-z]{1,202} "x"){1,100}` };
  const compileMs = 1000;
  for (const [retryMs, isTriedAgain] of [[60_000, false], [0, true]] as const) {
    const service = new GrammarService({ directory: MODEL_DIRECTORY, compileMs, retryMs });
    await assert.rejects(service.check(slow), /it takes over 1000 ms/);
    const startMs = performance.now();
    await assert.rejects(service.check(slow), /it takes over 1000 ms/);
    assert.equal(performance.now() - startMs >= compileMs, isTriedAgain);
    service.close();
  }
});
