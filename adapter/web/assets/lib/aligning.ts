// What the server says of each photo beside the reference: asked once per pair, told in words under the photo.
import { csrfToken, find, get } from "./dom.ts";
import { askJson, Refused } from "./http.ts";
import type { Points } from "./marking.ts";
import type { Comparison } from "./overlay.ts";

const VERDICTS: Record<Comparison["verdict"], [string, string]> = {
  aligned: ["badge-ok", "Aligned"],
  approximate: ["badge-warning", "Aligned only roughly"],
  "not-aligned": ["badge-warning", "Not aligned: compare side by side"],
};

const DAY = { day: "numeric", month: "short", year: "numeric" } as const;
const known = new Map<string, Promise<Comparison>>();

/** Once more where the server was away or busy for a moment: nobody should have to reload the page for that. */
async function askPatiently(address: string): Promise<Comparison> {
  try {
    return await askJson<Comparison>(address);
  } catch (error) {
    if (error instanceof Refused && error.status < 500) throw error;
    await new Promise((resume) => setTimeout(resume, 2000));
    return askJson<Comparison>(address);
  }
}

export function compare(reference: string, other: string): Promise<Comparison> {
  const address = `/comparison?media=${reference}&media=${other}`;
  const asked = known.get(address) ?? askPatiently(address);
  known.set(address, asked);
  asked.catch(() => known.delete(address));
  return asked;
}

async function change(path: string, fields: Record<string, string>): Promise<Comparison> {
  const headers = { "X-CSRF-Token": csrfToken() };
  const body = new URLSearchParams(fields);
  const found = await askJson<Comparison>(path, { method: "POST", body, headers });
  known.clear(); // the same points hold the other way round
  return found;
}

export function alignByHand(reference: string, other: string, points: Points): Promise<Comparison> {
  return change("/comparison", { left: reference, right: other, points: JSON.stringify(points) });
}

export const takeBack = (reference: string, other: string): Promise<Comparison> =>
  change("/comparison/take-back", { left: reference, right: other });

function badge(level: string, text: string): HTMLElement {
  const made = document.createElement("span");
  made.className = `badge ${level}`;
  made.textContent = text;
  return made;
}

/** The verdict in words, its reasons to be unfolded where it is good, and who placed points. */
export function tell(where: HTMLElement, found: Comparison | string | null): void {
  if (found === null) return where.replaceChildren(badge("badge-info", "Aligning"));
  if (typeof found === "string") return where.replaceChildren(badge("badge-warning", found));
  const [level, text] = VERDICTS[found.verdict];
  const why = document.createElement("span");
  why.className = "muted";
  const hand = found.by_hand;
  const by = hand ? `Points placed by ${hand.by}, ${new Date(hand.at).toLocaleDateString("en-GB", DAY)}. ` : "";
  why.textContent = by + (found.verdict === "aligned" ? "" : found.reasons.join(" "));
  const made = badge(level, text);
  made.title = found.reasons.join(" ");
  where.replaceChildren(made, " ", why);
}

/** What was answered instead of a verdict, and a button that asks again. */
export function tellProblem(where: HTMLElement, error: unknown, again: () => void): void {
  tell(where, error instanceof Error ? error.message : "This photo could not be aligned.");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "btn btn-small";
  button.textContent = "Try again";
  button.addEventListener("click", again);
  where.append(" ", button);
}

/** Which of a pane's buttons make sense now. */
export function offer(pane: HTMLElement, found: Comparison | null, isReference: boolean): void {
  get<HTMLElement>(".pane-tools", pane).hidden = false;
  get<HTMLElement>(".nudge", pane).hidden = isReference || !found || !!found.lattice;
  const mark = find<HTMLElement>("[data-mark]", pane);
  if (mark) mark.hidden = isReference || !found;
  const back = find<HTMLElement>("[data-take-back]", pane);
  if (back) back.hidden = isReference || !found?.by_hand;
  find(`[data-reference]`, pane)?.setAttribute("aria-pressed", String(isReference));
}
