/**
 * The only importer of the grammar library: compiles specifications for one vocabulary and follows answers token by token.
 * The library aborts its WebAssembly on input it cannot compile, so `CompileError` leaves it unusable: its thread must go.
 */

import Module from "node:module";
import { fileURLToPath } from "node:url";
import type * as Library from "@mlc-ai/web-xgrammar";

import { BoundedNumbers } from "./bounded_numbers.ts";
import type { Utf8Place, Utf8Tokens } from "./utf8_tokens.ts";
import { grammarKey, type GrammarSpec, type JsonSchema } from "./grammar_spec.ts";

/** Compiled grammars that are kept; the one used longest ago goes first. */
const MAX_COMPILED = 64;

/** Whitespace between the parts of a JSON answer: with more freedom, small models write nothing else. */
const WHITESPACE = String.raw`("" | " " | "\n" [ \t]{0,20})`;

/** The library's rule for whitespace; replaced in the grammar that it makes of a schema. */
const MAX_WHITESPACE = 24;
const ANY_SPACE = String.raw`[ \n\t]{0,24}`;

/** The library's switches: texts are encoded as they are, grammars are kept here, schemas were closed before. */
const SPELLING = "byte_level";
const PREPENDS_SPACE = false;
const CACHES = false;
const ANY_WHITESPACE = true;
const ONE_LINE = -1;
const STRICT = false;

/** The library could not compile a specification, in its own words; the engine must not be used any more. */
export class CompileError extends Error {}

/** A vocabulary, and where an answer may end. */
export interface GrammarVocabulary {
  /** By id, byte-level; empty entries are never allowed. */
  readonly tokens: readonly string[];
  readonly stopTokens: readonly number[];
  readonly text: Utf8Tokens;
}

type Compiled = { readonly key: string; readonly grammar: Library.CompiledGrammar };

/** Grammars of one vocabulary. */
export class GrammarEngine {
  readonly #library: typeof Library;
  readonly #complaints: string[];
  readonly #compiler: Library.GrammarCompiler;
  readonly #text: Utf8Tokens;
  readonly #compiled = new Map<string, Compiled>();

  private constructor(
    { library, complaints, compiler, text }: {
      readonly library: typeof Library;
      readonly complaints: string[];
      readonly compiler: Library.GrammarCompiler;
      readonly text: Utf8Tokens;
    },
  ) {
    this.#library = library;
    this.#complaints = complaints;
    this.#compiler = compiler;
    this.#text = text;
  }

  /** Loads the library; takes over `console.error` of its thread, which is the only place where it says what is wrong. */
  static async load({ tokens, stopTokens, text }: GrammarVocabulary): Promise<GrammarEngine> {
    const complaints: string[] = [];
    globalThis.console = { ...console, error: (line: unknown) => complaints.push(String(line)) };
    const library = loadLibrary();
    const info = await library.TokenizerInfo.createTokenizerInfo([...tokens], SPELLING, PREPENDS_SPACE, tokens.length, [
      ...stopTokens,
    ]);
    const compiler = await library.GrammarCompiler.createGrammarCompiler(info, CACHES);
    return new GrammarEngine({ library, complaints, compiler, text });
  }

  /**
   * Starts following an answer; the grammar is compiled, or found among those used lately.
   * @throws {CompileError}
   */
  async matcher(spec: GrammarSpec): Promise<TokenMatcher> {
    const { grammar } = await this.#compile(spec);
    return new TokenMatcher(await this.#library.GrammarMatcher.createGrammarMatcher(grammar), this.#text);
  }

  async #compile(spec: GrammarSpec): Promise<Compiled> {
    const key = grammarKey(spec);
    const known = this.#compiled.get(key);
    this.#compiled.delete(key);
    const compiled = known ?? { key, grammar: await this.#compileNew(spec) };
    this.#compiled.set(key, compiled);
    for (const [oldest, { grammar }] of this.#compiled) {
      if (this.#compiled.size <= MAX_COMPILED) break;
      this.#compiled.delete(oldest);
      grammar.dispose();
    }
    return compiled;
  }

  async #compileNew(spec: GrammarSpec): Promise<Library.CompiledGrammar> {
    this.#complaints.length = 0;
    try {
      const format = await this.#format(spec);
      return await this.#compiler.compileStructuralTag({ type: "structural_tag", format });
    } catch (cause) {
      throw new CompileError(reasonOf(this.#complaints, cause), { cause });
    }
  }

  async #format(spec: GrammarSpec): Promise<Library.StructuralTagFormat> {
    switch (spec.kind) {
      case "json":
        return { type: "grammar", grammar: await this.#jsonGrammar(spec.schema) };
      case "regex":
        return { type: "regex", pattern: spec.pattern };
      case "gbnf":
        return { type: "grammar", grammar: spec.grammar };
      case "any":
        return { type: "any_text" };
      case "choice":
        return { type: "or", elements: spec.texts.map((value) => ({ type: "const_string", value })) };
      case "sequence":
        return { type: "sequence", elements: await this.#formats(spec.parts) };
      case "tag":
        return { type: "tag", begin: spec.begin, content: await this.#format(spec.content), end: spec.end };
      case "triggered":
        return {
          type: "triggered_tags",
          triggers: [spec.trigger],
          tags: await this.#formats(spec.tags) as Library.TagFormat[],
          "at_least_one": spec.required,
          "stop_after_first": spec.single,
        };
      case "list":
        return {
          type: "tags_with_separator",
          separator: spec.separator,
          tags: await this.#formats(spec.tags) as Library.TagFormat[],
          "at_least_one": true,
          "stop_after_first": spec.single,
        };
    }
  }

  async #formats(specs: readonly GrammarSpec[]): Promise<Library.StructuralTagFormat[]> {
    const formats: Library.StructuralTagFormat[] = [];
    for (const spec of specs) formats.push(await this.#format(spec));
    return formats;
  }

  /** The library's JSON part of a structural tag knows no bound for whitespace; its conversion to a grammar does. */
  async #jsonGrammar(schema: JsonSchema): Promise<string> {
    const numbers = new BoundedNumbers();
    const text = JSON.stringify(numbers.marked(schema));
    const convert = this.#library.Testings._jsonSchemaToEBNF;
    const grammar = await convert(text, ANY_WHITESPACE, ONE_LINE, undefined, STRICT, MAX_WHITESPACE);
    const spaced = grammar.replaceAll(String.raw`[ \n\t]*`, ANY_SPACE)
      .replaceAll(`${ANY_SPACE} ":" ${ANY_SPACE}`, '":" (" " | "")')
      .replaceAll(`(= ${ANY_SPACE}`, "(= [ \\n]?")
      .replaceAll(ANY_SPACE, WHITESPACE);
    // Strings with bounds may hold tabs and other control characters, says the library; JSON does not.
    return numbers.filled(spaced.replaceAll(String.raw`[^"\\\r\n]`, String.raw`[^"\\\0-\x1f]`));
  }
}

/** One answer on its way through a grammar. */
export class TokenMatcher {
  readonly #matcher: Library.GrammarMatcher;
  readonly #text: Utf8Tokens;
  /** Where the text is after each token; 0 where it is not valid, which only a vocabulary without bytes comes to. */
  readonly #places: Utf8Place[] = [];

  constructor(matcher: Library.GrammarMatcher, text: Utf8Tokens) {
    this.#matcher = matcher;
    this.#text = text;
  }

  /** Tokens followed so far. */
  get length(): number {
    return this.#places.length;
  }

  /** Forgets all tokens but the first `length`. */
  rollBack(length: number): void {
    const excess = this.#places.length - length;
    if (excess <= 0) return;
    this.#matcher.rollBack(excess);
    this.#places.length = length;
  }

  /** Follows one more token. @returns whether the grammar allows it; if not, nothing has changed */
  accept(token: number): boolean {
    const accepted = !this.#matcher.isTerminated() && this.#matcher.acceptToken(token);
    if (accepted) this.#places.push(this.#text.after(this.#places.at(-1) ?? 0, token) ?? 0);
    return accepted;
  }

  /**
   * A bit for each token that may come next, the lowest first; all zero after the end.
   * @param mask all zero; words beyond the vocabulary stay so
   */
  async mask(mask: Uint32Array): Promise<void> {
    if (this.#matcher.isTerminated()) return;
    const allowed = (await this.#matcher.getNextTokenBitmask()).subarray(0, mask.length);
    const text = this.#text.allowed(this.#places.at(-1) ?? 0);
    let any = 0;
    for (let i = 0; i < allowed.length; i++) any |= mask[i] = (allowed[i] ?? 0) & (text[i] ?? 0);
    // A vocabulary may lack the bytes that would complete a character.
    if (any === 0) mask.set(allowed);
  }

  /** Frees it. */
  close(): void {
    this.#matcher.dispose();
  }
}

/** The package says that it is a module, but its one file is a script: loaded as what it is. */
function loadLibrary(): typeof Library {
  const path = fileURLToPath(import.meta.resolve("@mlc-ai/web-xgrammar"));
  const script = new Module(path) as unknown as { exports: typeof Library; _compile(text: string, path: string): void };
  script._compile(Deno.readTextFileSync(path), path.replace(/\.js$/, ".cjs"));
  return script.exports;
}

/** `[FATAL] /somewhere/x.cc:12: Check failed: (…) is false: Reason` to `Reason`. */
function reasonOf(complaints: readonly string[], cause: unknown): string {
  const fatal = complaints.findLast((line) => line.includes("[FATAL]")) ?? "";
  const reason = /\.(?:cc|h):\d+: (?:Check failed: .*? is (?:false|true): )?(.*)$/s.exec(fatal)?.[1];
  // What it throws from its WebAssembly is a number without a meaning.
  const text = reason ?? (cause instanceof Error ? cause.message : "the grammar library does not take it");
  return text.replaceAll(/\s+/g, " ").slice(0, 300);
}
