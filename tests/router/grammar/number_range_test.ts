/** Expressions of bounded numbers, as regular expressions against every number nearby. */

import assert from "node:assert/strict";

import { type NumberBounds, numberRange } from "../../../router/grammar/number_range.ts";
import { Random } from "../../support/random.ts";

/** Expressions consist of literals, classes, counts and alternatives: without spaces and quotes they are patterns. */
function patternOf(bounds: NumberBounds, type: "number" | "integer"): RegExp {
  const expression = numberRange(bounds, type).replaceAll('"."', "[.]").replace(/[" ]/g, "");
  return new RegExp(`^(?:${expression})$`);
}

function isWithin(value: number, { minimum, maximum, exclusiveMinimum, exclusiveMaximum }: NumberBounds): boolean {
  return (minimum === undefined || value >= minimum) && (maximum === undefined || value <= maximum) &&
    (exclusiveMinimum === undefined || value > exclusiveMinimum) &&
    (exclusiveMaximum === undefined || value < exclusiveMaximum);
}

const BOUNDS: readonly NumberBounds[] = [
  { minimum: 0, maximum: 2 },
  { minimum: -3, maximum: 120 },
  { exclusiveMinimum: 5 },
  { exclusiveMaximum: -5 },
  { exclusiveMinimum: 0, exclusiveMaximum: 1 },
  { minimum: -1.5, maximum: 10.25 },
  { minimum: -10.25, maximum: -1.5 },
  { minimum: 99.5 },
  { maximum: 100, exclusiveMaximum: 99 },
  { minimum: 7, maximum: 7 },
  { minimum: -1000, maximum: 1000 },
];

Deno.test("numberRange() takes exactly the integers within its bounds", () => {
  for (const bounds of BOUNDS) {
    if (bounds.exclusiveMaximum === 1) continue; // There is no integer within.
    const pattern = patternOf(bounds, "integer");
    for (let value = -1300; value <= 1300; value++) {
      assert.equal(pattern.test(String(value)), isWithin(value, bounds), `${JSON.stringify(bounds)} ${value}`);
    }
    for (const text of ["-0", "00", "01", "1.0", "", "-", "1e3"]) assert.ok(!pattern.test(text), text);
  }
});

Deno.test("numberRange() takes exactly the decimals within its bounds", () => {
  for (const bounds of BOUNDS) {
    const pattern = patternOf(bounds, "number");
    const written = Array.from({ length: 2600 }, (_, i) => ((i - 1300) / 100).toFixed(i % 4));
    for (const text of [...written, "99.499999", "99.5", "100.000001", "-10.250001", "-1000.0", "999.999999"]) {
      if (text.startsWith("-") && Number(text) === 0) continue;
      assert.equal(pattern.test(text), isWithin(Number(text), bounds), `${JSON.stringify(bounds)} ${text}`);
    }
    for (const text of ["-0", "-0.0", "1.", ".5", "01.5", "1.0000001", "1,5"]) assert.ok(!pattern.test(text), text);
  }
});

Deno.test("numberRange() holds for random bounds with random decimals", () => {
  const random = new Random(11);
  const decimal = () => Number(((random.uniform() - 0.5) * 10 ** random.integer(4)).toFixed(random.integer(5)));
  for (let round = 0; round < 300; round++) {
    const [minimum = 0, maximum = 0] = [decimal(), decimal()].sort((a, b) => a - b);
    const pattern = patternOf({ minimum, maximum }, "number");
    for (let i = 0; i < 40; i++) {
      const at = [minimum, maximum][i % 2] ?? 0;
      const text = String(Number((at + (random.integer(21) - 10) / 10 ** random.integer(6)).toFixed(6)));
      if (text.includes("e") || text === "0" && Object.is(Number(text), -0)) continue;
      assert.equal(
        pattern.test(text),
        isWithin(Number(text), { minimum, maximum }),
        `[${minimum}, ${maximum}] ${text}`,
      );
    }
  }
});

Deno.test("numberRange() refuses bounds that no number keeps, or that cannot be written", () => {
  for (
    const [bounds, type, message] of [
      [{ minimum: 2, exclusiveMaximum: 2 }, "number", /no number is within/],
      [{ minimum: 1.2, maximum: 1.8 }, "integer", /no number is within/],
      [{ minimum: 1e-30 }, "number", /more than 20 decimals/],
      [{ minimum: 1e40 }, "number", /more than 15 digits/],
    ] as const
  ) assert.throws(() => numberRange(bounds, type), { name: "RangeError", message });
  assert.ok(patternOf({ minimum: -1e300, maximum: 1e300 }, "number").test("-123.5"));
  assert.ok(patternOf({ minimum: 1e-7 }, "number").test("0.0000001"));
});
