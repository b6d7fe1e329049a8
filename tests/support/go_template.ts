/**
 * The part of Go's templates that the Helm chart is written in: pipelines, `if`, `with`, `range`, `define` and a dozen
 * functions. Refuses everything else, so that the chart stays within it. Knows text and values; knows no Kubernetes.
 */

import { stringify } from "yaml";

/** Anything a template can hold. */
export type Value = string | number | boolean | undefined | null | readonly Value[] | {
  readonly [name: string]: Value;
};

type Node =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "output"; readonly pipeline: string }
  | {
    readonly kind: "block";
    readonly word: string;
    readonly pipeline: string;
    readonly body: Node[];
    otherwise: Node[];
  };

interface Scope {
  readonly dot: Value;
  readonly variables: ReadonlyMap<string, Value>;
}

/** Templates that call each other. */
export class Templates {
  readonly #defined = new Map<string, Node[]>();

  /** Reads a file; what it defines can be used by all. @returns what it renders to, given the root */
  read(text: string): (root: Value) => string {
    const nodes = this.#parse(text);
    return (root) => this.#render(nodes, { dot: root, variables: new Map([["$", root]]) });
  }

  #parse(text: string): Node[] {
    const root: Node[] = [];
    const open: {
      readonly word: string;
      readonly name: string;
      into: Node[];
      readonly node?: Node;
      readonly isElse: boolean;
    }[] = [
      { word: "file", name: "", into: root, isElse: false },
    ];
    let at = 0;
    for (const match of text.matchAll(/\{\{(-?)\s*((?:"(?:\\.|[^"\\])*"|[^}"])*?)\s*(-?)\}\}/g)) {
      const [whole, left, action = "", right] = match;
      let before = text.slice(at, match.index);
      if (left === "-") before = before.trimEnd();
      at = match.index + whole.length;
      if (right === "-") at += (/^\s*/.exec(text.slice(at)) ?? [""])[0].length;
      const top = open.at(-1) ?? fail("nothing is open");
      top.into.push({ kind: "text", text: before });
      this.#take(action, open);
    }
    open.at(-1)?.into.push({ kind: "text", text: text.slice(at) });
    if (open.length !== 1) fail(`${open.at(-1)?.word} has no end`);
    return root;
  }

  #take(action: string, open: { word: string; name: string; into: Node[]; node?: Node; isElse: boolean }[]): void {
    const [, word = "", rest = ""] = /^(define|if|with|range|else if|else|end)\b\s*(.*)$/s.exec(action) ?? [];
    const top = open.at(-1) ?? fail("nothing is open");
    if (word === "") return void top.into.push({ kind: "output", pipeline: action });
    if (word === "define") {
      const body: Node[] = [];
      this.#defined.set(String(JSON.parse(rest)), body);
      return void open.push({ word, name: rest, into: body, isElse: false });
    }
    if (word === "end") {
      // Each `else if` has opened one more.
      while (open.pop()?.isElse) continue;
      return;
    }
    if (word === "else if" || word === "else") {
      if (top.node?.kind !== "block") fail(`${action} stands alone`);
      if (word === "else") return void (top.into = top.node.otherwise);
    }
    const node: Node = { kind: "block", word: word.replace("else ", ""), pipeline: rest, body: [], otherwise: [] };
    (word === "else if" && top.node?.kind === "block" ? top.node.otherwise : top.into).push(node);
    open.push({ word, name: rest, into: node.body, node, isElse: word === "else if" });
  }

  #render(nodes: readonly Node[], scope: Scope): string {
    return nodes.map((node) => {
      if (node.kind === "text") return node.text;
      if (node.kind === "output") return shown(this.#evaluate(node.pipeline, scope));
      return this.#block(node, scope);
    }).join("");
  }

  #block({ word, pipeline, body, otherwise }: Extract<Node, { kind: "block" }>, scope: Scope): string {
    const [, name, source = pipeline] = /^(\$\w+)\s*:=\s*(.*)$/s.exec(pipeline) ?? [];
    const value = this.#evaluate(source, scope);
    if (word === "range") {
      if (!Array.isArray(value)) fail(`range needs a list: ${pipeline}`);
      const each = value.map((dot: Value) => this.#render(body, within(scope, dot, name)));
      return each.length > 0 ? each.join("") : this.#render(otherwise, scope);
    }
    if (!isTrue(value)) return this.#render(otherwise, scope);
    return this.#render(body, word === "with" ? within(scope, value, name) : scope);
  }

  /** A pipeline: the value of each command is the last argument of the next. */
  #evaluate(pipeline: string, scope: Scope): Value {
    const tokens = pipeline.match(/"(?:\\.|[^"\\])*"|[()|]|[^\s()|"]+/g) ?? fail("an action is empty");
    let at = 0;
    const term = (): Value => {
      const token = tokens[at++] ?? fail(`too short: ${pipeline}`);
      if (token !== "(") return this.#term(token, scope);
      const value = pipe();
      if (tokens[at++] !== ")") fail(`no closing parenthesis: ${pipeline}`);
      return value;
    };
    const command = (piped: readonly Value[]): Value => {
      const name = tokens[at] ?? fail(`too short: ${pipeline}`);
      if (!/^[a-z]\w*$/i.test(name)) return piped.length === 0 ? term() : fail(`${name} is no function`);
      at++;
      const args: Value[] = [];
      while (at < tokens.length && tokens[at] !== "|" && tokens[at] !== ")") args.push(term());
      return this.#call(name, [...args, ...piped]);
    };
    const pipe = (): Value => {
      let value = command([]);
      while (tokens[at] === "|") {
        at++;
        value = command([value]);
      }
      return value;
    };
    const value = pipe();
    return at === tokens.length ? value : fail(`cannot read ${tokens[at]} in ${pipeline}`);
  }

  #term(token: string, { dot, variables }: Scope): Value {
    if (token.startsWith('"')) return JSON.parse(token);
    if (/^-?\d+$/.test(token)) return Number(token);
    const [, variable = "", path = ""] = /^(\$\w*)?((?:\.\w*)+)?$/.exec(token) ?? fail(`cannot read ${token}`);
    const names = path.split(".").filter((name) => name !== "");
    const start = variable === "" ? dot : variables.has(variable) ? variables.get(variable) : fail(`no ${variable}`);
    return names.reduce<Value>((value, name) => {
      if (typeof value !== "object" || value === null || Array.isArray(value)) return fail(`${token}: no ${name}`);
      const fields = value as { readonly [name: string]: Value };
      return Object.hasOwn(fields, name) ? fields[name] : fail(`${token}: values.yaml does not know ${name}`);
    }, start);
  }

  #call(name: string, args: readonly Value[]): Value {
    if (name !== "include") return (FUNCTIONS[name] ?? fail(`${name} is no function known here`))(...args);
    const [template, dot] = args;
    const nodes = this.#defined.get(String(template)) ?? fail(`${template} is not defined`);
    return this.#render(nodes, { dot, variables: new Map([["$", dot]]) });
  }
}

const FUNCTIONS: Readonly<Record<string, (...args: readonly Value[]) => Value>> = {
  add: (...args) => args.reduce<number>((sum, value) => sum + Number(value), 0),
  mul: (...args) => args.reduce<number>((product, value) => product * Number(value), 1),
  int: (value) => Math.trunc(Number(value)),
  until: (count) => Array.from({ length: Number(count) }, (_, i) => i),
  default: (fallback, value) => isTrue(value) ? value : fallback,
  required: (message, value) => isTrue(value) ? value : fail(String(message)),
  eq: (a, b) => a === b,
  ne: (a, b) => a !== b,
  not: (value) => !isTrue(value),
  or: (...args) => args.find(isTrue) ?? args.at(-1),
  quote: (value) => JSON.stringify(shown(value)),
  trunc: (length, text) => shown(text).slice(0, Number(length)),
  trimSuffix: (suffix, text) => {
    const [whole, end] = [shown(text), shown(suffix)];
    return whole.endsWith(end) ? whole.slice(0, whole.length - end.length) : whole;
  },
  toYaml: (value) => stringify(value, { lineWidth: 0 }).trimEnd(),
  nindent: (spaces, text) => `\n${shown(text).replaceAll(/^/gm, " ".repeat(Number(spaces)))}`,
};

function within({ variables }: Scope, dot: Value, name: string | undefined): Scope {
  return { dot, variables: name === undefined ? variables : new Map([...variables, [name, dot]]) };
}

/** As Go's templates have it: empty is false. */
function isTrue(value: Value): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === "object" && value !== null) return Object.keys(value).length > 0;
  return Boolean(value);
}

function shown(value: Value): string {
  if (typeof value === "object" && value !== null) return fail("a list or a map is no text");
  return value === undefined || value === null ? "" : String(value);
}

function fail(reason: string): never {
  throw new Error(`Cannot render template: ${reason}`);
}
