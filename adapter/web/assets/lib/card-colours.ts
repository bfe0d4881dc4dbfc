// The colours that a photo's calibration card tells, laid over the photo to compare by; what is stored stays as it is.
import type OpenSeadragon from "openseadragon";
import { askPicture } from "./http.ts";
import type { Viewer } from "./viewer.ts";

export class CardColours {
  #laid: OpenSeadragon.TiledImage | null = null;
  #asked: Promise<string> | null = null;

  constructor(
    private readonly viewer: Viewer,
    private readonly photo: string, // its address
  ) {}

  get on(): boolean {
    return this.#laid !== null;
  }

  /** The picture's address while the page is open. Rejects with the reason where no card tells the colours. */
  picture(): Promise<string> {
    this.#asked ??= askPicture(`${this.photo}/normalised`);
    this.#asked.catch(() => (this.#asked = null));
    return this.#asked;
  }

  /** Rejects as `picture`. */
  async show(): Promise<void> {
    const url = await this.picture();
    this.#laid = await new Promise((laid, failed) => {
      this.viewer.addTiledImage({
        tileSource: { type: "image", url, buildPyramid: true },
        width: 1,
        success: (event) => laid((event as unknown as { item: OpenSeadragon.TiledImage }).item),
        error: () => failed(new Error("The colours could not be shown.")),
      });
    });
  }

  hide(): void {
    if (this.#laid) this.viewer.world.removeItem(this.#laid);
    this.#laid = null;
  }
}
