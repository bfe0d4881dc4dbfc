// A line or an outline over a photo, in pixels of the photo: drawn as SVG, its points moved by mouse, finger and keys.
import OpenSeadragon from "openseadragon";
import { arrowOf, type Viewer } from "./viewer.ts";

export type Point = [number, number];

const NEAR = 14; // CSS pixels between a click and a side, within which it adds a point to it
const SVG = "http://www.w3.org/2000/svg";

/** Two strokes, so that it shows on light and on dark skin. */
function drawing(width: number, height: number, kind: "polygon" | "polyline", className: string): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", className);
  svg.setAttribute("aria-hidden", "true");
  for (const name of ["shape-below", "shape-line"]) {
    const line = document.createElementNS(SVG, kind);
    line.setAttribute("class", name);
    svg.append(line);
  }
  return svg;
}

/** A pixel's centre is half a pixel from its corner. */
const pathOf = (points: Point[]): string => points.map(([x, y]) => `${x + 0.5},${y + 0.5}`).join(" ");

function lay(viewer: Viewer, svg: SVGSVGElement, width: number, height: number): void {
  viewer.addOverlay({ element: svg as unknown as HTMLElement, location: new OpenSeadragon.Rect(0, 0, 1, height / width) });
}

/** What was kept, to be looked at; returns how to take it away again. */
export function showKept(viewer: Viewer, size: Point, kind: string, path: string): () => void {
  const svg = drawing(...size, kind === "outline" ? "polygon" : "polyline", "shape shape-kept");
  const points = path.split(" ").map((pair) => pair.split(",").map(Number) as Point);
  for (const line of svg.children) line.setAttribute("points", pathOf(points));
  lay(viewer, svg, ...size);
  return () => viewer.removeOverlay(svg as unknown as HTMLElement);
}

export class Shape {
  points: Point[] = [];
  readonly #svg: SVGSVGElement;
  #handles: HTMLButtonElement[] = [];

  constructor(
    readonly viewer: Viewer,
    readonly size: Point,
    readonly closed: boolean,
    readonly changed: () => void,
    readonly picked: (index: number) => void = () => undefined,
  ) {
    this.#svg = drawing(...size, closed ? "polygon" : "polyline", "shape");
    lay(viewer, this.#svg, ...size);
  }

  set(points: Point[]): void {
    while (this.#handles.length) this.viewer.removeOverlay(this.#handles.pop() as HTMLButtonElement);
    this.points = [];
    for (const point of points) this.add(point);
  }

  add(point: Point, at = this.points.length): void {
    const handle = document.createElement("button");
    handle.type = "button";
    handle.className = "handle";
    this.points.splice(at, 0, point);
    this.#handles.splice(at, 0, handle);
    this.viewer.addOverlay({ element: handle, location: this.#placeOf(point), placement: OpenSeadragon.Placement.CENTER });
    this.#bind(handle);
    this.#draw();
  }

  /** A click on a side adds a point there. Whether it was near enough to one. */
  split(point: Point, perPixel: number): boolean {
    let best = { away: NEAR * perPixel, after: -1 };
    this.points.forEach((from, index) => {
      const to = this.points[(index + 1) % this.points.length] as Point;
      const away = distance(point, from, to);
      if (away < best.away) best = { away, after: index };
    });
    if (best.after < 0) return false;
    this.add(point, best.after + 1);
    this.changed();
    return true;
  }

  focus(): void {
    this.#handles.at(-1)?.focus();
  }

  remove(): void {
    this.set([]);
    this.viewer.removeOverlay(this.#svg as unknown as HTMLElement);
  }

  #bind(handle: HTMLButtonElement): void {
    const index = (): number => this.#handles.indexOf(handle);
    new OpenSeadragon.MouseTracker({
      element: handle,
      dragHandler: (event) => this.#move(index(), this.viewer.viewport.deltaPointsFromPixels(event.delta)),
      dragEndHandler: () => this.changed(),
      clickHandler: () => {
        handle.focus();
        this.picked(index());
      },
    });
    handle.addEventListener("keydown", (event) => {
      const arrow = arrowOf(event.key);
      const key = event.key.toLowerCase();
      if (arrow) {
        const steps = event.shiftKey ? 10 : 1;
        const by = new OpenSeadragon.Point(arrow[0] * steps, arrow[1] * steps);
        this.#move(index(), this.viewer.viewport.deltaPointsFromPixels(by));
        this.changed();
      } else if (key === "n" || key === "p") {
        this.#handles.at((index() + (key === "n" ? 1 : -1)) % this.#handles.length)?.focus();
      } else if (key === "delete" || key === "backspace") {
        this.#removeAt(index());
      } else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  #move(index: number, by: OpenSeadragon.Point): void {
    const [x, y] = this.points[index] as Point;
    const [width, height] = this.size;
    const inside = (value: number, most: number): number => Math.min(Math.max(value, 0), most - 1);
    this.points[index] = [inside(x + by.x * width, width), inside(y + by.y * width, height)];
    this.#draw();
  }

  #removeAt(index: number): void {
    if (this.points.length <= (this.closed ? 3 : 1)) return;
    this.points.splice(index, 1);
    const [gone] = this.#handles.splice(index, 1);
    if (gone) this.viewer.removeOverlay(gone);
    this.#handles.at(index % this.#handles.length)?.focus();
    this.#draw();
    this.changed();
  }

  #placeOf([x, y]: Point): OpenSeadragon.Point {
    return new OpenSeadragon.Point((x + 0.5) / this.size[0], (y + 0.5) / this.size[0]);
  }

  #draw(): void {
    for (const line of this.#svg.children) line.setAttribute("points", pathOf(this.points));
    this.#handles.forEach((handle, index) => {
      this.viewer.updateOverlay(handle, this.#placeOf(this.points[index] as Point), OpenSeadragon.Placement.CENTER);
      handle.setAttribute("aria-label", `Point ${index + 1} of ${this.#handles.length}`);
      handle.tabIndex = index === this.#handles.length - 1 ? 0 : -1;
    });
  }
}

function distance([x, y]: Point, [ax, ay]: Point, [bx, by]: Point): number {
  const along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / Math.max((bx - ax) ** 2 + (by - ay) ** 2, 1e-9);
  const share = Math.min(Math.max(along, 0), 1);
  return Math.hypot(x - ax - share * (bx - ax), y - ay - share * (by - ay));
}
