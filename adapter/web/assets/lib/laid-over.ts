// The modes that lay the two photos of the comparison page over each other: asked for at once, usable when aligned.
import { bindCommands, setPressed } from "./commands.ts";
import { all, find, get } from "./dom.ts";
import { askJson } from "./http.ts";
import { type Comparison, Overlay, OVERLAYS, type OverlayMode } from "./overlay.ts";
import { arrowOf, panBy, type Viewer } from "./viewer.ts";

const VERDICTS: Record<Comparison["verdict"], [string, string]> = {
  aligned: ["badge-ok", "Aligned"],
  approximate: ["badge-warning", "Aligned only roughly"],
  "not-aligned": ["badge-warning", "Not aligned: compare side by side"],
};
const WORDS: Record<string, string> = {
  side: "Side by side",
  slider: "Slider: the first photo left of the line, the second right of it",
  blend: "Blend: how much of each photo is shown",
  blink: "Blink: the photos take turns; press space to change by hand",
  change: "Change: where the colours differ",
};

export class LaidOver {
  #overlay: Overlay | null = null;
  #found: Comparison | null = null;
  #mode: "side" | OverlayMode = "side";
  readonly #modes = get<HTMLElement>("#modes");
  readonly #share = get<HTMLInputElement>("#share");

  constructor(
    readonly sideBySide: HTMLElement,
    readonly say: (text: string) => void,
  ) {
    const commands = Object.fromEntries(["side", ...OVERLAYS].map((mode) => [mode, () => this.#show(mode)]));
    bindCommands(this.#modes, commands, Object.fromEntries(["side", ...OVERLAYS].map((mode, n) => [`${n + 1}`, mode])));
    this.#share.addEventListener("input", () => this.#overlay && (this.#overlay.share = this.#share.valueAsNumber / 100));
    void this.#ask();
  }

  /** The viewer in use, null side by side. */
  get viewer(): Viewer | null {
    return this.#mode === "side" ? null : (this.#overlay?.viewer ?? null);
  }

  async #ask(): Promise<void> {
    try {
      this.#found = await askJson<Comparison>(this.#modes.dataset["comparison"] ?? "");
    } catch (error) {
      this.#tell("badge-warning", error instanceof Error ? error.message : "The photos could not be aligned.");
      return;
    }
    const { verdict, reasons } = this.#found;
    this.#tell(...VERDICTS[verdict], verdict === "aligned" ? "" : reasons.join(" "));
    get("#verdict").setAttribute("title", reasons.join(" "));
    if (verdict === "not-aligned") return;
    for (const button of all<HTMLButtonElement>("[data-do]", this.#modes)) button.disabled = false;
    this.#list();
  }

  #tell(level: string, text: string, why = ""): void {
    const badge = document.createElement("span");
    badge.className = `badge ${level}`;
    badge.textContent = text;
    const reason = document.createElement("span");
    reason.className = "muted";
    reason.textContent = why;
    get("#verdict").replaceChildren(badge, " ", reason);
  }

  #show(name: string): void {
    const mode = name as "side" | OverlayMode;
    if (mode !== "side" && !this.#found?.pictures.aligned) return;
    this.#mode = mode;
    for (const button of all<HTMLButtonElement>("[data-do]", this.#modes)) {
      setPressed(button, button.dataset["do"] === mode);
    }
    get<HTMLElement>("#overlay").hidden = mode === "side";
    this.sideBySide.hidden = mode !== "side";
    get<HTMLElement>("#changes").hidden = mode !== "change";
    get<HTMLElement>("#share-label").hidden = mode !== "slider" && mode !== "blend";
    for (const name of ["link", "swap"]) get<HTMLButtonElement>(`#tools [data-do="${name}"]`).disabled = mode !== "side";
    this.say(WORDS[mode] ?? "");
    if (mode === "side") this.#overlay?.stop();
    else this.#open().mode = mode;
  }

  #open(): Overlay {
    if (this.#overlay) return this.#overlay;
    const stage = get<HTMLElement>("#laid");
    const overlay = new Overlay(stage, this.#found?.pictures ?? {});
    stage.addEventListener("keydown", (event) => {
      const arrow = arrowOf(event.key);
      if (!arrow && event.key !== " ") return;
      event.preventDefault();
      if (arrow) panBy(overlay.viewer, ...arrow);
      else overlay.blink();
    });
    this.#overlay = overlay;
    return overlay;
  }

  #list(): void {
    const found = this.#found;
    if (!found?.change) return;
    const items = found.change.regions.map((region, index) => {
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
    const { method, version } = found.change;
    get("#method").textContent = `Aligned by ${found.method} (${found.version}); changes by ${method} (${version}).`;
    find("#changes")?.classList.toggle("is-empty", items.length === 0);
  }
}
