// The photos of this session, each with its state, from "ready" to "in chart". Held in memory only.
import { get } from "./dom.ts";
import { follow, type Metadata, newKey, type Outgoing, standingOf, upload } from "./upload.ts";

const LANES = 2;
const PREVIEW_WIDTH = 192;

interface Shot extends Outgoing {
  row: HTMLLIElement;
  state: "ready" | "waiting" | "sending" | "failed" | "stored";
}

/** A small picture of `blob`, so that the large one need not stay decoded; null where the browser cannot read it. */
async function previewOf(blob: Blob): Promise<string | null> {
  try {
    const bitmap = await createImageBitmap(blob, { resizeWidth: PREVIEW_WIDTH, imageOrientation: "from-image" });
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
    canvas.getContext("2d")?.drawImage(bitmap, 0, 0);
    bitmap.close();
    const small = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/jpeg"));
    return small && URL.createObjectURL(small);
  } catch {
    return null;
  }
}

export class Tray {
  #shots = new Set<Shot>();
  #sending = 0;

  constructor(
    readonly list: HTMLElement,
    readonly template: HTMLTemplateElement,
    readonly urls: { upload: string; status: string },
    readonly changed: () => void,
  ) {}

  /** Photos that would be lost if the page were left now. */
  get unsaved(): number {
    return [...this.#shots].filter((shot) => shot.state !== "stored").length;
  }

  get ready(): number {
    return [...this.#shots].filter((shot) => shot.state === "ready").length;
  }

  /** Put a photo in the tray: sent at once, or "ready" until `saveAll`. */
  add(blob: Blob, name: string, metadata: Metadata, sendNow: boolean): void {
    const row = this.template.content.firstElementChild?.cloneNode(true) as HTMLLIElement;
    const shot: Shot = { key: newKey(), blob, metadata, row, state: sendNow ? "waiting" : "ready" };
    this.#shots.add(shot);
    this.list.prepend(row);
    get(".shot-name", row).textContent = name;
    get(".shot-again", row).addEventListener("click", () => this.#queue(shot));
    get(".shot-drop", row).addEventListener("click", () => this.#drop(shot));
    void previewOf(blob).then((url) => url && (get<HTMLImageElement>("img", row).src = url));
    this.#tell(shot, "plain", "Ready to save");
    if (sendNow) this.#queue(shot);
    this.changed();
  }

  /** Send everything that is ready; `complete` may fill in what was chosen since. */
  saveAll(complete: (metadata: Metadata) => Metadata): void {
    for (const shot of this.#shots) {
      if (shot.state !== "ready") continue;
      shot.metadata = complete(shot.metadata);
      this.#queue(shot);
    }
  }

  #queue(shot: Shot): void {
    shot.state = "waiting";
    this.#tell(shot, "plain", "Waiting to be sent");
    void this.#next();
  }

  async #next(): Promise<void> {
    const shot = [...this.#shots].find((candidate) => candidate.state === "waiting");
    if (!shot || this.#sending >= LANES) return this.changed();
    this.#sending += 1;
    await this.#send(shot);
    this.#sending -= 1;
    void this.#next();
  }

  async #send(shot: Shot): Promise<void> {
    const bar = get<HTMLProgressElement>("progress", shot.row);
    shot.state = "sending";
    this.#tell(shot, "info", "Sending");
    bar.hidden = false;
    void this.#next(); // the other lane
    try {
      const receipt = await upload(this.urls.upload, shot, (part) => (bar.value = part));
      shot.state = "stored";
      shot.blob = new Blob(); // nothing stays in memory that the server holds
      const standing = standingOf(receipt);
      this.#tell(shot, standing.level, standing.text);
      if (!standing.settled) {
        const url = this.urls.status.replace("{id}", encodeURIComponent(receipt.id));
        void follow(url, (now) => this.#tell(shot, now.level, now.text));
      }
    } catch (error) {
      shot.state = "failed";
      this.#tell(shot, "error", `Not saved: ${error instanceof Error ? error.message : "unknown error"}`);
    }
    bar.hidden = true;
  }

  #drop(shot: Shot): void {
    this.#shots.delete(shot);
    shot.row.remove();
    this.changed();
  }

  #tell(shot: Shot, level: string, text: string): void {
    const state = get<HTMLElement>(".shot-state", shot.row);
    state.dataset["level"] = level;
    state.textContent = text;
    get<HTMLElement>(".shot-again", shot.row).hidden = shot.state !== "failed";
    get<HTMLElement>(".shot-drop", shot.row).hidden = shot.state !== "failed" && shot.state !== "ready";
  }
}
