/** What is shown of a recording, and what the person points at. */

/** Changed by the strip, the slider and the list of passages. */
export interface TideSelection {
  /** Position that is pointed at. */
  readonly position: number | undefined;
  /** What the document was last asked to show; a new object each time, as one may ask for the same again. */
  readonly target: { readonly position: number } | undefined;
  /** Index of the row that is looked at; undefined: the newest. */
  readonly row: number | undefined;
  /** Index of the lane; undefined: all. */
  readonly lane: number | undefined;
}
