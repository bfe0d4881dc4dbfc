// Bringing a newer or longer copy of the timeline into the one on the screen without losing selection or scroll.
import { all, find } from "./dom.ts";

type Where = "start" | "end";

function put(into: Element, tiles: Element[], where: Where): void {
  if (where === "end") into.append(...tiles);
  else into.prepend(...tiles);
}

function mergeGroup(present: Element, fresh: Element, known: Map<string, Element>, where: Where): number {
  const added: Element[] = [];
  for (const tile of all<HTMLElement>(".tile", fresh)) {
    const shown = known.get(tile.dataset["id"] ?? "");
    const states = find(".tile-states", tile);
    if (shown && states) find(".tile-states", shown)?.replaceWith(states);
    if (!shown) added.push(tile);
  }
  if (where === "start") for (const tile of added) tile.classList.add("tile-new");
  const tiles = find(".tiles", present);
  if (tiles) put(tiles, added, where);
  return added.length;
}

/** Merge the groups of `page` into `target`; returns how many photos are new. Known photos only get new states. */
export function mergeGroups(target: Element, page: Document, where: Where): number {
  const known = new Map(all<HTMLElement>(".tile", target).map((tile) => [tile.dataset["id"] ?? "", tile]));
  const shown = new Map(all<HTMLElement>(".group", target).map((group) => [group.dataset["key"], group]));
  const strangers: Element[] = [];
  let count = 0;
  for (const fresh of all<HTMLElement>("#groups > .group", page)) {
    const present = shown.get(fresh.dataset["key"]);
    if (present) {
      count += mergeGroup(present, fresh, known, where);
    } else {
      count += all(".tile", fresh).length;
      strangers.push(fresh);
    }
  }
  put(target, strangers, where);
  return count;
}
