/**
 * Random JSON schemas out of the keywords that grammars enforce. Knows keywords; knows
 * nothing of grammars.
 */

import type { Random } from "./random.ts";

type Schema = Record<string, unknown>;

/** A schema at most `depth` levels deep. */
export function randomSchema(random: Random, depth = 3): Schema {
  const makers = depth > 0 ? [...LEAVES, object, object, array, anyOf] : LEAVES;
  return pick(random, makers)(random, depth);
}

const LEAVES: readonly ((random: Random, depth: number) => Schema)[] = [
  () => ({ type: "boolean" }),
  () => ({ type: "null" }),
  (random) => ({
    enum: Array.from({ length: 1 + random.integer(4) }, (_, i) => pick(random, [`v${i}`, i, null, true, { a: i }])),
  }),
  (random) => ({ const: pick(random, ["fixed", 7, false, [1, "x"]]) }),
  (random) => {
    const minLength = random.integer(4);
    return { type: "string", minLength, maxLength: minLength + random.integer(6) };
  },
  (random) => ({
    type: "string",
    pattern: pick(random, ["^[a-z]{2,5}$", "^\\d{3}-\\d{2}$", "^(yes|no)$", ".{2}[^x]{2}\\s\\S"]),
  }),
  (random) => ({ type: "string", format: pick(random, ["date", "time", "uuid", "ipv4"]) }),
  (random) => {
    const minimum = random.integer(100) - 50;
    return { type: "integer", minimum, maximum: minimum + random.integer(1000) };
  },
  (random) => ({ type: "integer", exclusiveMinimum: random.integer(300) - 150 }),
  (random) => ({ type: "number", minimum: 0, maximum: 1 + random.integer(20) }),
  (random) => {
    const minimum = Number((random.uniform() * 40 - 20).toFixed(random.integer(4)));
    return { type: "number", minimum, exclusiveMaximum: minimum + 1 + random.integer(30) };
  },
  (random) => ({ type: ["number", "null"], maximum: random.integer(50) - 25 }),
];

function object(random: Random, depth: number): Schema {
  const names = Array.from(
    { length: 1 + random.integer(4) },
    (_, i) => pick(random, [`key${i}`, `with space ${i}`, `ü${i}`]),
  );
  const properties = Object.fromEntries(names.map((name) => [name, randomSchema(random, depth - 1)]));
  const required = names.filter(() => random.uniform() < 0.6);
  return { type: "object", properties, required, ...(random.uniform() < 0.5 && { additionalProperties: false }) };
}

function array(random: Random, depth: number): Schema {
  const minItems = random.integer(3);
  return { type: "array", items: randomSchema(random, depth - 1), minItems, maxItems: minItems + random.integer(3) };
}

function anyOf(random: Random, depth: number): Schema {
  return { anyOf: Array.from({ length: 2 }, () => randomSchema(random, depth - 1)) };
}

function pick<Item>(random: Random, items: readonly Item[]): Item {
  return items[random.integer(items.length)] as Item;
}
