import assert from "node:assert/strict";

import { STYLES, TextStyle } from "../../../../router/commands/chat/text_style.ts";

const { plain, strong, code } = STYLES;

const CASES: readonly (readonly [text: string, styled: string])[] = [
  ["just text", "just text"],
  ["# Title\ntext", `# ${strong}Title${plain}\ntext`],
  ["#hash", "#hash"],
  ["a **b** c", `a **${strong}b**${plain} c`],
  ["a `b*c*` d", `a \`${code}b*c*\`${plain} d`],
  ["2 ** 3\nnext", `2 **${strong} 3${plain}\nnext`],
  ["```ts\nlet a = `**`;\n```\nend", `\`\`\`ts\n${code}let a = \`**\`;\n\`\`\`${plain}\nend`],
  ["## a `b` c", `## ${strong}a \`${code}b\`${plain}${strong} c${plain}`],
  ["`a` b", `\`${code}a\`${plain} b`],
  ["``", "``"],
  ["```\nopen", `\`\`\`\n${code}open${plain}`],
];

Deno.test("TextStyle styles Markdown in every cut, and changes nothing of the text", () => {
  for (const [text, styled] of CASES) {
    for (let cut = 0; cut <= text.length; cut++) {
      const style = new TextStyle();
      const shown = style.push(text.slice(0, cut)) + style.push(text.slice(cut)) + style.end();
      assert.equal(shown, styled, `${JSON.stringify(text)} cut at ${cut}`);
    }
    assert.equal([plain, strong, code].reduce((rest, one) => rest.replaceAll(one, ""), styled), text);
  }
});
