/**
 * JSON numbers within bounds, as an expression of a grammar: digit by digit, so that a bound holds exactly. The library's own
 * expressions let numbers through that exceed their bounds (129 where 120 is the most), and what is no number at all.
 */

/** The keywords that bound a number. */
export const NUMBER_BOUNDS = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"] as const;

/** What they say. */
export interface NumberBounds {
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly exclusiveMaximum?: number;
}

/** Digits before the point of numbers that have no bound there. */
const MAX_DIGITS = 15;

/** Digits after the point, unless a bound has more. */
const FRACTION_DIGITS = 6;

/** Digits after the point that a bound may have. */
const MAX_FRACTION_DIGITS = 20;

const FREE = undefined;

/** A number in units of its last digit. */
type Units = bigint;

/**
 * The expression of all numbers within bounds.
 * @throws {RangeError} with a reason that goes behind "Cannot …: ", when there is none, or bounds are beyond what is written
 */
export function numberRange(bounds: NumberBounds, type: "number" | "integer"): string {
  const given = NUMBER_BOUNDS.flatMap((keyword) => bounds[keyword] ?? []);
  const decimals = given.map((bound) => decimalOf(bound).decimals);
  const digits = type === "integer" ? 0 : Math.max(FRACTION_DIGITS, ...decimals);
  if (digits > MAX_FRACTION_DIGITS) throw new RangeError(`a bound has more than ${MAX_FRACTION_DIGITS} decimals`);
  const [low, high] = unitsOf(bounds, digits);
  const parts: string[] = [];
  if (high === FREE || high >= 0n) parts.push(magnitudes(low !== FREE && low > 0n ? low : 0n, high, digits));
  // Zero has no sign.
  if (low === FREE || low < 0n) {
    const [least, most] = [high !== FREE && high < 0n ? -high : 1n, low === FREE ? FREE : -low];
    parts.push(`"-" ${magnitudes(least, most, digits)}`);
  }
  return either(parts);
}

/** The tightest bounds, both included. */
function unitsOf(
  { minimum, maximum, exclusiveMinimum, exclusiveMaximum }: NumberBounds,
  digits: number,
): readonly [low: Units | undefined, high: Units | undefined] {
  const low = [
    ...(minimum === undefined ? [] : [ceiling(minimum, digits)]),
    ...(exclusiveMinimum === undefined ? [] : [-ceiling(-exclusiveMinimum, digits) + 1n]),
  ].reduce<Units | undefined>((most, one) => most === FREE || one > most ? one : most, FREE);
  const high = [
    ...(maximum === undefined ? [] : [-ceiling(-maximum, digits)]),
    ...(exclusiveMaximum === undefined ? [] : [ceiling(exclusiveMaximum, digits) - 1n]),
  ].reduce<Units | undefined>((least, one) => least === FREE || one < least ? one : least, FREE);
  if (low !== FREE && high !== FREE && low > high) throw new RangeError("no number is within its bounds");
  const limit = 10n ** BigInt(MAX_DIGITS + digits);
  if ((low !== FREE && low >= limit) || (high !== FREE && high <= -limit)) {
    throw new RangeError(`all numbers within its bounds have more than ${MAX_DIGITS} digits`);
  }
  // What is further away is not written anyway.
  return [low !== FREE && low <= -limit ? FREE : low, high !== FREE && high >= limit ? FREE : high];
}

/** The least number of units that is not below a bound. */
function ceiling(bound: number, digits: number): Units {
  const { mantissa, decimals } = decimalOf(bound);
  if (decimals <= digits) return mantissa * 10n ** BigInt(digits - decimals);
  const divisor = 10n ** BigInt(decimals - digits);
  const quotient = mantissa / divisor;
  return quotient + (mantissa > 0n && mantissa % divisor !== 0n ? 1n : 0n);
}

/** Exactly what a number shows: mantissa / 10^decimals. */
function decimalOf(value: number): { readonly mantissa: bigint; readonly decimals: number } {
  const [, sign = "", whole = "0", fraction = "", exponent = "0"] =
    /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(String(value)) ?? [];
  const decimals = fraction.length - Number(exponent);
  const mantissa = BigInt(sign + whole + fraction);
  return decimals >= 0 ? { mantissa, decimals } : { mantissa: mantissa * 10n ** BigInt(-decimals), decimals: 0 };
}

/** Numbers from `low` to `high`, which are not negative. */
function magnitudes(low: Units, high: Units | undefined, digits: number): string {
  const [least, lowFraction] = splitUnits(low, digits);
  if (high === FREE) {
    return either([
      `${literal(least)} ${fraction(lowFraction, FREE, digits)}`,
      `${integers(least + 1n, FREE)} ${fraction(FREE, FREE, digits)}`,
    ]);
  }
  const [most, highFraction] = splitUnits(high, digits);
  if (least === most) return `${literal(least)} ${fraction(lowFraction, highFraction, digits)}`;
  return either([
    `${literal(least)} ${fraction(lowFraction, FREE, digits)}`,
    ...(most - least > 1n ? [`${integers(least + 1n, most - 1n)} ${fraction(FREE, FREE, digits)}`] : []),
    `${literal(most)} ${fraction(FREE, highFraction, digits)}`,
  ]);
}

function splitUnits(units: Units, digits: number): readonly [whole: bigint, fraction: string] {
  const one = 10n ** BigInt(digits);
  return [units / one, String(units % one).padStart(digits, "0").slice(-digits || Infinity)];
}

/** Whole numbers without leading zeros. */
function integers(low: bigint, high: bigint | undefined): string {
  const parts: string[] = [];
  const [shortest, longest] = [String(low).length, high === FREE ? MAX_DIGITS : String(high).length];
  for (let length = shortest; length <= longest; length++) {
    if (high === FREE && length > shortest) {
      parts.push(`[1-9] [0-9]{${length - 1},${MAX_DIGITS - 1}}`);
      break;
    }
    const least = length === shortest ? String(low) : `1${"0".repeat(length - 1)}`;
    const most = high !== FREE && length === longest ? String(high) : "9".repeat(length);
    parts.push(digitsWithin(least, most, { left: length, isWhole: true }));
  }
  return either(parts);
}

/** A point and digits, or nothing where that is within the bounds. */
function fraction(low: string | undefined, high: string | undefined, digits: number): string {
  if (digits === 0) return '""';
  const isOptional = low === FREE || /^0*$/.test(low);
  const written = `"." ${digitsWithin(low, high, { left: digits, isWhole: false, isFirst: true })}`;
  return isOptional ? `("" | ${written})` : `(${written})`;
}

/** Up to `left` digits; what is not written counts as zeros. `isWhole`: all of them are. */
interface DigitPlaces {
  readonly left: number;
  readonly isWhole: boolean;
  /** At least one is. */
  readonly isFirst?: boolean;
}

/** @param low as many digits as are left; undefined: no bound */
function digitsWithin(low: string | undefined, high: string | undefined, places: DigitPlaces): string {
  const { left, isWhole, isFirst = false } = places;
  if (left === 0) return '""';
  if (low === FREE && high === FREE) return `[0-9]{${isWhole ? left : isFirst ? 1 : 0},${left}}`;
  const [first, last] = [Number(low?.[0] ?? 0), Number(high?.[0] ?? 9)];
  const next = { left: left - 1, isWhole };
  const rest = (lower: string | undefined, upper: string | undefined) =>
    digitsWithin(lower?.slice(1), upper?.slice(1), next);
  const parts = !isWhole && !isFirst && (low === FREE || /^0*$/.test(low)) ? ['""'] : [];
  if (first === last) return either([...parts, `[${first}] ${rest(low, high)}`]);
  const from = low === FREE ? first : first + 1;
  const to = high === FREE ? last : last - 1;
  if (low !== FREE) parts.push(`[${first}] ${rest(low, FREE)}`);
  if (from <= to) parts.push(`[${from}-${to}] ${rest(FREE, FREE)}`);
  if (high !== FREE) parts.push(`[${last}] ${rest(FREE, high)}`);
  return either(parts);
}

function literal(whole: bigint): string {
  return `"${whole}"`;
}

function either(parts: readonly string[]): string {
  return parts.length === 1 ? parts[0] ?? "" : `(${parts.join(" | ")})`;
}
