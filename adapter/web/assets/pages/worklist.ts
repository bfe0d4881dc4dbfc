// The worklist by keys: the next one and the one before, a candidate by its number, confirmed with Enter.
import { bindCommands } from "../lib/commands.ts";
import { all, find, get, isTyping } from "../lib/dom.ts";
import { askPage } from "../lib/http.ts";
import { keepFresh } from "../lib/live.ts";

const list = get<HTMLElement>("#list");
const detail = get<HTMLElement>("#detail");
const links = (): HTMLAnchorElement[] => all<HTMLAnchorElement>(".wait > a", list);

function mark(id: string): void {
  for (const link of links()) {
    if (link.id === `open-${id}`) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

/** Show what `link` opens without leaving the list; where that fails the link still works as a link. */
async function open(link: HTMLAnchorElement): Promise<void> {
  const page = await askPage(link.href);
  const fresh = page && find<HTMLElement>("#detail", page);
  if (!fresh?.dataset["id"]) {
    location.assign(link.href);
    return;
  }
  detail.replaceChildren(...fresh.childNodes);
  detail.dataset["id"] = fresh.dataset["id"];
  history.replaceState(null, "", link.href);
  mark(fresh.dataset["id"]);
  link.scrollIntoView({ block: "nearest" });
  detail.focus({ preventScroll: true });
  const place = links().indexOf(link) + 1;
  get("#said").textContent = `${place} of ${links().length}: ${find("h2", detail)?.textContent ?? ""}`;
}

function step(by: 1 | -1): void {
  const all = links();
  const here = all.findIndex((link) => link.id === `open-${detail.dataset["id"] ?? ""}`);
  const next = all[here + by];
  if (next) void open(next);
  else if (by === 1) find<HTMLAnchorElement>("#further", list)?.click();
}

function choose(key: string): void {
  const radio = find<HTMLInputElement>(`input[data-key="${key}"]:enabled`, detail);
  if (!radio) return;
  radio.checked = true;
  get<HTMLElement>("#choose-first", detail).hidden = true;
  radio.closest("label")?.scrollIntoView({ block: "nearest" });
  get("#said").textContent = `Chosen: ${nameOf(radio)}`;
}

const nameOf = (radio: HTMLInputElement): string =>
  find(".candidate-name", radio.closest("label") ?? document)?.textContent ?? "";

/** Step two: say aloud whose it will be, and wait for yes. */
function ask(form: HTMLFormElement): void {
  const chosen = find<HTMLInputElement>('input[name="patient"]:checked', form);
  get<HTMLElement>("#choose-first", form).hidden = chosen !== null;
  if (!chosen) return; // the form's own complaint would take the keys away from the list
  get("#confirm-name").textContent = nameOf(chosen);
  get("#confirm-facts").textContent = find(".candidate-facts", chosen.closest("label") ?? form)?.textContent ?? "";
  get<HTMLElement>("#confirm").showPopover();
  get<HTMLButtonElement>("#confirm-give").focus();
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!(form instanceof HTMLFormElement) || form.id !== "settle" || event.submitter?.id === "confirm-give") return;
  event.preventDefault();
  ask(form);
});

document.addEventListener("change", (event) => {
  if (event.target instanceof HTMLInputElement && event.target.matches("#settle input:checked:not(:focus-visible)")) {
    event.target.blur(); // chosen with the mouse: the keys go on working
  }
});

document.addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest<HTMLAnchorElement>(".wait > a") : null;
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  void open(link).then(() => detail.scrollIntoView({ block: "nearest" }));
});

document.addEventListener("keydown", (event) => {
  const free = document.activeElement === document.body || document.activeElement === detail;
  const form = find<HTMLFormElement>("#settle", detail);
  if (event.key !== "Enter" || !free || isTyping(event) || !form || !find("#give", form)) return;
  event.preventDefault();
  ask(form);
});

const digits = Object.fromEntries([..."123456789"].map((key) => [key, () => choose(key)]));
bindCommands(
  get("#keys"),
  {
    ...digits,
    next: () => step(1),
    previous: () => step(-1),
    find: () => find<HTMLInputElement>("#q", detail)?.focus(),
    ask: () => find<HTMLButtonElement>("#ask", detail)?.click(),
    replay: () => find<HTMLButtonElement>("#replay", detail)?.click(),
    help: () => get<HTMLElement>("#help").togglePopover(),
  },
  {
    ...Object.fromEntries([..."123456789"].map((key) => [key, key])),
    j: "next",
    k: "previous",
    "/": "find",
    e: "ask",
    r: "replay",
    "?": "help",
  },
);
keepFresh("list", Number(list.dataset["refresh"]));
new MutationObserver(() => mark(detail.dataset["id"] ?? "")).observe(list, { childList: true });
