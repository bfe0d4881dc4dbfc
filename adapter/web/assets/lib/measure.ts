// Measuring on a photo: the scale first, then a line or an outline; the server measures, and keeps what is accepted.
import OpenSeadragon from "openseadragon";
import { CardColours } from "./card-colours.ts";
import { setPressed } from "./commands.ts";
import { all, csrfToken, find, get, settled } from "./dom.ts";
import { askJson, Refused } from "./http.ts";
import { type Point, Shape, showKept } from "./shape.ts";
import type { Viewer } from "./viewer.ts";

type Tool = "find" | "hand" | "length";
type Scale =
  | { source: "card" | "field-of-view" | "none" }
  | { source: "points"; points: [Point, Point]; millimetres: number; sigma: number };

interface Offered {
  scales: { source: "card" | "field-of-view"; mm_per_pixel: number; uncertainty: number }[];
  colour: { calibrated: boolean; reason?: string; residual?: number };
}
interface Measured {
  shown: { label: string; value: string }[];
  scale: { source: string; mm_per_pixel?: number; uncertainty?: number };
  colour: { calibrated: boolean; reason?: string; residual?: number };
}

const SETTLE_MS = 250;
const CLICK_SIGMA = { mouse: 1.2, pen: 1.2, touch: 3.5 } as Record<string, number>; // CSS pixels, docs/measure.md
const HINTS: Record<Tool | "scale", string> = {
  find: "Point at the lesion: its outline is found.",
  hand: "Go round the lesion point by point; end on the first point, or with Space.",
  length: "Mark both ends.",
  scale: "Mark two points whose distance you know, such as two lines of a ruler beside the lesion.",
};

const percent = (share: number): string => `${(200 * share).toFixed(1)} %`;

export class Measuring {
  readonly #bar = get<HTMLElement>("#measure");
  readonly #select = get<HTMLSelectElement>("#measure-scale");
  readonly #size: Point = [Number(this.#bar.dataset["width"]), Number(this.#bar.dataset["height"])];
  readonly #href = this.#bar.dataset["href"] ?? "";
  #tool: Tool = "find";
  #scale: Scale = { source: "none" };
  #marking: Shape | null = null; // the two points of a scale
  #shape: Shape | null = null;
  #done = false; // the shape is whole
  #how: "by-hand" | "found" | "found-edited" = "by-hand";
  #edge = 0; // of a found outline
  #sigma = 0.5;
  #asked = 0;
  #looked = false;
  readonly #colours: CardColours;
  readonly #measureSoon = settled(SETTLE_MS, () => void this.#measure());

  constructor(
    readonly viewer: Viewer,
    readonly stage: HTMLElement,
  ) {
    this.#colours = new CardColours(viewer, this.#href);
    viewer.addHandler("canvas-click", (event) => {
      if (!this.#on || !event.quick) return;
      event.preventDefaultAction = true;
      const pointer = (event.originalEvent as PointerEvent).pointerType || "mouse";
      void this.#place(viewer.viewport.pointFromPixel(event.position), pointer);
    });
    viewer.addHandler("canvas-double-click", (event) => (event.preventDefaultAction = this.#on));
    stage.addEventListener("keydown", (event) => {
      if (!this.#on || event.target !== stage) return;
      if (event.key === "Enter") void this.#place(viewer.viewport.getCenter(true), "mouse");
      else if (event.key === " ") this.#close();
      else return;
      event.preventDefault();
    });
    for (const tool of all<HTMLInputElement>('[name="measure-tool"]', this.#bar)) {
      tool.addEventListener("change", () => this.#choose(tool.value as Tool));
    }
    this.#select.addEventListener("change", () => this.#chooseScale(this.#select.value as Scale["source"]));
    get("#measure-distance").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#useDistance();
    });
    get("#measure-again").addEventListener("click", () => this.#choose(this.#tool));
    find("#measure-keep")?.addEventListener("click", () => void this.#keep());
    const colours = get<HTMLButtonElement>("#measure-normalise");
    colours.addEventListener("click", () => void this.#normalise(colours));
    for (const button of all<HTMLButtonElement>("[data-shape]")) this.#offerKept(button);
  }

  get #on(): boolean {
    return !this.#bar.hidden;
  }

  toggle(button: HTMLButtonElement | null): void {
    this.#bar.hidden = this.#on;
    setPressed(button, this.#on);
    this.stage.classList.toggle("stage-measuring", this.#on);
    if (!this.#on) return this.#clear();
    this.#choose(this.#tool);
    if (!this.#looked) void this.#look();
    this.stage.focus({ preventScroll: true });
  }

  /** Which scales the photo offers by itself; the best is taken. */
  async #look(): Promise<void> {
    this.#looked = true;
    this.#tellScale("Looking for a calibration card…");
    try {
      const found = await askJson<Offered>(`${this.#href}/scale`);
      for (const { source } of found.scales) get<HTMLOptionElement>(`option[value="${source}"]`, this.#select).hidden = false;
      const best = found.scales[0];
      get<HTMLElement>("#measure-normalise").hidden = !found.colour.calibrated;
      if (!best) return this.#tellScale("No card in this photo.");
      if (this.#scale.source === "none" && !this.#marking) {
        this.#select.value = best.source;
        this.#scale = { source: best.source };
        this.#measureSoon();
      }
      this.#tellScale(`${best.mm_per_pixel.toFixed(4)} mm a pixel ± ${percent(best.uncertainty)}`);
    } catch (error) {
      this.#looked = false;
      this.#tellScale(messageOf(error));
    }
  }

  #choose(tool: Tool): void {
    this.#tool = tool;
    this.#clear();
    this.#hint(HINTS[tool]);
  }

  #clear(): void {
    this.#asked++;
    this.#shape?.remove();
    this.#marking?.remove();
    this.#shape = this.#marking = null;
    this.#done = false;
    this.#sigma = 0.5;
    get<HTMLElement>("#measure-result").hidden = true;
    get<HTMLElement>("#measure-distance").hidden = true;
  }

  #chooseScale(source: Scale["source"]): void {
    this.#marking?.remove();
    this.#marking = null;
    get<HTMLElement>("#measure-distance").hidden = true;
    if (source === "points") {
      this.#marking = new Shape(this.viewer, this.#size, false, () => undefined);
      this.#hint(HINTS.scale);
      return this.stage.focus({ preventScroll: true });
    }
    this.#scale = { source };
    this.#tellScale(source === "none" ? "Lengths are given in pixels." : "");
    this.#hint(HINTS[this.#tool]);
    this.#measureSoon();
  }

  #useDistance(): void {
    const millimetres = get<HTMLInputElement>("#measure-mm").valueAsNumber;
    const points = this.#marking?.points;
    if (!points?.[0] || !points[1] || !(millimetres > 0)) return;
    this.#scale = { source: "points", points: [points[0], points[1]], millimetres, sigma: this.#sigma };
    const apart = Math.hypot(points[1][0] - points[0][0], points[1][1] - points[0][1]);
    this.#tellScale(`${(millimetres / apart).toFixed(4)} mm a pixel, from ${millimetres} mm marked`);
    this.#marking?.remove();
    this.#marking = null;
    get<HTMLElement>("#measure-distance").hidden = true;
    this.#hint(HINTS[this.#tool]);
    this.stage.focus({ preventScroll: true });
    this.#measureSoon();
  }

  async #place(at: OpenSeadragon.Point, pointer: string): Promise<void> {
    const point: Point = [at.x * this.#size[0] - 0.5, at.y * this.#size[0] - 0.5];
    if (point[0] < 0 || point[1] < 0 || point[0] >= this.#size[0] || point[1] >= this.#size[1]) return;
    const perPixel = this.#perPixel();
    this.#sigma = Math.max(this.#sigma, Math.min((CLICK_SIGMA[pointer] ?? 1.2) * perPixel, 100));
    if (this.#marking) return this.#placeScale(point);
    if (this.#done && this.#tool !== "length") return void this.#shape?.split(point, perPixel);
    if (this.#tool === "find") return this.#findOutline(point);
    if (this.#done) return;
    const picked = (index: number): void => void (index === 0 && this.#close());
    this.#shape ??= new Shape(this.viewer, this.#size, this.#tool === "hand", () => this.#edited(), picked);
    this.#how = "by-hand";
    this.#shape.add(point);
    if (this.#tool === "length" && this.#shape.points.length === 2) this.#finish();
  }

  #placeScale(point: Point): void {
    if (!this.#marking || this.#marking.points.length >= 2) return;
    this.#marking.add(point);
    if (this.#marking.points.length < 2) return;
    get<HTMLElement>("#measure-distance").hidden = false;
    get<HTMLInputElement>("#measure-mm").select();
  }

  async #findOutline(point: Point): Promise<void> {
    const asked = ++this.#asked;
    this.#hint("Looking for the outline…");
    try {
      const where = `x=${point[0].toFixed(1)}&y=${point[1].toFixed(1)}`;
      const found = await askJson<{ points: Point[]; edge: number }>(`${this.#href}/outline?${where}`);
      if (asked !== this.#asked) return;
      this.#shape = new Shape(this.viewer, this.#size, true, () => this.#edited());
      this.#shape.set(found.points);
      this.#edge = found.edge;
      this.#how = "found";
      this.#approach(found.points);
      this.#finish("Check the outline: move its points where it is wrong, click a side to add one.");
    } catch (error) {
      if (asked === this.#asked) this.#hint(messageOf(error), "error");
    }
  }

  /** So near that its points can be told apart. */
  #approach(points: Point[]): void {
    const [xs, ys] = [0, 1].map((axis) => points.map((point) => (point[axis] ?? 0) / this.#size[0])) as [number[], number[]];
    const [left, top] = [Math.min(...xs), Math.min(...ys)];
    const [width, height] = [Math.max(...xs) - left, Math.max(...ys) - top];
    const around = Math.max(width, height) * 0.5;
    const near = new OpenSeadragon.Rect(left - around, top - around, width + 2 * around, height + 2 * around);
    if (this.viewer.viewport.getBounds().width > near.width) this.viewer.viewport.fitBoundsWithConstraints(near);
  }

  /** The outline drawn by hand is whole. */
  #close(): void {
    if (this.#tool === "hand" && !this.#done && (this.#shape?.points.length ?? 0) >= 3) this.#finish();
  }

  #finish(hint = "Move the points until it fits."): void {
    this.#done = true;
    this.#hint(hint);
    this.#measureSoon();
  }

  #edited(): void {
    if (this.#how === "found") this.#how = "found-edited";
    if (this.#how !== "by-hand") this.#sigma = Math.max(this.#sigma, 1.2 * this.#perPixel());
    if (this.#done) this.#measureSoon();
  }

  #drawn(): URLSearchParams {
    const [sigma, edge] = this.#how === "found" ? [0.5, this.#edge] : [this.#sigma, Math.max(this.#edge, this.#sigma)];
    const drawn = {
      kind: this.#tool === "length" ? "length" : "outline",
      points: this.#shape?.points,
      sigma,
      edge: this.#how === "by-hand" ? sigma : edge,
      scale: this.#scale,
      how: this.#how,
      version: Number(this.#bar.dataset["version"]),
    };
    return new URLSearchParams({ drawn: JSON.stringify(drawn) });
  }

  async #measure(): Promise<void> {
    if (!this.#done || !this.#shape) return;
    const asked = ++this.#asked;
    try {
      const found = await this.#post<Measured>(this.#drawn());
      if (asked === this.#asked) this.#show(found);
    } catch (error) {
      if (asked !== this.#asked) return;
      get<HTMLElement>("#measure-result").hidden = true; // figures of an earlier shape
      this.#hint(messageOf(error), "error");
    }
  }

  #show(found: Measured): void {
    const rows = found.shown.map(({ label, value }) => {
      const row = document.createElement("div");
      for (const [name, text] of [["dt", label], ["dd", value]] as const) {
        row.append(Object.assign(document.createElement(name), { textContent: text }));
      }
      return row;
    });
    get("#measure-values").replaceChildren(...rows);
    const { calibrated, residual, reason } = found.colour;
    get("#measure-colour").textContent =
      this.#tool === "length"
        ? ""
        : calibrated
          ? `Colours calibrated by the card, ± ${residual} CIELAB units.`
          : `Colours as the camera gave them: ${reason}`;
    const { source, mm_per_pixel: scale, uncertainty } = found.scale;
    if (source !== "none" && scale && uncertainty) this.#tellScale(`${scale.toFixed(4)} mm a pixel ± ${percent(uncertainty)}`);
    get<HTMLElement>("#measure-result").hidden = false;
  }

  async #keep(): Promise<void> {
    const fields = this.#drawn();
    fields.set("keep", "1");
    try {
      await this.#post(fields);
      location.assign(`${this.#href}?said=measured`);
    } catch (error) {
      this.#hint(messageOf(error), "error");
    }
  }

  #post<T>(fields: URLSearchParams): Promise<T> {
    const headers = { "X-CSRF-Token": csrfToken() };
    return askJson<T>(`${this.#href}/measurements`, { method: "POST", body: fields, headers });
  }

  async #normalise(button: HTMLButtonElement): Promise<void> {
    setPressed(button, !this.#colours.on);
    if (this.#colours.on) return this.#colours.hide();
    try {
      await this.#colours.show();
    } catch (error) {
      setPressed(button, false);
      this.#hint(error instanceof Error ? error.message : "The colours could not be shown.", "error");
    }
  }

  #offerKept(button: HTMLButtonElement): void {
    let hide: (() => void) | null = null;
    button.hidden = false;
    button.addEventListener("click", () => {
      if (hide) hide();
      hide = hide
        ? null
        : showKept(this.viewer, this.#size, button.dataset["kind"] ?? "", button.dataset["shape"] ?? "");
      setPressed(button, hide !== null);
    });
  }

  /** Pixels of the photo for each CSS pixel of the screen. */
  #perPixel(): number {
    return this.viewer.viewport.deltaPointsFromPixels(new OpenSeadragon.Point(1, 0), true).x * this.#size[0];
  }

  #hint(text: string, level = ""): void {
    const hint = get<HTMLElement>("#measure-hint");
    hint.dataset["level"] = level;
    hint.textContent = text;
  }

  #tellScale(text: string): void {
    get<HTMLOutputElement>("#measure-scale-said").value = text;
  }
}

const messageOf = (error: unknown): string =>
  error instanceof Refused ? error.message : "The server cannot be reached. Try again.";
