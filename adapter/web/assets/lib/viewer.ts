// One zoomable photo: OpenSeadragon over the display rendition, and over it the tiles of the full resolution as soon as
// somebody looks so closely that the display rendition would blur. No device ever decodes more than it shows.
import OpenSeadragon from "openseadragon";
import { find } from "./dom.ts";
import { askJson } from "./http.ts";

export type Viewer = OpenSeadragon.Viewer;

const STEP = 1.4;
const SHIFT = 0.12;

const sourceOf = (url: string) => ({ type: "image", url, buildPyramid: true });

function complain(stage: HTMLElement): void {
  const said = document.createElement("p");
  said.className = "notice notice-error stage-problem";
  said.setAttribute("role", "alert");
  said.textContent = "The photo could not be loaded. Reload the page; if it stays away, log in again.";
  stage.append(said);
}

/** OpenSeadragon adds an inline <style> unless one of this name is there; the page's CSP forbids inline styles. */
function forestallInlineStyle(): void {
  if (document.querySelector("style[data-openseadragon-mobile-css]")) return;
  const none = document.createElementNS(null, "style"); // no HTML element, so nothing for the CSP to judge
  none.setAttribute("data-openseadragon-mobile-css", "true");
  document.head.append(none);
}

/** A photo seen whole stays whole when its frame changes size: OpenSeadragon itself keeps the scale instead. */
function keepWhole(viewer: Viewer): void {
  let whole = true;
  let resizing = false;
  viewer.addHandler("zoom", () => {
    if (resizing) return;
    whole = Math.abs(viewer.viewport.getZoom(false) / viewer.viewport.getHomeZoom() - 1) < 0.01;
  });
  viewer.addHandler("resize", () => {
    resizing = true;
    queueMicrotask(() => {
      resizing = false;
      if (whole && viewer.isOpen()) viewer.viewport.goHome(true);
    });
  });
}

export function openViewer(stage: HTMLElement): Viewer {
  forestallInlineStyle();
  const viewer = OpenSeadragon({
    element: stage,
    tileSources: sourceOf(stage.dataset["display"] ?? ""),
    drawer: "canvas",
    showNavigationControl: false,
    tabIndex: -1,
    visibilityRatio: 0.35,
    minZoomImageRatio: 0.8,
    maxZoomPixelRatio: 6,
    zoomPerScroll: 1.2,
    animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.35,
    springStiffness: 9,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    gestureSettingsTouch: { pinchRotate: false, flickEnabled: true },
  });
  viewer.addOnceHandler("open", () => find(".stage-plain", stage)?.remove());
  keepWhole(viewer);
  const tiles = stage.dataset["tiles"];
  if (tiles) {
    const below = (): OpenSeadragon.TiledImage | null => viewer.world.getItemAt(0) ?? null;
    const lay = (tileSource: object): void => viewer.addTiledImage({ tileSource, index: 1, width: 1 });
    viewer.addOnceHandler("open", () => sharpen(viewer, tiles, below, lay));
  }
  viewer.addHandler("open-failed", () => complain(stage));
  viewer.addHandler("canvas-key", (event) => (event.preventDefaultAction = true)); // our own keys, the same on every page
  return viewer;
}

interface Tiles {
  width: number;
  height: number;
  tile: number;
  overlap: number;
  levels: number;
  url: string; // …/{level}/{column}/{row}, level 0 being the full resolution
}

const sourceOfTiles = ({ width, height, tile, overlap, levels, url }: Tiles) => ({
  width,
  height,
  tileSize: tile,
  tileOverlap: overlap,
  minLevel: 0,
  maxLevel: levels - 1,
  getTileUrl: (level: number, column: number, row: number) =>
    url
      .replace("{level}", String(levels - 1 - level))
      .replace("{column}", String(column))
      .replace("{row}", String(row)),
});

/** What each address answered: a photo may be shown by several viewers, and asking is an access that the log names. */
const described = new Map<string, Promise<Tiles>>();

function describe(address: string): Promise<Tiles> {
  const asked = described.get(address) ?? askJson<Tiles>(address);
  described.set(address, asked);
  asked.catch(() => described.delete(address));
  return asked;
}

/** Asks for the tiles of a picture, and has them laid, the first time that what `below` shows of it is enlarged. */
export function sharpen(
  viewer: Viewer,
  address: string,
  below: () => OpenSeadragon.TiledImage | null,
  lay: (source: ReturnType<typeof sourceOfTiles>) => void,
): void {
  const look = (): void => {
    const shown = below();
    if (!shown || shown.viewportToImageZoom(viewer.viewport.getZoom(false)) * devicePixelRatio <= 1) return;
    viewer.removeHandler("zoom", look);
    viewer.removeHandler("resize", look);
    describe(address)
      .then((tiles) => tiles.levels > 1 && lay(sourceOfTiles(tiles)))
      .catch(() => viewer.addHandler("zoom", look)); // what is below stays; the next zoom asks again
  };
  viewer.addHandler("zoom", look);
  viewer.addHandler("resize", look);
  look();
}

/** One pixel of a photo `width` pixels wide for each pixel of the screen. */
export function showPixels(viewer: Viewer, width: number): void {
  const across = viewer.viewport.getContainerSize().x * devicePixelRatio;
  if (width) viewer.viewport.zoomTo(Math.max(width / across, viewer.viewport.getMinZoom())).applyConstraints();
}

export const zoomBy = (viewer: Viewer, steps: number): void => {
  viewer.viewport.zoomBy(STEP ** steps).applyConstraints();
};

export const panBy = (viewer: Viewer, x: number, y: number): void => {
  const width = viewer.viewport.getBounds().width * SHIFT;
  viewer.viewport.panBy(new OpenSeadragon.Point(x * width, y * width)).applyConstraints();
};

export const fit = (viewer: Viewer): void => void viewer.viewport.goHome();

/** "100 %" is the whole photo in view. */
export const zoomText = (viewer: Viewer): string =>
  `${Math.round((100 * viewer.viewport.getZoom()) / viewer.viewport.getHomeZoom())} %`;

const ARROWS: Record<string, [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

export const arrowOf = (key: string): [number, number] | undefined => ARROWS[key];

/** The commands that any page with photos has; each page adds its own. */
export const VIEW_KEYS: Record<string, string> = { "+": "in", "=": "in", "-": "out", "0": "fit", "9": "pixels" };
