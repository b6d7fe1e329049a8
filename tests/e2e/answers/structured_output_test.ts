/** Structured output on the real service: schemas, patterns, choices and grammars, alone, in company, and checked by a validator. */

import { Ajv2020 } from "ajv/dist/2020.js";
import assert from "node:assert/strict";
import { z } from "zod";
import { zodResponseFormat } from "openai/helpers/zod";

import { gateCases } from "../../support/gate_cases.ts";
import { LiveService } from "../../support/live_service.ts";
import { type Ask, schemaCampaign } from "../../schemas/campaign.ts";

interface Chat {
  readonly choices: readonly { readonly message: { readonly content: string }; readonly finish_reason: string }[];
}

const SCHEMA = {
  type: "object",
  properties: {
    color: { enum: ["red", "green"] },
    count: { type: "integer", minimum: 1, maximum: 99 },
    tags: { type: "array", items: { type: "string", maxLength: 5 }, maxItems: 2 },
  },
  required: ["color", "count", "tags"],
};
const FORMAT = { type: "json_schema", "json_schema": { name: "thing", schema: SCHEMA, strict: true } };
const MESSAGES = [{ role: "user", content: "Describe a thing." }];

function chat(live: LiveService, fields: Record<string, unknown>) {
  return live.ask<Chat>("/v1/chat/completions", { messages: MESSAGES, max_tokens: 120, seed: 4, ...fields });
}

async function answer(live: LiveService, fields: Record<string, unknown>): Promise<string> {
  const { status, body } = await chat(live, fields);
  assert.equal(status, 200, JSON.stringify(body));
  assert.equal(body.choices[0]?.finish_reason, "stop", JSON.stringify(body));
  return body.choices[0]?.message.content ?? "";
}

Deno.test("answers keep to their grammars", async (t) => {
  await using live = await LiveService.start({ kvTokens: 8192 });
  const validate = new Ajv2020({ strict: false }).compile(SCHEMA);
  const isValid = (text: string) => assert.ok(validate(JSON.parse(text)), text);

  await t.step("each of the fields that ask for one", async () => {
    // Together, which takes less time than one after the other.
    const schemas = [
      { response_format: FORMAT },
      { guided_json: SCHEMA },
      { json_schema: SCHEMA, temperature: 0 },
      { structured_outputs: { json: JSON.stringify(SCHEMA) } },
    ];
    const patterns = [
      [{ structured_outputs: { regex: "[a-f]{3}-\\d\\d" } }, /^[a-f]{3}-\d\d$/],
      [{ guided_choice: ["yes", "no"] }, /^(yes|no)$/],
      [{ grammar: 'root ::= "<" [0-9]{2} ">"' }, /^<\d\d>$/],
    ] as const;
    await Promise.all([
      ...schemas.map(async (fields) => isValid(await answer(live, fields))),
      ...patterns.map(async ([fields, pattern]) => assert.match(await answer(live, fields), pattern)),
    ]);
    const { choices } = (await live.ask<{ choices: { text: string; finish_reason: string }[] }>("/v1/completions", {
      prompt: "A thing:",
      n: 3,
      "max_tokens": 120,
      "guided_regex": "(a|b|c){4}",
      logprobs: 2,
    })).body;
    assert.equal(choices.length, 3);
    for (const { text, finish_reason } of choices) assert.match(`${text} ${finish_reason}`, /^[abc]{4} stop$/);
  });

  await t.step("any object", async () => {
    const { body } = await chat(live, { response_format: { type: "json_object" }, max_tokens: 20 });
    assert.match(body.choices[0]?.message.content ?? "", /^\{/);
  });

  await t.step("the same answer alone, again, and in company", async () => {
    const alone = await answer(live, { response_format: FORMAT });
    const company = await Promise.all([
      answer(live, { response_format: FORMAT }),
      chat(live, { max_tokens: 30 }),
      answer(live, { guided_regex: "x{5}", seed: 9 }),
      answer(live, { response_format: FORMAT, seed: 10 }),
    ]);
    assert.equal(company[0], alone);
    assert.equal(company[2], "xxxxx");
    isValid(company[3]);
  });

  await t.step("lossless answers are those of dense decoding, audits are checked under the same masks", async () => {
    const long = { messages: [{ role: "user", content: "word ".repeat(100) }], "response_format": FORMAT };
    const attention = { mode: "sparse", budget: 16, correction: "lossless" };
    const [expected, lossless, audited = ""] = await Promise.all(
      [{ mode: "dense" }, attention, { ...attention, correction: "audit" }].map((attention) =>
        answer(live, { ...long, seed: 5, attention })
      ),
    );
    assert.equal(lossless, expected);
    isValid(audited);
  });

  await t.step("the client's own helpers parse it", async () => {
    const Thing = z.object({ color: z.enum(["red", "green"]), size: z.number().int().min(0).max(9) });
    const completion = await live.client().chat.completions.parse({
      model: live.model.id,
      messages: [{ role: "user", content: "Describe a thing." }],
      "response_format": zodResponseFormat(Thing, "thing"),
      "max_tokens": 100,
    });
    assert.ok(Thing.safeParse(completion.choices[0]?.message.parsed).success);
  });

  await t.step("calls that must be made are made, with valid arguments", async () => {
    const parameters = { type: "object", properties: { city: { enum: ["Oslo", "Rome"] } }, required: ["city"] };
    const tools = ["weather", "time"].map((name) => ({ type: "function" as const, function: { name, parameters } }));
    const named = { type: "function" as const, function: { name: "time" } };
    await Promise.all((["required", named] as const).map(async (choice) => {
      const { choices } = await live.client().chat.completions.create({
        model: live.model.id,
        messages: [{ role: "user", content: "Go" }],
        tools,
        tool_choice: choice,
        parallel_tool_calls: false,
        max_tokens: 100,
      });
      const call = choices[0]?.message.tool_calls?.[0];
      assert.equal(choices[0]?.finish_reason, "tool_calls");
      assert.ok(call?.type === "function" && choices[0]?.message.tool_calls?.length === 1);
      assert.ok(["weather", "time"].includes(call.function.name));
      if (choice === named) assert.equal(call.function.name, "time");
      assert.match(JSON.parse(call.function.arguments).city, /^(Oslo|Rome)$/);
    }));
  });

  await t.step("random schemas, asked for in every way", async () => {
    const count = gateCases(6, 12);
    const options = { count, seed: 5, concurrency: count, maxTokens: 60 };
    const ask: Ask = (path, body) => live.ask(path, body);
    const { finished, failures } = await schemaCampaign(ask, options, { attends: true });
    assert.deepEqual(failures, []);
    assert.ok(finished >= count / 2, `${finished} of ${count} finished`);
  });

  await t.step("what cannot be compiled is refused with its place, and leaves nothing behind", async () => {
    const refused = async (fields: Record<string, unknown>, param: string, message: RegExp) => {
      const { status, body } = await live.ask<{ error: { param: string; message: string } }>("/v1/chat/completions", {
        messages: MESSAGES,
        ...fields,
      });
      assert.equal(status, 400, JSON.stringify(body));
      assert.equal(body.error.param, param);
      assert.match(body.error.message, message);
    };
    await refused({ guided_json: { properties: { a: { type: "x" } } } }, "guided_json", /at #\/properties\/a\/type/);
    await refused({ guided_regex: "(?=a)" }, "guided_regex", /Lookahead/);
    await refused({ grammar: "root ::= missing" }, "grammar", /missing/);
    await refused({ guided_regex: "a", guided_choice: ["b"] }, "guided_choice", /guided_regex says/);
    await refused({ response_format: { type: "xml" } }, "response_format.type", /expected/);
    await live.idle(30_000);
  });
});
