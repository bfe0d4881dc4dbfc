// Take photos: look, shoot, judge, save. Files can be chosen or dropped instead. Nothing touches browser storage.
import { Camera, NoCamera } from "../lib/camera.ts";
import { bindConsent } from "../lib/consent.ts";
import { all, find, get, isTyping, readJson } from "../lib/dom.ts";
import { Ghost, type Prior } from "../lib/ghost.ts";
import { type Site, SitePicker } from "../lib/sites.ts";
import { Tray } from "../lib/tray.ts";
import type { Metadata } from "../lib/upload.ts";

interface Options {
  upload: string;
  status: string;
  patient: string | null;
  encounter: string | null;
  lesion: string | null;
  max_bytes: number;
  types: string[];
  site_required: boolean;
  sites: Site[];
  recent: string[];
  priors: Prior[];
}

const options = readJson<Options>("#capture-options");
const finder = get<HTMLElement>("#finder");
const shutter = get<HTMLButtonElement>("#shutter");
const shot = get<HTMLImageElement>("#shot");
const files = get<HTMLInputElement>("#files");
const saveAll = get<HTMLButtonElement>("#save-all");
const siteButton = get<HTMLButtonElement>("#site-open");
const sides = get<HTMLFieldSetElement>("#laterality");
const camera = new Camera(get<HTMLVideoElement>("#video"));
const ghost = new Ghost(options.priors);
let site: Site | null = null;
let taken: { blob: Blob; at: string; url: string } | null = null;
let afterSite: (() => void) | null = null;

const radio = (name: string): string | null => find<HTMLInputElement>(`input[name="${name}"]:checked`)?.value ?? null;
const side = (): string | null => (site?.lateral ? radio("laterality") : null);

const sensitivities = (): HTMLInputElement[] => all<HTMLInputElement>('input[name="sensitivity"]:checked');

// -- what and where -------------------------------------------------------------------------------------------------

const picker = new SitePicker(options.sites, options.recent, (picked) => {
  site = picked;
  get("#site-name").textContent = picked.display;
  showFraming();
  const go = afterSite;
  afterSite = null;
  go?.();
});

function showFraming(): void {
  sides.hidden = !site?.lateral;
  siteButton.classList.toggle("missing", false);
  ghost.show({ site: site?.code ?? null, laterality: side(), view: radio("view") });
}

/** Also where the panel is closed: what is ticked holds for the next photo too. */
function showSensitivity(): void {
  const said = get<HTMLElement>("#sensitive-said");
  said.textContent = sensitivities()
    .map((box) => box.dataset["label"])
    .join(", ");
  said.hidden = !said.textContent;
}

/** True when the photo may be saved; else asks for what is missing and goes on by itself once the site is chosen. */
function isFramed(then: () => void): boolean {
  if (!options.site_required || (site && (!site.lateral || side()))) return true;
  if (!site) {
    afterSite = then;
    siteButton.classList.add("missing");
    picker.open();
  } else {
    get("#said").textContent = "Choose the side";
    get<HTMLInputElement>("input", sides).focus();
    sides.classList.add("missing");
  }
  return false;
}

function nameOf(): string {
  const chosen = find<HTMLInputElement>('input[name="laterality"]:checked');
  const word = site?.lateral ? (chosen?.nextElementSibling?.textContent ?? "") : "";
  return [word, site?.display ?? "Body site not set"].filter(Boolean).join(" · ");
}

function describe(present: Partial<Metadata> = {}): Metadata {
  return {
    patient: options.patient,
    encounter: options.encounter,
    lesion: options.lesion,
    body_site: site?.code ?? null,
    laterality: side(),
    view: radio("view"),
    sensitivity: sensitivities().map((box) => box.value),
    ...present,
  };
}

// -- the photos of this session -------------------------------------------------------------------------------------

const tray = new Tray(get("#tray"), get<HTMLTemplateElement>("#tray-item"), options, () => {
  saveAll.hidden = tray.ready === 0;
  saveAll.textContent = `Save ${tray.ready} photo${tray.ready === 1 ? "" : "s"}`;
});

function addFiles(list: Iterable<File>): void {
  const refused: string[] = [];
  for (const file of list) {
    if (file.size > options.max_bytes) refused.push(file.name);
    else tray.add(file, file.name, describe(), false);
  }
  const limit = Math.round(options.max_bytes / 1e6);
  if (refused.length) get("#tray-note").textContent = `Too large (over ${limit} MB): ${refused.join(", ")}`;
}

function saveReady(): void {
  if (isFramed(saveReady)) tray.saveAll(() => describe());
}

// -- shutter --------------------------------------------------------------------------------------------------------

/** Local time with its offset, as FHIR instants want it. */
function localInstant(now: Date): string {
  const offset = -now.getTimezoneOffset();
  const zone = `${offset < 0 ? "-" : "+"}${[Math.abs(offset) / 60, Math.abs(offset) % 60].map((n) => String(Math.trunc(n)).padStart(2, "0")).join(":")}`;
  return new Date(now.getTime() + offset * 60_000).toISOString().slice(0, 19) + zone;
}

function judge(blob: Blob | null): void {
  if (taken) URL.revokeObjectURL(taken.url);
  taken = blob && { blob, at: localInstant(new Date()), url: URL.createObjectURL(blob) };
  if (taken) shot.src = taken.url;
  else shot.removeAttribute("src");
  shot.hidden = !taken;
  get<HTMLElement>("#judge").hidden = !taken;
  get<HTMLElement>("#shutter-bar").hidden = Boolean(taken);
  ghost.pause(Boolean(taken));
  (taken ? get<HTMLElement>("#keep") : shutter).focus({ preventScroll: true });
}

async function shoot(): Promise<void> {
  if (shutter.disabled) return;
  shutter.disabled = true;
  try {
    judge(await camera.shoot());
    shutter.disabled = false;
  } catch (error) {
    showNoCamera(error);
  }
}

function keep(): void {
  if (!taken || !isFramed(keep)) return;
  tray.add(taken.blob, nameOf(), describe({ taken_at: taken.at, ...(camera.label ? { device: camera.label } : {}) }), true);
  judge(null);
}

function showNoCamera(error: unknown): void {
  const reason = error instanceof Error ? error.message : "The camera could not be started.";
  get("#why").textContent = reason;
  get<HTMLElement>("#tab").hidden = !(error instanceof NoCamera && error.framed);
  get<HTMLElement>("#none").hidden = false;
  shutter.disabled = true;
  ghost.pause(true);
}

async function startCamera(): Promise<void> {
  try {
    await camera.start();
    get<HTMLElement>("#none").hidden = true;
    shutter.disabled = false;
    ghost.pause(Boolean(taken));
    get<HTMLElement>("#flip").hidden = !(await camera.hasSeveral());
  } catch (error) {
    showNoCamera(error);
  }
}

// -- wiring ---------------------------------------------------------------------------------------------------------

shutter.addEventListener("click", () => void shoot());
get("#retake").addEventListener("click", () => judge(null));
get("#keep").addEventListener("click", keep);
get("#flip").addEventListener("click", () => void camera.flip().catch(showNoCamera));
get("#retry").addEventListener("click", () => void startCamera());
saveAll.addEventListener("click", saveReady);
for (const button of all("[data-choose]")) button.addEventListener("click", () => files.click());
files.addEventListener("change", () => {
  addFiles(files.files ?? []);
  files.value = "";
});
for (const field of all('input[name="laterality"], input[name="view"]')) {
  field.addEventListener("change", () => {
    sides.classList.remove("missing");
    showFraming();
  });
}
get("#sensitivities").addEventListener("change", showSensitivity);
document.addEventListener("keydown", (event) => {
  const elsewhere = event.target instanceof Element && event.target.closest("button, a, summary, canvas");
  if (isTyping(event) || elsewhere || taken || ![" ", "Enter"].includes(event.key)) return;
  event.preventDefault();
  void shoot();
});
for (const kind of ["dragover", "dragleave", "drop"] as const) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    finder.classList.toggle("dropping", kind === "dragover");
    if (kind === "drop") addFiles(event.dataTransfer?.files ?? []);
  });
}
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") camera.stop();
  else if (get<HTMLElement>("#none").hidden) void startCamera();
});
window.addEventListener("beforeunload", (event) => void (tray.unsaved > 0 && event.preventDefault()));
bindConsent();
picker.select(get<HTMLElement>("#capture").dataset["site"] || null);
showFraming();
showSensitivity(); // a browser that goes back ticks again
void startCamera();
