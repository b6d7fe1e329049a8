/** Components that render again only when one of their properties changed. */

import { Component, type ComponentChild, type FunctionComponent, h } from "preact";

/** Wraps a component of plain properties. */
export function memo<Props extends object>(component: FunctionComponent<Props>): FunctionComponent<Props> {
  class Memo extends Component<Props> {
    override shouldComponentUpdate(next: Readonly<Props>): boolean {
      const [before, after] = [Object.entries(this.props), next as Readonly<Record<string, unknown>>];
      return before.some(([name, value]) => after[name] !== value);
    }

    override render(): ComponentChild {
      return h(component, this.props as Props);
    }
  }
  return (props) => h(Memo, props);
}
