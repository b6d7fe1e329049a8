/** Tables as they stand in the documentation, and what their cells hold. */

/** The lines of a table. */
export function markdownTable(columns: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  return [columns, columns.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`);
}

/** A share, from 0 to 1, in percent. */
export function percent(share: number, decimals: number): string {
  return `${(100 * share).toFixed(decimals)} %`;
}
