// The same place in every photo, enlarged, while a key or a finger is held: one small viewer over each photo, kept between
// uses.
import OpenSeadragon from "openseadragon";
import { type LinkedViewers, show, viewOf } from "./linked.ts";
import { openViewer, type Viewer } from "./viewer.ts";

const POWER = 3;
const CLOSEST = 4; // CSS pixels for one of the photo
const HOLD_MS = 450;
const STILL = 9; // CSS pixels a finger may move while it is held

interface Lens {
  element: HTMLElement;
  viewer: Viewer;
}

export interface Pane {
  figure: HTMLElement;
  stage: HTMLElement;
  viewer: Viewer;
}

export class Loupe {
  #lenses = new Map<Pane, Lens>();
  #on = false;
  #at: { pane: Pane; x: number; y: number; finger: boolean } | null = null; // CSS pixels within the stage

  constructor(
    readonly panes: Pane[],
    readonly together: LinkedViewers,
  ) {
    for (const pane of panes) this.#watch(pane);
  }

  get on(): boolean {
    return this.#on;
  }

  /** `pane` is where it begins if no pointer is over a photo: in its middle. */
  set(on: boolean, pane: Pane): void {
    this.#on = on;
    if (!this.#at) this.#at = { pane, x: pane.stage.clientWidth / 2, y: pane.stage.clientHeight / 2, finger: false };
    for (const { element } of this.#lenses.values()) element.hidden = true;
    if (on) this.#draw();
  }

  #watch(pane: Pane): void {
    const { stage, viewer } = pane;
    let hold = 0;
    let from = { x: 0, y: 0 };
    const place = (event: PointerEvent): void => {
      const box = stage.getBoundingClientRect();
      const finger = event.pointerType === "touch";
      this.#at = { pane, x: event.clientX - box.left, y: event.clientY - box.top, finger };
      if (this.#on) this.#draw();
    };
    const release = (): void => {
      clearTimeout(hold);
      if (viewer.isMouseNavEnabled()) return;
      viewer.setMouseNavEnabled(true);
      this.set(false, pane);
    };
    stage.addEventListener("pointermove", (event) => {
      if (Math.hypot(event.clientX - from.x, event.clientY - from.y) > STILL) clearTimeout(hold);
      place(event);
    }, true);
    stage.addEventListener("pointerdown", (event) => {
      clearTimeout(hold); // also for a second finger
      if (event.pointerType !== "touch" || !event.isPrimary) return;
      from = { x: event.clientX, y: event.clientY };
      hold = window.setTimeout(() => {
        viewer.setMouseNavEnabled(false);
        place(event);
        this.set(true, pane);
      }, HOLD_MS);
    }, true);
    for (const end of ["pointerup", "pointercancel"] as const) window.addEventListener(end, release);
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
    stage.addEventListener("pointerleave", () => !this.#on && (this.#at = null));
    viewer.addHandler("animation", () => this.#on && this.#draw());
  }

  #draw(): void {
    const at = this.#at;
    if (!at) return;
    const { x, y } = at.pane.viewer.viewport.pointFromPixel(new OpenSeadragon.Point(at.x, at.y));
    const here = viewOf(at.pane.viewer);
    const index = this.panes.indexOf(at.pane);
    const closest = CLOSEST * Number(at.pane.stage.dataset["width"]);
    const size = Math.max(here.size * 1.2, Math.min(here.size * POWER, closest));
    const views = this.together.same(index, { ...here, x, y, size });
    this.panes.forEach((pane, n) => {
      const view = views[n];
      if (!view) return;
      const lens = this.#lens(pane);
      const spot = pane.viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(view.x, view.y));
      lens.element.hidden = false;
      lens.element.classList.toggle("lens-above", at.finger && pane === at.pane);
      lens.element.classList.toggle("lens-unsure", !this.together.hasMap(n));
      const [across, down] = [pane.stage.clientWidth, pane.stage.clientHeight];
      lens.element.style.left = `${Math.min(Math.max(spot.x, 0), across)}px`;
      lens.element.style.top = `${Math.min(Math.max(spot.y, 0), down)}px`;
      if (lens.viewer.isOpen()) show(lens.viewer, view, true);
      else lens.viewer.addOnceHandler("open", () => this.#on && this.#draw());
    });
  }

  #lens(pane: Pane): Lens {
    const known = this.#lenses.get(pane);
    if (known) return known;
    const element = document.createElement("div");
    element.className = "lens";
    element.setAttribute("aria-hidden", "true");
    Object.assign(element.dataset, pane.stage.dataset);
    pane.stage.append(element);
    const viewer = openViewer(element);
    viewer.setMouseNavEnabled(false);
    const lens = { element, viewer };
    this.#lenses.set(pane, lens);
    return lens;
  }
}
