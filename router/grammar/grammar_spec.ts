/**
 * What an answer must look like, as plain data: a tree of texts, patterns and schemas that crosses threads as it is.
 * Made by the request parsers from whatever a client sent; compiled by `xgrammar.ts`.
 */

/** A JSON schema within the supported keywords, as `normalizeSchema` leaves it. */
export type JsonSchema = boolean | { readonly [keyword: string]: unknown };

/** A piece of an answer between two fixed texts. */
export interface TaggedGrammar {
  readonly kind: "tag";
  readonly begin: string;
  readonly content: GrammarSpec;
  readonly end: string;
}

/** The form of an answer or of a part of it. */
export type GrammarSpec =
  | { readonly kind: "json"; readonly schema: JsonSchema }
  | { readonly kind: "regex"; readonly pattern: string }
  /** A grammar in GBNF, whose first rule is `root`. */
  | { readonly kind: "gbnf"; readonly grammar: string }
  | { readonly kind: "choice"; readonly texts: readonly string[] }
  /** Anything, up to the text that follows. */
  | { readonly kind: "any" }
  | { readonly kind: "sequence"; readonly parts: readonly GrammarSpec[] }
  | TaggedGrammar
  /** Free text in which a tag must be completed once its trigger has been written. */
  | {
    readonly kind: "triggered";
    readonly trigger: string;
    readonly tags: readonly TaggedGrammar[];
    /** The answer consists of tags alone, at least one. */
    readonly required: boolean;
    /** The answer ends after the first tag. */
    readonly single: boolean;
  }
  /** One or more tags with a text between them and nothing else. */
  | {
    readonly kind: "list";
    readonly tags: readonly TaggedGrammar[];
    readonly separator: string;
    readonly single: boolean;
  };

/** Equal for equal specifications. */
export function grammarKey(spec: GrammarSpec): string {
  return JSON.stringify(spec);
}
