// A region of a page that keeps itself current by asking for the same page again.
import { find } from "./dom.ts";
import { askPage } from "./http.ts";

const inUse = (region: Element): boolean => {
  const focused = document.activeElement;
  if (region.querySelector("details[open]")) return true; // what was typed there would be lost
  return focused !== null && region.contains(focused) && focused.matches("select, input, textarea");
};

/** Replace #`id` by its fresh copy, keeping the focus on the element of the same id. */
export async function refreshRegion(id: string): Promise<void> {
  const page = await askPage(location.href);
  const [region, fresh] = [find<HTMLElement>(`#${id}`), page && find<HTMLElement>(`#${id}`, page)];
  if (!region || !fresh || inUse(region)) return;
  const focused = region.contains(document.activeElement) ? document.activeElement?.id : "";
  region.replaceChildren(...fresh.childNodes);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

export function keepFresh(id: string, seconds: number): void {
  if (seconds <= 0) return;
  setInterval(() => void (document.visibilityState === "visible" && refreshRegion(id)), seconds * 1000);
}
