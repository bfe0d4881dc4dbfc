// Choosing a body site: a grouped list with search (the ARIA combobox-with-listbox pattern).
import { get } from "./dom.ts";

export interface Site {
  code: string;
  display: string;
  group: string;
  lateral: boolean;
}

const RECENT = "This patient’s sites";

const words = (text: string): string[] => text.toLowerCase().split(/\s+/).filter(Boolean);

function matching(sites: Site[], query: string): Site[] {
  const wanted = words(query);
  return sites.filter((site) => {
    const text = `${site.display} ${site.group}`.toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
}

export class SitePicker {
  #chosen: Site | null = null;
  #options: HTMLElement[] = [];
  #active = 0;
  readonly #sheet = get<HTMLElement>("#sites");
  readonly #search = get<HTMLInputElement>("#site-search");
  readonly #list = get<HTMLElement>("#site-list");

  constructor(
    readonly sites: Site[],
    readonly recent: string[],
    readonly picked: (site: Site) => void,
  ) {
    this.#search.addEventListener("input", () => this.#show());
    this.#search.addEventListener("keydown", (event) => this.#key(event));
    // Emptied before it is shown, not after: "toggle" comes late, and would take away what was typed already.
    this.#sheet.addEventListener("beforetoggle", (event) => {
      if ((event as ToggleEvent).newState !== "open") return;
      this.#search.value = "";
      this.#show();
    });
    this.#list.addEventListener("click", (event) => {
      const option = event.target instanceof Element ? event.target.closest<HTMLElement>(".site-option") : null;
      if (option) this.#choose(option);
    });
  }

  open(): void {
    this.#sheet.showPopover();
  }

  select(code: string | null): void {
    this.#chosen = this.sites.find((site) => site.code === code) ?? null;
    if (this.#chosen) this.picked(this.#chosen);
  }

  #show(): void {
    const query = this.#search.value;
    const recent = query ? [] : this.sites.filter((site) => this.recent.includes(site.code));
    const groups = new Map<string, Site[]>(recent.length ? [[RECENT, recent]] : []);
    for (const site of matching(this.sites, query)) groups.set(site.group, [...(groups.get(site.group) ?? []), site]);
    this.#options = [];
    this.#list.replaceChildren(...[...groups].map(([name, sites]) => this.#group(name, sites)));
    if (!groups.size) this.#list.append(this.#text("site-none", "No body site matches. Try a wider word."));
    this.#activate(0);
  }

  #text(name: string, text: string): HTMLElement {
    const element = document.createElement("div");
    element.className = name;
    element.textContent = text;
    return element;
  }

  #group(name: string, sites: Site[]): HTMLElement {
    const group = document.createElement("div");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", name);
    const title = this.#text("site-group", name);
    title.setAttribute("aria-hidden", "true");
    group.append(title, ...sites.map((site) => this.#option(site)));
    return group;
  }

  #option(site: Site): HTMLElement {
    const option = this.#text("site-option", site.display);
    option.id = `site-${this.#options.length}`;
    option.dataset["code"] = site.code;
    option.setAttribute("role", "option");
    option.setAttribute("aria-selected", String(site.code === this.#chosen?.code));
    this.#options.push(option);
    return option;
  }

  #activate(index: number): void {
    this.#options[this.#active]?.classList.remove("active");
    this.#active = Math.max(0, Math.min(index, this.#options.length - 1));
    const option = this.#options[this.#active];
    option?.classList.add("active");
    option?.scrollIntoView({ block: "nearest" });
    this.#search.setAttribute("aria-activedescendant", option?.id ?? "");
  }

  #key(event: KeyboardEvent): void {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const option = this.#options[this.#active];
    if (step) this.#activate(this.#active + step);
    else if (event.key === "Enter" && option) this.#choose(option);
    else return;
    event.preventDefault();
  }

  #choose(option: HTMLElement): void {
    this.select(option.dataset["code"] ?? null);
    this.#sheet.hidePopover();
  }
}
