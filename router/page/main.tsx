/** The page begins here. */

import "./page.css";

import { render } from "preact";
import { Page } from "./frame/page.tsx";
import { PageState } from "./frame/page_state.ts";

const place = document.getElementById("page");
if (place !== null) render(<Page state={new PageState()} />, place);
