/**
 * Lint plugin: no file is longer than 300 lines, and no function of a room longer than 40. Tests may be: they are steps in a row,
 * which their names divide.
 */

import { pathInProject } from "./path_in_project.ts";

const FILE_LINES = 300;

const FUNCTION_LINES = 40;

/** What is held to the length of functions, from the root of the project. */
const ROOMS = /^(kernels|engine|workers|router)\/|^mod\.ts$/;

/** Lines that a text stands on; an end of line at its end begins none. */
function lines(text: string): number {
  return text.replace(/\n$/, "").split("\n").length;
}

function checkFunction(context: Deno.lint.RuleContext, node: Deno.lint.Node): void {
  const length = lines(context.sourceCode.getText(node));
  if (length <= FUNCTION_LINES || !ROOMS.test(pathInProject(context.filename))) return;
  context.report({ node, message: `A function has at most ${FUNCTION_LINES} lines, this one has ${length}` });
}

const plugin: Deno.lint.Plugin = {
  name: "tidepool-lengths",
  rules: {
    file: {
      create(context) {
        return {
          Program(node) {
            const length = lines(context.sourceCode.text);
            if (length <= FILE_LINES) return;
            context.report({ node, message: `A file has at most ${FILE_LINES} lines, this one has ${length}` });
          },
        };
      },
    },
    function: {
      create(context) {
        return {
          FunctionDeclaration: (node) => checkFunction(context, node),
          FunctionExpression: (node) => checkFunction(context, node),
          ArrowFunctionExpression: (node) => checkFunction(context, node),
        };
      },
    },
  },
};

export default plugin;
