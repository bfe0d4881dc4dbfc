// Saving how a comparison is looked at, and looking at a saved one in the same way again.
import { all, find, get } from "./dom.ts";
import { type LinkedViewers, show, viewOf } from "./linked.ts";
import type { Pane } from "./loupe.ts";
import type { Viewer } from "./viewer.ts";

/** As the server keeps it: x and y are shares of the reference's width, photos are counted from 1. */
interface Kept {
  mode: string;
  zoom: number;
  x?: number;
  y?: number;
  blend: number;
  linked: boolean;
  reference: number;
  other?: number;
  speed?: number; // of blinking
  colours: boolean; // by the cards
  hands?: number[]; // of LinkedViewers
}

/** What the comparison page lends for it. */
export interface Looking {
  panes: Pane[];
  together: LinkedViewers;
  viewer: () => Viewer; // in use: of the overlay, else of the reference
  chosen: () => { reference: Pane; other: Pane };
  choose: (reference: Pane, other: Pane) => void;
  link: () => void;
  inColours: () => boolean;
  colour: () => void;
  moved: () => void; // by hand
  told: () => string; // the id of the comparison whose verdict is shown, or nothing
}

const wholeSize = (viewer: Viewer): number => viewer.viewport.getHomeZoom() * viewer.viewport.getContainerSize().x;
const modeButton = (mode: string) => find<HTMLButtonElement>(`#modes [data-do="${CSS.escape(mode)}"]`);

function present({ panes, together, viewer, chosen, inColours }: Looking): Kept {
  const { x, y, size } = viewOf(viewer());
  const { reference, other } = chosen();
  return {
    mode: find<HTMLElement>('#modes [aria-pressed="true"]')?.dataset["do"] ?? "side",
    zoom: size / wholeSize(viewer()),
    x,
    y,
    blend: get<HTMLInputElement>("#share").valueAsNumber / 100,
    linked: together.linked,
    reference: panes.indexOf(reference) + 1,
    other: panes.indexOf(other) + 1,
    speed: get<HTMLInputElement>("#blink-speed").valueAsNumber,
    colours: inColours(),
    hands: together.hands,
  };
}

function fill(form: HTMLFormElement, looking: Looking): void {
  const rounded = (value: number) => (Number.isFinite(value) ? `${+value.toFixed(6)}` : ""); // a hidden photo has no size
  for (const [name, value] of Object.entries(present(looking))) {
    const said = [value].flat().map((one) => (typeof one === "number" ? rounded(one) : String(one)));
    get<HTMLInputElement>(`input[name="${name}"]`, form).value = said.every(Boolean) ? said.join(" ") : "";
  }
  get<HTMLInputElement>('input[name="comparison"]', form).value = looking.told();
  const fields = new Map(all<HTMLElement>("[data-id]", form).map((one) => [one.dataset["id"], one]));
  form.prepend(...looking.panes.flatMap(({ figure }) => fields.get(figure.dataset["id"]) ?? [])); // sides may be swapped
}

function lookAt(viewer: Viewer, { x, y, zoom }: Kept): void {
  const look = (): void => {
    if (x !== undefined && y !== undefined) show(viewer, { x, y, size: zoom * wholeSize(viewer), turn: 0 }, true);
  };
  if (viewer.isOpen()) look();
  else viewer.addOnceHandler("open", () => requestAnimationFrame(look)); // after the page's own handlers
}

/** A mode that lays photos over each other can be shown once the two are aligned. */
function whenEnabled(button: HTMLButtonElement, act: () => void): void {
  if (!button.disabled) return act();
  const watcher = new MutationObserver(() => {
    if (button.disabled) return;
    watcher.disconnect();
    act();
  });
  watcher.observe(button, { attributeFilter: ["disabled"] });
}

const opened = ({ viewer }: Pane): Promise<void> =>
  new Promise((resolve) => {
    if (viewer.isOpen()) resolve();
    else viewer.addOnceHandler("open", () => requestAnimationFrame(() => resolve())); // after the page's own handlers
  });

async function reopen(kept: Kept, looking: Looking): Promise<void> {
  const [reference, other] = [looking.panes[kept.reference - 1], looking.panes[(kept.other ?? looking.panes.length) - 1]];
  if (reference && other) looking.choose(reference, other);
  get<HTMLInputElement>("#share").value = String(Math.round(kept.blend * 100));
  if (kept.speed) get<HTMLInputElement>("#blink-speed").value = String(kept.speed);
  await Promise.all(looking.panes.map(opened));
  const button = modeButton(kept.mode);
  const isSide = kept.mode === "side" || !button;
  if (isSide) lookAt(looking.viewer(), kept);
  if (kept.linked !== looking.together.linked) looking.link();
  looking.together.hands = kept.hands ?? [];
  looking.moved();
  if (kept.colours) looking.colour();
  if (isSide) return;
  whenEnabled(button, () => {
    button.click();
    lookAt(looking.viewer(), kept);
  });
}

/** To be called before the photos are aligned to their reference. */
export function bindKept(looking: Looking): void {
  const form = find<HTMLFormElement>("#keep");
  form?.addEventListener("submit", () => fill(form, looking));
  const kept = find<HTMLElement>("#kept")?.dataset["view"];
  if (kept) void reopen(JSON.parse(kept) as Kept, looking);
}
