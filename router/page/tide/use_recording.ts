/** Follows a recording, which changes far more often than eyes can: views that use it render ten times a second at most. */

import { useEffect, useReducer } from "preact/hooks";
import type { Recording } from "./recording.ts";

const LOOK_EVERY_MS = 100;

/** Renders the calling component again while the recording changes. @returns its version */
export function useRecording(recording: Recording): number {
  const [, render] = useReducer((count: number, _: void) => count + 1, 0);
  useEffect(() => {
    let seen = recording.version;
    const timer = setInterval(() => {
      if (recording.version === seen) return;
      seen = recording.version;
      render();
    }, LOOK_EVERY_MS);
    return () => clearInterval(timer);
  }, [recording]);
  return recording.version;
}
