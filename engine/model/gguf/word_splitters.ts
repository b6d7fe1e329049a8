/**
 * How texts are split into words before byte-pair encoding, by the names that GGUF files give it: the patterns of the
 * models' own tokenizers.
 */

/** One way to split. */
export interface WordSplitter {
  /** Pre-tokenizers of a `tokenizer.json`. */
  readonly steps: readonly unknown[];
  /** Whether a word that is in the vocabulary is one token, whatever the merges say. */
  readonly knowsWholeWords: boolean;
  /** Whether a text begins with a token of its own, unless the file says otherwise. */
  readonly addsFirstToken: boolean;
}

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const GPT2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
const REST = String.raw` ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const UPPER = String.raw`\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}`;
const LOWER = String.raw`\p{Ll}\p{Lm}\p{Lo}\p{M}`;

function split(pattern: string): unknown {
  return { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false };
}

const LLAMA3: WordSplitter = {
  steps: [split(String.raw`${CONTRACTIONS}|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|${REST}`)],
  knowsWholeWords: true,
  addsFirstToken: true,
};

const QWEN2: WordSplitter = {
  steps: [split(String.raw`${CONTRACTIONS}|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|${REST}`)],
  knowsWholeWords: false,
  addsFirstToken: false,
};

/** By name. */
export const WORD_SPLITTERS: Readonly<Record<string, WordSplitter>> = {
  "llama-bpe": LLAMA3,
  "llama-v3": LLAMA3,
  llama3: LLAMA3,
  qwen2: QWEN2,
  "deepseek-r1-qwen": QWEN2,
  // Phi-4's and OLMo 2's: split like Llama 3's, merged like others.
  dbrx: { ...LLAMA3, knowsWholeWords: false, addsFirstToken: false },
  "gpt-2": { steps: [split(GPT2)], knowsWholeWords: false, addsFirstToken: false },
  smollm: {
    steps: [{ type: "Digits", "individual_digits": true }, split(GPT2)],
    knowsWholeWords: false,
    addsFirstToken: false,
  },
  tekken: {
    steps: [
      split(
        String.raw`[^\r\n\p{L}\p{N}]?[${UPPER}]*[${LOWER}]+|[^\r\n\p{L}\p{N}]?[${UPPER}]+[${LOWER}]*|\p{N}|` +
          String.raw` ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
      ),
    ],
    knowsWholeWords: true,
    addsFirstToken: true,
  },
};
