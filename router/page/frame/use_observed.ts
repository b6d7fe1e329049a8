/** Observables in components. */

import { useEffect, useReducer } from "preact/hooks";
import type { Observable } from "./observable.ts";

/** The value of an observable; the calling component renders again with every change. */
export function useObserved<Value>(observable: Observable<Value>): Value {
  const [, render] = useReducer((count: number, _: void) => count + 1, 0);
  useEffect(() => observable.subscribe(() => render()), [observable]);
  return observable.value;
}
