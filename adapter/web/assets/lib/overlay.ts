// The second photo laid over the first, aligned by the server: slider, blend, blink, and the map of what changed.
import OpenSeadragon from "openseadragon";
import { openViewer, type Viewer } from "./viewer.ts";

export const OVERLAYS = ["slider", "blend", "blink", "change"] as const;
export type OverlayMode = (typeof OVERLAYS)[number];

export interface Region {
  box: [number, number, number, number]; // x, y, width, height in full-resolution pixels of the first photo
  difference: number;
  certain: boolean;
}

export interface Comparison {
  verdict: "aligned" | "approximate" | "not-aligned";
  reasons: string[];
  method: string;
  version: string;
  width: number;
  height: number;
  change: { method: string; version: string; regions: Region[] } | null;
  pictures: Partial<Record<"aligned" | "overlay" | "change", string>>;
}

const BLINK_MS = 700;

export class Overlay {
  readonly viewer: Viewer;
  readonly #divider = document.createElement("div");
  #upper: OpenSeadragon.TiledImage | null = null;
  #change: OpenSeadragon.TiledImage | null = null;
  #mode: OverlayMode = "slider";
  #share = 0.5;
  #blinking = 0;

  constructor(stage: HTMLElement, pictures: Comparison["pictures"]) {
    this.viewer = openViewer(stage);
    this.#divider.className = "divider";
    this.viewer.addOnceHandler("open", () => {
      this.viewer.addOverlay({ element: this.#divider, location: new OpenSeadragon.Rect(0.5, 0, 0, 1) });
      this.#lay(pictures.aligned, (image) => (this.#upper = image));
      this.#lay(pictures.change, (image) => (this.#change = image));
    });
  }

  /** 0 to 1: where the slider divides the photos, or how much of the second is blended in. */
  set share(share: number) {
    this.#share = share;
    this.#draw();
  }

  set mode(mode: OverlayMode) {
    this.#mode = mode;
    clearInterval(this.#blinking);
    if (mode === "blink" && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.#blinking = window.setInterval(() => this.blink(), BLINK_MS);
    }
    this.#draw();
  }

  stop(): void {
    clearInterval(this.#blinking);
  }

  /** One change of side; by hand where motion is not wanted. */
  blink(): void {
    this.#share = this.#share < 0.5 ? 1 : 0;
    this.#draw();
  }

  /** Bring a place of the first photo into view, with some skin around it. */
  visit(region: Region, width: number): void {
    const [x, y, w, h] = region.box.map((edge) => edge / width) as [number, number, number, number];
    const around = Math.max(w, h, 0.04) * 1.5;
    this.viewer.viewport.fitBounds(
      new OpenSeadragon.Rect(x - around, y - around, w + 2 * around, h + 2 * around),
    );
  }

  #lay(url: string | undefined, keep: (image: OpenSeadragon.TiledImage) => void): void {
    if (!url) return;
    this.viewer.addTiledImage({
      tileSource: { type: "image", url, buildPyramid: true },
      x: 0,
      y: 0,
      width: 1,
      opacity: 0,
      success: (event) => {
        keep((event as unknown as { item: OpenSeadragon.TiledImage }).item);
        this.#draw();
      },
    });
  }

  #draw(): void {
    this.#divider.hidden = this.#mode !== "slider";
    this.#change?.setOpacity(this.#mode === "change" ? 1 : 0);
    const upper = this.#upper;
    if (!upper) return;
    const size = upper.getContentSize();
    this.viewer.updateOverlay(this.#divider, new OpenSeadragon.Rect(this.#share, 0, 0, size.y / size.x));
    const left = this.#mode === "slider" ? size.x * this.#share : 0;
    upper.setClip(new OpenSeadragon.Rect(left, 0, size.x - left, size.y));
    upper.setOpacity(this.#mode === "change" ? 0 : this.#mode === "slider" ? 1 : this.#share);
  }
}
