// The earlier photo of the same site and view, faint over the live picture, so that the next one matches it.
import { get } from "./dom.ts";
import { setPressed } from "./commands.ts";

export interface Prior {
  site: string;
  laterality: string | null;
  view: string;
  display: string;
  label: string;
}

export interface Framing {
  site: string | null;
  laterality: string | null;
  view: string | null;
}

/** Latest prior of the same site and side; the same view wins over any other. `priors` come latest first. */
export function findPrior(priors: Prior[], now: Framing): Prior | null {
  const here = priors.filter((prior) => prior.site === now.site && (!prior.laterality || prior.laterality === now.laterality));
  return here.find((prior) => prior.view === now.view) ?? null;
}

export class Ghost {
  #on = true;
  readonly #image = get<HTMLImageElement>("#ghost");
  readonly #bar = get<HTMLElement>("#ghost-bar");
  readonly #toggle = get<HTMLButtonElement>("#ghost-toggle");
  readonly #strength = get<HTMLInputElement>("#ghost-strength");

  constructor(readonly priors: Prior[]) {
    this.#toggle.addEventListener("click", () => {
      this.#on = !this.#on;
      this.#draw();
    });
    this.#strength.addEventListener("input", () => this.#draw());
  }

  show(now: Framing): void {
    const prior = findPrior(this.priors, now);
    this.#bar.hidden = !prior;
    if (prior && !this.#image.src.endsWith(prior.display)) this.#image.src = prior.display;
    if (prior) get("#ghost-label").textContent = prior.label;
    this.#draw();
  }

  /** Hidden while the photo just taken is judged. */
  pause(paused: boolean): void {
    this.#image.classList.toggle("visually-hidden", paused);
    this.#bar.classList.toggle("visually-hidden", paused);
  }

  #draw(): void {
    this.#image.hidden = this.#bar.hidden || !this.#on;
    this.#image.style.opacity = String(Number(this.#strength.value) / 100);
    setPressed(this.#toggle, this.#on);
  }
}
