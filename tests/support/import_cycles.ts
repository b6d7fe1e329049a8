/** Circles of imports, those of types included, from what `deno info --json` says of a module graph. */

/** The part of `deno info --json` that is read here. */
export interface ModuleGraph {
  readonly modules: readonly {
    readonly specifier: string;
    readonly dependencies?: readonly {
      readonly isDynamic?: boolean;
      /** Absent for `import type`. */
      readonly code?: { readonly specifier?: string };
      /** Of `import type`, and where types come from another file than the code. */
      readonly type?: { readonly specifier?: string };
    }[];
  }[];
}

/** The modules of one circle, its first one again at the end; undefined when there is none. Dynamic imports do not count. */
export function findImportCycle(graph: ModuleGraph): readonly string[] | undefined {
  const imports = new Map(graph.modules.map(({ specifier, dependencies = [] }) => [
    specifier,
    dependencies.filter(({ isDynamic }) => isDynamic !== true)
      .flatMap(({ code, type }) => [code?.specifier, type?.specifier])
      .filter((imported) => imported !== undefined),
  ]));
  const acyclic = new Set<string>();
  const path: string[] = [];
  const visit = (module: string): readonly string[] | undefined => {
    if (acyclic.has(module)) return undefined;
    const start = path.indexOf(module);
    if (start >= 0) return [...path.slice(start), module];
    path.push(module);
    for (const imported of imports.get(module) ?? []) {
      const cycle = visit(imported);
      if (cycle !== undefined) return cycle;
    }
    path.pop();
    acyclic.add(module);
    return undefined;
  };
  for (const module of imports.keys()) {
    const cycle = visit(module);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}
