// Viewers that move together. Each follower keeps its own offset and scale against the leader, so that a user may unlink,
// move one photo until both show the same skin, and link again: the alignment made by hand stays.
import OpenSeadragon from "openseadragon";
import type { Viewer } from "./viewer.ts";

interface Alignment {
  x: number; // in widths of the photo
  y: number;
  scale: number;
}

const NONE: Alignment = { x: 0, y: 0, scale: 1 };

interface View {
  x: number;
  y: number;
  zoom: number; // 1 = the whole photo in view
}

function viewOf(viewer: Viewer): View {
  const centre = viewer.viewport.getCenter(false);
  return { x: centre.x, y: centre.y, zoom: viewer.viewport.getZoom(false) / viewer.viewport.getHomeZoom() };
}

function show(viewer: Viewer, view: View): void {
  viewer.viewport.zoomTo(view.zoom * viewer.viewport.getHomeZoom());
  viewer.viewport.panTo(new OpenSeadragon.Point(view.x, view.y));
}

export class LinkedViewers {
  #alignments: Alignment[];
  #linked = true;
  #following = false;

  constructor(readonly viewers: Viewer[]) {
    this.#alignments = viewers.map(() => NONE);
    viewers.forEach((viewer, index) => {
      const lead = (): void => this.#lead(index);
      viewer.addHandler("zoom", lead);
      viewer.addHandler("pan", lead);
    });
  }

  get linked(): boolean {
    return this.#linked;
  }

  /** Linking keeps what is seen now as the alignment. */
  setLinked(linked: boolean): void {
    if (linked) this.#keepPresentView();
    this.#linked = linked;
  }

  isAligned(index: number): boolean {
    return this.#alignments[index] !== NONE;
  }

  /** Move the photo `index` alone by widths of its view; to the right and down are positive. */
  nudge(index: number, x: number, y: number): void {
    const viewer = this.viewers[index];
    const now = this.#alignments[index];
    if (!viewer || !now) return;
    const view = viewOf(viewer);
    const step = viewer.viewport.getBounds().width;
    this.#alignments[index] = { ...now, x: now.x - x * step, y: now.y - y * step };
    this.#quietly(() => show(viewer, { ...view, x: view.x - x * step, y: view.y - y * step }));
  }

  reset(index: number): void {
    this.#alignments[index] = NONE;
    this.#lead(index === 0 ? 1 : 0);
  }

  swap(): void {
    this.viewers.reverse();
    this.#alignments.reverse();
  }

  #common(index: number): View {
    const { x, y, scale } = this.#alignments[index] ?? NONE;
    const view = viewOf(this.viewers[index]!);
    return { x: view.x - x, y: view.y - y, zoom: view.zoom / scale };
  }

  #lead(leader: number): void {
    const viewer = this.viewers[leader];
    if (!this.#linked || this.#following || !viewer?.isOpen()) return;
    const common = this.#common(leader);
    this.#quietly(() =>
      this.viewers.forEach((follower, index) => {
        if (index === leader || !follower.isOpen()) return;
        const { x, y, scale } = this.#alignments[index] ?? NONE;
        show(follower, { x: common.x + x, y: common.y + y, zoom: common.zoom * scale });
      }),
    );
  }

  #keepPresentView(): void {
    const first = this.#common(0);
    this.viewers.forEach((viewer, index) => {
      if (index === 0 || !viewer.isOpen()) return;
      const view = viewOf(viewer);
      const seen = { x: view.x - first.x, y: view.y - first.y, scale: view.zoom / first.zoom };
      const same = Math.abs(seen.x) + Math.abs(seen.y) < 0.002 && Math.abs(seen.scale - 1) < 0.005;
      this.#alignments[index] = same ? NONE : seen;
    });
  }

  #quietly(act: () => void): void {
    this.#following = true;
    act();
    this.#following = false;
  }
}
