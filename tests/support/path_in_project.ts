/** Names of files as lint plugins report them. */

/** From the root of the project, where the file lies in it. */
export function pathInProject(filename: string): string {
  const root = new URL("../../", import.meta.url).pathname;
  return filename.startsWith(root) ? filename.slice(root.length) : filename;
}
