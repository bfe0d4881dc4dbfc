// Pages that only need to stay current: deliveries, worklist.
import { get } from "../lib/dom.ts";
import { keepFresh } from "../lib/live.ts";

keepFresh("live", Number(get<HTMLElement>("#live").dataset["refresh"]));
