// Recording consent beside the camera, without leaving it.
import { all, find, get } from "./dom.ts";
import { askJson } from "./http.ts";
import { SignaturePad } from "./signature.ts";

interface Recorded {
  id: string;
  summary: string;
}

/** What is still missing for the chosen way of giving consent; null when complete. */
function missingIn(form: FormData, pad: SignaturePad): string | null {
  const method = form.get("method");
  const evidence = form.get("evidence");
  if (method === "verbal" && !form.get("statement_read")) return "Tick that you explained the photo and the patient agreed.";
  if (method === "signature" && pad.empty) return "Ask the patient to sign in the box.";
  if (method === "paper" && !(evidence instanceof File && evidence.size)) return "Add a photo of the signed form.";
  if (form.get("given_by") === "representative" && !form.get("given_by_name")) return "Write the representative’s name.";
  return null;
}

function showParts(form: HTMLFormElement): void {
  const chosen = new FormData(form);
  for (const part of all<HTMLElement>("[data-method]", form)) part.hidden = part.dataset["method"] !== chosen.get("method");
  for (const part of all<HTMLElement>("[data-given-by]", form)) part.hidden = part.dataset["givenBy"] !== chosen.get("given_by");
}

async function bodyOf(form: HTMLFormElement, pad: SignaturePad): Promise<FormData> {
  const body = new FormData(form);
  if (body.get("method") !== "paper") body.delete("evidence");
  const signature = body.get("method") === "signature" ? await pad.toPng() : null;
  if (signature) body.set("evidence", signature, "signature.png");
  return body;
}

/** Wire the consent form, if the page has one. Photos find what was recorded by their patient. */
export function bindConsent(): void {
  const form = find<HTMLFormElement>("#consent-form");
  if (!form) return;
  const pad = new SignaturePad(get<HTMLCanvasElement>("#signature"));
  const problem = get<HTMLElement>("#consent-error");
  const complain = (text: string): void => {
    problem.textContent = text;
    problem.hidden = !text;
  };

  get("#signature-clear").addEventListener("click", () => pad.clear());
  form.addEventListener("change", () => showParts(form));
  showParts(form);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const missing = missingIn(new FormData(form), pad);
    complain(missing ?? "");
    if (missing) return;
    try {
      const answer = await askJson<Recorded>(form.action, { method: "POST", body: await bodyOf(form, pad) });
      showRecorded(form, answer.summary);
    } catch (error) {
      complain(error instanceof Error ? error.message : "Consent could not be recorded. Try again.");
    }
  });
}

function showRecorded(form: HTMLFormElement, summary: string): void {
  get("#consent-summary").textContent = summary;
  get<HTMLElement>("#consent-recorded").hidden = false;
  const badge = get(".badge", get("#consent"));
  badge.className = "badge badge-ok";
  badge.textContent = "recorded";
  form.remove();
  get<HTMLElement>("#consent > summary").focus();
}
