// Photos beside each other that zoom and move together.
import { bindCommands, setPressed } from "../lib/commands.ts";
import { all, find, get } from "../lib/dom.ts";
import { LaidOver } from "../lib/laid-over.ts";
import { LinkedViewers } from "../lib/linked.ts";
import { arrowOf, fit, openViewer, panBy, showFull, VIEW_KEYS, type Viewer, zoomBy, zoomText } from "../lib/viewer.ts";

const NUDGE = 0.01;
const NUDGES: Record<string, [number, number]> = {
  left: [-NUDGE, 0],
  right: [NUDGE, 0],
  up: [0, -NUDGE],
  down: [0, NUDGE],
};

interface Pane {
  figure: HTMLElement;
  stage: HTMLElement;
  viewer: Viewer;
}

const frame = get<HTMLElement>("#panes");
const said = get("#said");
const zoom = get<HTMLOutputElement>("#zoom");
const panes: Pane[] = all<HTMLElement>(".pane", frame).map((figure) => {
  const stage = get<HTMLElement>(".stage", figure);
  return { figure, stage, viewer: openViewer(stage) };
});
const together = new LinkedViewers(panes.map((pane) => pane.viewer));
let active = 0;
let full = false;

function nudge(index: number, x: number, y: number): void {
  together.nudge(index, x, y);
  tellAlignment();
}

function tellAlignment(): void {
  panes.forEach((pane, index) => {
    get<HTMLButtonElement>('[data-nudge="reset"]', pane.figure).disabled = !together.isAligned(index);
  });
}

function bindPane(pane: Pane): void {
  const here = (): number => panes.indexOf(pane);
  pane.stage.addEventListener("focusin", () => (active = here()));
  pane.stage.addEventListener("pointerdown", () => (active = here()));
  pane.stage.addEventListener("keydown", (event) => {
    const arrow = arrowOf(event.key);
    if (!arrow) return;
    event.preventDefault();
    if (event.shiftKey) nudge(here(), arrow[0] * NUDGE, arrow[1] * NUDGE);
    else panBy(pane.viewer, ...arrow);
  });
  for (const button of all<HTMLButtonElement>("[data-nudge]", pane.figure)) {
    button.addEventListener("click", () => {
      const by = NUDGES[button.dataset["nudge"] ?? ""];
      if (by) nudge(here(), ...by);
      else together.reset(here());
      tellAlignment();
    });
  }
  get<HTMLElement>(".nudge", pane.figure).hidden = false;
  pane.viewer.addHandler("zoom", () => (zoom.value = zoomText(pane.viewer)));
}

/** With the link off, the toolbar moves the pane last touched. */
const current = (): Viewer => panes[active]?.viewer ?? panes[0]!.viewer;

function link(button: HTMLButtonElement | null): void {
  together.setLinked(!together.linked);
  setPressed(button, together.linked);
  said.textContent = together.linked ? "Photos move together" : "Photos move one by one";
  tellAlignment();
}

function swap(): void {
  const [left, right] = panes;
  if (panes.length !== 2 || !left || !right) return;
  frame.append(left.figure);
  panes.reverse();
  together.swap();
  said.textContent = "Sides swapped";
}

async function resolve(button: HTMLButtonElement | null): Promise<void> {
  full = !full;
  setPressed(button, full);
  await Promise.all(panes.map((pane) => showFull(pane.viewer, pane.stage, full)));
}

panes.forEach(bindPane);

const laidOver = find<HTMLElement>("#modes") ? new LaidOver(frame, (text) => (said.textContent = text)) : null;
const shown = (): Viewer => laidOver?.viewer ?? current();

bindCommands(
  get("#tools"),
  {
    in: () => zoomBy(shown(), 1),
    out: () => zoomBy(shown(), -1),
    fit: () => (laidOver?.viewer || together.linked ? [shown()] : panes.map((pane) => pane.viewer)).forEach(fit),
    full: (button) => void resolve(button),
    link,
    swap,
  },
  { ...VIEW_KEYS, l: "link", s: "swap" },
);
