// The modes that lay one photo of the comparison page over the reference: usable as soon as the two are aligned.
import { Blink } from "./blink.ts";
import { bindCommands, setPressed } from "./commands.ts";
import { all, get } from "./dom.ts";
import { type Comparison, Overlay, OVERLAYS, type OverlayMode } from "./overlay.ts";
import { arrowOf, panBy, type Viewer } from "./viewer.ts";

const WORDS: Record<string, string> = {
  side: "Side by side",
  slider: "Slider: the first photo left of the line, the second right of it",
  blend: "Blend: how much of each photo is shown",
  blink: "Blink: the photos take turns; space changes by hand",
  difference: "Difference, brightened: black where both photos are alike",
  change: "Change: where the colours differ",
};

/** A photo beside its reference, and what is known of the two. */
export interface Laid {
  reference: HTMLElement; // its .pane
  other: HTMLElement;
  found: Comparison;
  inCardColours: () => Promise<[string, string]>; // pictures of both; rejects with the reason
}

const dayOf = (pane: HTMLElement): string => pane.dataset["day"] ?? "";

export class LaidOver {
  #overlay: Overlay | null = null;
  #laid: Laid | null = null;
  #mode: "side" | OverlayMode = "side";
  #byCard = false;
  readonly #modes = get<HTMLElement>("#modes");
  readonly #stage = get<HTMLElement>("#laid");
  readonly #share = get<HTMLInputElement>("#share");
  readonly #blink = new Blink((second) => this.#turn(second));

  constructor(
    readonly sideBySide: HTMLElement,
    readonly say: (text: string) => void,
    readonly zoomed: () => void,
  ) {
    const commands = Object.fromEntries(["side", ...OVERLAYS].map((mode) => [mode, () => this.show(mode)]));
    bindCommands(this.#modes, commands, Object.fromEntries(["side", ...OVERLAYS].map((mode, n) => [`${n + 1}`, mode])));
    this.#share.addEventListener("input", () => this.#overlay && (this.#overlay.share = this.#share.valueAsNumber / 100));
    this.#stage.addEventListener("keydown", (event) => {
      const arrow = arrowOf(event.key);
      if ((!arrow && event.key !== " ") || !this.#overlay) return;
      event.preventDefault();
      if (arrow) panBy(this.#overlay.viewer, ...arrow);
      else if (this.#mode === "blink") this.#blink.step();
    });
  }

  /** The viewer in use, null side by side. */
  get viewer(): Viewer | null {
    return this.#mode === "side" ? null : (this.#overlay?.viewer ?? null);
  }

  /** Which photos are laid over each other; null while there are none that are aligned. */
  set laid(laid: Laid | null) {
    this.#laid = laid?.found.pictures.aligned ? laid : null;
    this.#overlay?.close();
    this.#overlay = null;
    for (const mode of OVERLAYS) get<HTMLButtonElement>(`[data-do="${mode}"]`, this.#modes).disabled = !this.#laid;
    this.show(this.#laid ? this.#mode : "side");
  }

  /** Whether both are shown in the colours that their cards tell; it says where that cannot be. */
  set byCard(on: boolean) {
    this.#byCard = on;
    void this.#colour();
  }

  show(name: string): void {
    const mode = name as "side" | OverlayMode;
    if (mode !== "side" && !this.#laid) return;
    const isNew = mode !== this.#mode;
    this.#mode = mode;
    for (const button of all<HTMLButtonElement>("[data-do]", this.#modes)) {
      setPressed(button, button.dataset["do"] === mode);
    }
    get<HTMLElement>("#overlay").hidden = mode === "side";
    this.sideBySide.hidden = mode !== "side";
    this.#stage.classList.toggle("stage-difference", mode === "difference");
    get<HTMLElement>("#changes").hidden = mode !== "change";
    get<HTMLElement>("#blinking").hidden = mode !== "blink";
    get<HTMLElement>("#share-label").hidden = mode !== "slider" && mode !== "blend";
    for (const button of all<HTMLButtonElement>("#tools [data-do=link], #tools [data-do=swap], #tools [data-do=loupe]")) {
      button.disabled = mode !== "side";
    }
    if (isNew) this.say(WORDS[mode] ?? "");
    this.#blink.stop();
    if (mode === "side") return;
    const overlay = this.#open();
    overlay.share = this.#share.valueAsNumber / 100;
    overlay.mode = mode;
    if (mode === "blink") this.#blink.start();
  }

  #turn(second: boolean): void {
    const shown = second ? this.#laid?.other : this.#laid?.reference;
    if (this.#overlay) this.#overlay.share = second ? 1 : 0;
    get<HTMLOutputElement>("#blink-shown").value = shown ? dayOf(shown) : "";
  }

  #open(): Overlay {
    const laid = this.#laid;
    if (this.#overlay || !laid) return this.#overlay as Overlay;
    Object.assign(this.#stage.dataset, get<HTMLElement>(".stage", laid.reference).dataset);
    get("#share-left").textContent = dayOf(laid.reference);
    get("#share-right").textContent = dayOf(laid.other);
    this.#list(laid.found);
    this.#overlay = new Overlay(this.#stage, laid.found);
    this.#overlay.viewer.addHandler("zoom", this.zoomed);
    void this.#colour();
    return this.#overlay;
  }

  async #colour(): Promise<void> {
    const [overlay, said] = [this.#overlay, get("#laid-colours")];
    overlay?.colour(null);
    said.textContent = "";
    if (!overlay || !this.#laid || !this.#byCard) return;
    const stillAsked = (): boolean => overlay === this.#overlay && this.#byCard;
    try {
      const pictures = await this.#laid.inCardColours();
      if (!stillAsked()) return;
      overlay.colour(pictures);
      said.textContent = "Colours by the cards";
    } catch (error) {
      if (stillAsked()) said.textContent = `Colours as photographed. ${error instanceof Error ? error.message : ""}`;
    }
  }

  #list(found: Comparison): void {
    const items = (found.change?.regions ?? []).map((region, index) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.className = "btn btn-small";
      button.type = "button";
      button.textContent = `Place ${index + 1}: colour difference ${region.difference.toFixed(0)}`;
      button.addEventListener("click", () => this.#overlay?.visit(region, found.width));
      item.append(button, ...(region.certain ? [] : [" uncertain: the skin around it could not be followed"]));
      return item;
    });
    const none = document.createElement("li");
    none.textContent = "No place differs by more than light and focus explain.";
    get("#regions").replaceChildren(...(items.length ? items : [none]));
    const change = found.change ? `; changes by ${found.change.method} (${found.change.version})` : "";
    get("#method").textContent = `Aligned by ${found.method} (${found.version})${change}.`;
  }
}
