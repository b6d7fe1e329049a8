/**
 * Answers as formatted text. A model's answer is a stranger's text: HTML in it is shown as it is written, DOMPurify leaves only
 * what formats text of what marked makes, and the page's policy would stop what slips through.
 */

import DOMPurify from "dompurify";
import { Marked } from "marked";
import { useEffect, useRef } from "preact/hooks";
import type { VNode } from "preact";

const ALLOWED_TAGS = [
  ...["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "code", "em", "strong", "del", "a"],
  ...["ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td"],
];

const OPTIONS = {
  ALLOWED_TAGS,
  ALLOWED_ATTR: ["href", "start", "align"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
};

const markdown = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escaped(text),
    // Pictures would be fetched from elsewhere.
    image: ({ text, href }) => escaped(`![${text}](${href})`),
  },
});

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Formats a text into a fragment of the page. */
function formatted(text: string): DocumentFragment {
  const fragment = DOMPurify.sanitize(markdown.parse(text, { async: false }), {
    ...OPTIONS,
    RETURN_DOM_FRAGMENT: true,
  });
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
    // Where it leads shows before it is followed.
    link.title = link.href;
  }
  for (const code of fragment.querySelectorAll("pre")) code.tabIndex = 0;
  return fragment;
}

/** An answer, formatted. */
export function Markdown({ text }: { readonly text: string }): VNode {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => place.current?.replaceChildren(formatted(text)), [text]);
  return <div class="markdown" ref={place} />;
}
