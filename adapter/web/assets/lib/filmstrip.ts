// The strip of photos by date: arrows walk it, [ and ] open the one before and after from anywhere on the page.
import { all, find, isTyping } from "./dom.ts";

export function bindStrip(strip: HTMLElement): void {
  const frames = all<HTMLElement>(".strip-one", strip);
  const linkOf = (index: number): HTMLAnchorElement | null =>
    frames[index] ? find<HTMLAnchorElement>("a:not(.strip-toggle)", frames[index]) : null;

  strip.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const at = frames.findIndex((one) => one.contains(document.activeElement));
    if (!step || at < 0) return;
    event.preventDefault();
    linkOf(at + step)?.focus();
  });
  document.addEventListener("keydown", (event) => {
    const step = { "[": -1, "]": 1 }[event.key];
    if (!step || isTyping(event) || event.ctrlKey || event.metaKey) return;
    const first = frames.findIndex((one) => "current" in one.dataset);
    linkOf(first + step)?.click();
  });
  const current = find<HTMLElement>("[data-current]", strip);
  if (current) strip.scrollLeft = current.offsetLeft - strip.offsetLeft - strip.clientWidth / 2;
}
