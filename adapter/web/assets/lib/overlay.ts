// One photo laid over the reference, as the server has aligned it: slider, blend, blink, difference, and the map of what
// changed. The reference below is the photo itself.
import OpenSeadragon from "openseadragon";
import type { Lattice } from "./skin-map.ts";
import { openViewer, sharpen, type Viewer } from "./viewer.ts";

export const OVERLAYS = ["slider", "blend", "blink", "difference", "change"] as const;
export type OverlayMode = (typeof OVERLAYS)[number];

export interface Region {
  box: [number, number, number, number]; // x, y, width, height in full-resolution pixels of the reference
  difference: number;
  certain: boolean;
}

export interface Comparison {
  id: string;
  verdict: "aligned" | "approximate" | "not-aligned";
  reasons: string[];
  method: string;
  version: string;
  width: number;
  height: number;
  lattice?: Lattice;
  by_hand?: { by: string; at: string };
  change: { method: string; version: string; regions: Region[] } | null;
  pictures: Partial<Record<"aligned" | "overlay" | "change" | "normalised", string>>;
  tiles: string | null; // of the picture `aligned`
}

export class Overlay {
  readonly viewer: Viewer;
  readonly #divider = document.createElement("div");
  #upper: OpenSeadragon.TiledImage | null = null;
  #change: OpenSeadragon.TiledImage | null = null;
  #byCard: OpenSeadragon.TiledImage[] = []; // the reference, and over it the other photo
  #mode: OverlayMode = "slider";
  #share = 0.5;

  constructor(stage: HTMLElement, { pictures, tiles }: Comparison) {
    this.viewer = openViewer(stage);
    this.#divider.className = "divider";
    this.viewer.addHandler("viewport-change", () => this.#mode === "slider" && this.#draw());
    this.viewer.addOnceHandler("open", () => {
      this.viewer.addOverlay({ element: this.#divider, location: new OpenSeadragon.Rect(0.5, 0, 0, 1) });
      this.#lay(pictures.aligned, (image) => {
        this.#upper = image;
        if (tiles) sharpen(this.viewer, tiles, () => this.#upper, (source) => this.#sharpen(source));
      });
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
    this.#draw();
  }

  /** Both photos in other colours (addresses of pictures: the reference's and the other's, aligned), or as they are. */
  colour(pictures: [string, string] | null): void {
    for (const laid of this.#byCard) this.viewer.world.removeItem(laid);
    const laid: OpenSeadragon.TiledImage[] = (this.#byCard = []);
    this.#draw();
    const keep = (image: OpenSeadragon.TiledImage): void => {
      if (laid === this.#byCard) laid.push(image);
      else this.viewer.world.removeItem(image); // asked otherwise meanwhile
    };
    this.#lay(pictures?.[0], (below) => {
      keep(below);
      this.#lay(pictures?.[1], keep);
    });
  }

  close(): void {
    this.viewer.destroy();
  }

  /** Bring a place of the reference into view, with some skin around it. */
  visit(region: Region, width: number): void {
    const [x, y, w, h] = region.box.map((edge) => edge / width) as [number, number, number, number];
    const around = Math.max(w, h, 0.04) * 1.5;
    this.viewer.viewport.fitBounds(new OpenSeadragon.Rect(x - around, y - around, w + 2 * around, h + 2 * around));
  }

  /** The tiles take the place of the small picture once all that is in view of them is there. */
  #sharpen(source: object): void {
    this.#add(source, (tiles) => {
      tiles.setPreload(true); // loads although nothing of it is shown yet
      const replace = (event: { fullyLoaded: boolean }): void => {
        if (!event.fullyLoaded) return;
        tiles.removeHandler("fully-loaded-change", replace);
        this.#upper?.setOpacity(0);
        this.#upper = tiles;
        this.#draw();
      };
      tiles.addHandler("fully-loaded-change", replace);
    });
  }

  #lay(url: string | undefined, keep: (image: OpenSeadragon.TiledImage) => void): void {
    if (url) this.#add({ type: "image", url, buildPyramid: true }, keep);
  }

  #add(tileSource: object, keep: (image: OpenSeadragon.TiledImage) => void): void {
    this.viewer.addTiledImage({
      tileSource,
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
    const mode = this.#mode;
    this.#divider.hidden = mode !== "slider";
    this.#change?.setOpacity(mode === "change" ? 1 : 0);
    const [below, above] = this.#byCard;
    below?.setOpacity(above && mode !== "change" ? 1 : 0);
    const upper = above ?? this.#upper;
    if (!upper) return;
    if (above) this.#upper?.setOpacity(0);
    const size = upper.getContentSize();
    const { x, width } = this.viewer.viewport.getBounds(true);
    const line = Math.min(Math.max(x + this.#share * width, 0), 1); // of what is in view, however close
    this.viewer.updateOverlay(this.#divider, new OpenSeadragon.Rect(line, 0, 0, size.y / size.x));
    const left = mode === "slider" ? size.x * line : 0;
    upper.setClip(new OpenSeadragon.Rect(left, 0, size.x - left, size.y));
    upper.setCompositeOperation(mode === "difference" ? "difference" : "source-over");
    upper.setOpacity(mode === "blend" || mode === "blink" ? this.#share : mode === "change" ? 0 : 1);
  }
}
