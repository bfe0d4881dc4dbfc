// The patient's photos: selection, the rest of a long list while scrolling, and photos that arrive meanwhile.
import { find, get, settled } from "../lib/dom.ts";
import { askPage } from "../lib/http.ts";
import { mergeGroups } from "../lib/merge.ts";
import { watchSelection } from "../lib/selection.ts";

function loadMoreOnScroll(groups: HTMLElement): void {
  let link = find<HTMLAnchorElement>("#more");
  if (!link) return;
  let busy = false;

  const load = async (): Promise<void> => {
    if (!link || busy) return;
    busy = true;
    link.setAttribute("aria-disabled", "true");
    const page = await askPage(link.href);
    busy = false;
    link.removeAttribute("aria-disabled");
    if (!page) return; // the link still works as a link
    mergeGroups(groups, page, "end");
    const next = find<HTMLAnchorElement>("#more", page);
    if (next) {
      link.href = next.href;
      watcher.unobserve(link); // observe anew: it may still be in view
      watcher.observe(link);
    } else {
      watcher.disconnect();
      link.parentElement?.remove();
      link = null;
    }
  };
  const watcher = new IntersectionObserver((seen) => void (seen.some((entry) => entry.isIntersecting) && load()), {
    rootMargin: "1200px",
  });
  watcher.observe(link);
  link.addEventListener("click", (event) => {
    event.preventDefault();
    void load();
  });
}

function showArrivals(groups: HTMLElement): void {
  const url = groups.dataset["events"];
  if (!url) return;
  const look = settled(400, async () => {
    const page = await askPage(location.href);
    const count = page ? mergeGroups(groups, page, "start") : 0;
    if (count) get("#arrivals").textContent = `${count} new photo${count === 1 ? "" : "s"}`;
  });
  const source = new EventSource(url);
  source.addEventListener("media", look);
  source.addEventListener("delivery", look);
}

const groups = get<HTMLElement>("#groups");
watchSelection(get<HTMLFormElement>("#selection"));
loadMoreOnScroll(groups);
showArrivals(groups);
