// Aligning two photos by hand: the same three to six spots marked in both, by mouse, finger or keys.
import OpenSeadragon from "openseadragon";
import { get } from "./dom.ts";
import { arrowOf } from "./viewer.ts";
import type { Pane } from "./loupe.ts";

const LEAST = 3;
const MOVED = 5; // CSS pixels: below, it was a click

interface Mark {
  element: HTMLButtonElement;
  at: OpenSeadragon.Point; // widths of the photo
}

export type Points = [[number, number], [number, number]][];

/** One session of marking; `done` gets pairs of pixels at full resolution, or null when it was given up. */
export class Marking {
  #marks: [Mark[], Mark[]] = [[], []];
  readonly #bar = get<HTMLElement>("#marking");
  readonly #most = Number(this.#bar.dataset["most"]);
  readonly #over = new AbortController();

  constructor(
    readonly panes: [Pane, Pane],
    readonly done: (points: Points | null) => void,
  ) {
    this.#bar.hidden = false;
    const { signal } = this.#over;
    panes.forEach((pane, side) => this.#watch(pane, side as 0 | 1, signal));
    get("#marking-align").addEventListener("click", () => this.#end(this.#points()), { signal });
    get("#marking-back").addEventListener("click", () => this.#removeLast(), { signal });
    get("#marking-cancel").addEventListener("click", () => this.#end(null), { signal });
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.#end(null), { signal });
    this.#tell();
  }

  #watch({ stage, viewer }: Pane, side: 0 | 1, signal: AbortSignal): void {
    const click = (event: OpenSeadragon.CanvasClickEvent): void => {
      if (event.quick) this.#add(side, viewer.viewport.pointFromPixel(event.position));
      event.preventDefaultAction = true;
    };
    const still = (event: OpenSeadragon.CanvasDoubleClickEvent): void => void (event.preventDefaultAction = true);
    viewer.addHandler("canvas-click", click);
    viewer.addHandler("canvas-double-click", still);
    signal.addEventListener("abort", () => {
      viewer.removeHandler("canvas-click", click);
      viewer.removeHandler("canvas-double-click", still);
    });
    stage.classList.add("stage-marking");
    stage.addEventListener(
      "keydown",
      (event) => {
        if (event.key !== "Enter" || event.target !== stage) return;
        event.preventDefault();
        this.#add(side, viewer.viewport.getCenter());
      },
      { signal },
    );
  }

  #add(side: 0 | 1, at: OpenSeadragon.Point): void {
    const marks = this.#marks[side];
    const { viewer } = this.panes[side];
    if (!viewer.world.getItemAt(0)?.getBounds().containsPoint(at)) {
      get("#marking-next").textContent = "That is beside the photo.";
      return;
    }
    if (marks.length >= this.#most) return;
    const element = document.createElement("button");
    const mark = { element, at };
    element.type = "button";
    element.className = "mark";
    element.textContent = String(marks.length + 1);
    marks.push(mark);
    viewer.addOverlay({ element, location: at, placement: OpenSeadragon.Placement.CENTER });
    this.#drag(mark, side);
    element.addEventListener("keydown", (event) => {
      const arrow = arrowOf(event.key);
      if (arrow) this.#nudge(mark, side, arrow, event.shiftKey ? 10 : 1);
      else if (event.key === "Delete" || event.key === "Backspace") this.#remove(mark, side);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.#tell();
  }

  /** By CSS pixels of the screen, so that a closer look moves it more finely. */
  #nudge(mark: Mark, side: 0 | 1, [x, y]: [number, number], steps: number): void {
    const { viewport } = this.panes[side].viewer;
    this.#move(mark, side, viewport.deltaPointsFromPixels(new OpenSeadragon.Point(x * steps, y * steps)));
  }

  #move(mark: Mark, side: 0 | 1, by: OpenSeadragon.Point): void {
    mark.at = mark.at.plus(by);
    this.panes[side].viewer.updateOverlay(mark.element, mark.at, OpenSeadragon.Placement.CENTER);
  }

  #drag(mark: Mark, side: 0 | 1): void {
    const { viewport } = this.panes[side].viewer;
    new OpenSeadragon.MouseTracker({
      element: mark.element,
      clickDistThreshold: MOVED,
      dragHandler: (event) => this.#move(mark, side, viewport.deltaPointsFromPixels(event.delta)),
      clickHandler: () => mark.element.focus(),
    });
  }

  #remove(mark: Mark, side: 0 | 1): void {
    const marks = this.#marks[side];
    marks.splice(marks.indexOf(mark), 1);
    this.panes[side].viewer.removeOverlay(mark.element);
    marks.forEach(({ element }, index) => (element.textContent = String(index + 1)));
    this.panes[side].stage.focus();
    this.#tell();
  }

  #removeLast(): void {
    const side = this.#marks[1].length >= this.#marks[0].length ? 1 : 0;
    const last = this.#marks[side].at(-1);
    if (last) this.#remove(last, side);
  }

  #tell(): void {
    const [left, right] = [this.#marks[0].length, this.#marks[1].length];
    const days = this.panes.map((pane) => pane.figure.dataset["day"] ?? "");
    this.#marks.forEach((marks, side) =>
      marks.forEach(({ element }, n) => element.setAttribute("aria-label", `Mark ${n + 1}, ${days[side]}`)),
    );
    const pairs = Math.min(left, right);
    const next = left > right ? days[1] : days[0];
    get("#marking-next").textContent =
      left === this.#most && right === this.#most
        ? "All marks are set."
        : `Mark ${pairs + 1} of ${LEAST} to ${this.#most}: ${
            left === right ? "a spot that both photos show" : "the same spot"
          }, in the photo of ${next}.`;
    get<HTMLButtonElement>("#marking-align").disabled = pairs < LEAST || left !== right;
    get<HTMLButtonElement>("#marking-back").disabled = left + right === 0;
  }

  #points(): Points {
    const pixels = (side: 0 | 1): [number, number][] => {
      const { stage } = this.panes[side];
      const width = Number(stage.dataset["width"]);
      return this.#marks[side].map(({ at }) => [at.x * width - 0.5, at.y * width - 0.5]);
    };
    const [left, right] = [pixels(0), pixels(1)];
    return left.map((ours, n) => [ours, right[n] ?? ours]);
  }

  #end(points: Points | null): void {
    this.#over.abort();
    this.#bar.hidden = true;
    this.panes.forEach(({ stage, viewer }, side) => {
      stage.classList.remove("stage-marking");
      for (const { element } of this.#marks[side as 0 | 1]) viewer.removeOverlay(element);
    });
    this.done(points);
  }
}
