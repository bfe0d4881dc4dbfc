// Photos beside each other that show the same place together, each as the server has aligned it to the reference.
import { alignByHand, compare, offer, takeBack, tell, tellProblem } from "../lib/aligning.ts";
import { CardColours } from "../lib/card-colours.ts";
import { bindCommands, setPressed } from "../lib/commands.ts";
import { all, find, get, isTyping } from "../lib/dom.ts";
import { bindStrip } from "../lib/filmstrip.ts";
import { bindKept } from "../lib/kept.ts";
import { askPicture } from "../lib/http.ts";
import { LaidOver } from "../lib/laid-over.ts";
import { LinkedViewers } from "../lib/linked.ts";
import { Loupe, type Pane } from "../lib/loupe.ts";
import { Marking } from "../lib/marking.ts";
import type { Comparison } from "../lib/overlay.ts";
import { SkinMap } from "../lib/skin-map.ts";
import { arrowOf, fit, openViewer, panBy, showPixels, VIEW_KEYS, type Viewer, zoomBy, zoomText } from "../lib/viewer.ts";

const NUDGE = 0.01;
const NUDGES: Record<string, [number, number]> = {
  left: [-NUDGE, 0],
  right: [NUDGE, 0],
  up: [0, -NUDGE],
  down: [0, NUDGE],
};

const frame = get<HTMLElement>("#panes");
const zoom = get<HTMLOutputElement>("#zoom");
const say = (text: string): void => void (get("#said").textContent = text);
const panes: Pane[] = all<HTMLElement>(".pane", frame).map((figure) => {
  const stage = get<HTMLElement>(".stage", figure);
  return { figure, stage, viewer: openViewer(stage) };
});
const together = new LinkedViewers(panes.map((pane) => pane.viewer));
const loupe = new Loupe(panes, together);
const found = new Map<Pane, Comparison>();
const idOf = (pane: Pane): string => pane.figure.dataset["id"] ?? "";
const dayOf = (pane: Pane): string => pane.figure.dataset["day"] ?? "";
let active = panes[0]!;
let reference = panes[0]!;
let other = panes.at(-1)!; // what is laid over the reference
let marking: Marking | null = null;
const colours = new Map(panes.map((pane) => [pane, new CardColours(pane.viewer, `/photos/${idOf(pane)}`)]));

// --- aligned to the reference --------------------------------------------------------------------------------------

function learn(pane: Pane, said: Comparison): void {
  found.set(pane, said);
  together.setMap(panes.indexOf(pane), said.lattice ? new SkinMap(said.lattice) : null);
  tell(get(".pane-verdict", pane.figure), said);
  offer(pane.figure, said, false);
  if (pane === other) layOver();
}

async function ask(pane: Pane, of: Pane): Promise<void> {
  tell(get(".pane-verdict", pane.figure), null);
  offer(pane.figure, null, false);
  try {
    const said = await compare(idOf(of), idOf(pane));
    if (of === reference) learn(pane, said);
  } catch (error) {
    if (of === reference) tellProblem(get(".pane-verdict", pane.figure), error, () => void ask(pane, of).then(summarise));
  }
}

function refer(pane: Pane): void {
  reference = pane;
  found.clear();
  together.setReference(panes.indexOf(pane));
  for (const one of panes) one.figure.classList.toggle("is-reference", one === pane && panes.length > 2);
  get(".pane-verdict", pane.figure).replaceChildren();
  offer(pane.figure, null, true);
  if (other === pane) other = panes.find((one) => one !== pane) ?? pane;
  layOver();
  void Promise.all(panes.filter((one) => one !== pane).map((one) => ask(one, pane))).then(summarise);
}

function summarise(): void {
  const aligned = [...found.values()].filter((one) => one.verdict === "aligned").length;
  const only = found.get(other);
  const where = get<HTMLElement>("#verdict");
  if (panes.length === 2) tell(where, only ?? "The photos were not compared; see below");
  else where.textContent = `${aligned} of ${panes.length - 1} aligned to ${dayOf(reference)}`;
}

function layOver(): void {
  const said = found.get(other);
  if (!laidOver) return;
  const inCardColours = () => cardColours(reference, other, said?.pictures.normalised ?? "");
  laidOver.laid = said ? { reference: reference.figure, other: other.figure, found: said, inCardColours } : null;
}

/** The reference as its card tells, and the other as its own does, aligned. */
function cardColours(below: Pane, above: Pane, aligned: string): Promise<[string, string]> {
  const of = (pane: Pane, asked: Promise<string>): Promise<string> =>
    asked.catch((error: Error) => Promise.reject(new Error(`${dayOf(pane)}: ${error.message}`)));
  return Promise.all([of(below, colours.get(below)!.picture()), of(above, askPicture(aligned))]);
}

// --- by hand -------------------------------------------------------------------------------------------------------

function mark(pane: Pane): void {
  if (marking || pane === reference || !find("[data-mark]", pane.figure)) return;
  laidOver?.show("side");
  if (together.linked) link();
  for (const one of panes) one.figure.hidden = one !== pane && one !== reference;
  marking = new Marking([reference, pane], (points) => {
    marking = null;
    for (const one of panes) one.figure.hidden = false;
    if (!together.linked) link();
    if (points) void change(pane, alignByHand(idOf(reference), idOf(pane), points));
    else together.reset(panes.indexOf(pane));
  });
  reference.stage.focus();
}

async function change(pane: Pane, asked: Promise<Comparison>): Promise<void> {
  const [of, verdict] = [reference, get<HTMLElement>(".pane-verdict", pane.figure)];
  tell(verdict, null);
  try {
    const said = await asked;
    if (of !== reference) return; // another was chosen since, and all were asked how they lie on that
    learn(pane, said);
    summarise();
  } catch (error) {
    if (of === reference) tell(verdict, error instanceof Error ? error.message : "These points could not be used.");
  }
}

function nudge(pane: Pane, x: number, y: number): void {
  together.nudge(panes.indexOf(pane), x, y);
  tellMoved();
}

function tellMoved(): void {
  panes.forEach(({ figure }, index) => {
    const reset = find<HTMLButtonElement>('[data-nudge="reset"]', figure);
    if (reset) reset.disabled = !together.isMoved(index);
  });
}

function bindPane(pane: Pane): void {
  const { figure, stage, viewer } = pane;
  const choose = (): void => {
    active = pane;
    if (pane === reference || pane === other || panes.length === 2) return;
    other = pane;
    layOver();
  };
  stage.addEventListener("focusin", choose);
  stage.addEventListener("pointerdown", choose);
  stage.addEventListener("keydown", (event) => {
    const arrow = arrowOf(event.key);
    if (!arrow) return;
    event.preventDefault();
    if (event.shiftKey) nudge(pane, arrow[0] * NUDGE, arrow[1] * NUDGE);
    else panBy(viewer, ...arrow);
  });
  for (const button of all<HTMLButtonElement>("[data-nudge]", figure)) {
    button.addEventListener("click", () => {
      const by = NUDGES[button.dataset["nudge"] ?? ""];
      if (by) nudge(pane, ...by);
      else together.reset(panes.indexOf(pane));
      tellMoved();
    });
  }
  find("[data-reference]", figure)?.addEventListener("click", () => refer(pane));
  find("[data-mark]", figure)?.addEventListener("click", () => mark(pane));
  find("[data-take-back]", figure)?.addEventListener("click", () => {
    void change(pane, takeBack(idOf(reference), idOf(pane)));
  });
  viewer.addHandler("zoom", tellZoom);
}

// --- commands ------------------------------------------------------------------------------------------------------

function link(): void {
  together.setLinked(!together.linked);
  setPressed(find('#tools [data-do="link"]'), together.linked);
  say(together.linked ? "Photos move together" : "Photos move one by one");
  tellMoved();
}

function swap(): void {
  const [left, right] = panes;
  if (panes.length !== 2 || !left || !right) return;
  frame.append(left.figure);
  panes.reverse();
  together.swap();
  say("Sides swapped");
}

/** Of the reference while all move together, since the others are scaled to it. */
function tellZoom(): void {
  zoom.value = zoomText(laidOver?.viewer ?? (together.linked ? reference : active).viewer);
}

function magnify(on: boolean): void {
  if (laidOver?.viewer) return;
  loupe.set(on, active);
  setPressed(find('#tools [data-do="loupe"]'), on);
}

const inColours = (): boolean => [...colours.values()].some((one) => one.on);

async function colour(): Promise<void> {
  const wanted = !inColours();
  setPressed(find('#tools [data-do="colours"]'), wanted);
  if (laidOver) laidOver.byCard = wanted;
  await Promise.all(
    [...colours].map(async ([pane, one]) => {
      const said = get(".pane-colours", pane.figure);
      said.textContent = "";
      if (!wanted) return one.hide();
      try {
        await one.show();
        said.textContent = "Colours by the card";
      } catch (error) {
        said.textContent = error instanceof Error ? error.message : "The colours could not be shown.";
      }
    }),
  );
  setPressed(find('#tools [data-do="colours"]'), inColours());
}

function enlarge(): void {
  const done = document.fullscreenElement ? document.exitFullscreen() : get("#main").requestFullscreen();
  done.catch(() => say("The page around this one does not allow full screen."));
}

panes.forEach(bindPane);
const laidOver = find<HTMLElement>("#modes") ? new LaidOver(frame, say, tellZoom) : null;
const shown = (): Viewer => laidOver?.viewer ?? active.viewer;
const help = get<HTMLElement>("#help");

bindCommands(
  get("#tools"),
  {
    in: () => zoomBy(shown(), 1),
    out: () => zoomBy(shown(), -1),
    fit: () => (laidOver?.viewer || together.linked ? [shown()] : panes.map((pane) => pane.viewer)).forEach(fit),
    pixels: () => showPixels(shown(), Number((laidOver?.viewer ? reference : active).stage.dataset["width"])),
    link,
    swap,
    loupe: () => magnify(!loupe.on),
    colours: () => void colour(),
    screen: enlarge,
    help: () => help.togglePopover(),
    reference: () => panes.length > 2 && refer(active),
    hand: () => mark(active === reference ? other : active),
  },
  { ...VIEW_KEYS, l: "link", s: "swap", f: "screen", c: "colours", "?": "help", r: "reference", h: "hand" },
);
get<HTMLElement>('#tools [data-do="screen"]').hidden = !document.fullscreenEnabled;
document.addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() === "m" && !event.repeat && !isTyping(event)) magnify(true);
});
document.addEventListener("keyup", (event) => event.key.toLowerCase() === "m" && magnify(false));
bindStrip(get("#strip"));
if (panes.length > 1) {
  const choose = (first: Pane, laid: Pane): void => void ([reference, other] = [first, laid]);
  const viewer = (): Viewer => laidOver?.viewer ?? reference.viewer;
  const chosen = () => ({ reference, other });
  const toggle = () => void colour();
  const told = () => found.get(other)?.id ?? "";
  bindKept({ panes, together, viewer, chosen, choose, link, inColours, colour: toggle, moved: tellMoved, told });
  refer(reference);
}
