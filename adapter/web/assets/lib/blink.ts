// Two photos taking turns: how fast, paused, or changed by hand. Never more than three changes a second (WCAG 2.3.1), and
// at rest until asked for where motion is not wanted.
import { setPressed } from "./commands.ts";
import { get } from "./dom.ts";

const PERIODS = [2000, 1300, 800, 550, 400]; // milliseconds that each photo is shown, by speed

export class Blink {
  readonly #pause = get<HTMLButtonElement>("#blink-pause");
  readonly #speed = get<HTMLInputElement>("#blink-speed");
  #timer = 0;
  #second = false;
  #paused = matchMedia("(prefers-reduced-motion: reduce)").matches;

  constructor(readonly turn: (second: boolean) => void) {
    this.#pause.addEventListener("click", () => this.pause(!this.#paused));
    this.#speed.addEventListener("input", () => this.start());
  }

  start(): void {
    this.stop();
    setPressed(this.#pause, this.#paused);
    this.turn(this.#second);
    const period = PERIODS[this.#speed.valueAsNumber - 1];
    if (!this.#paused) this.#timer = window.setInterval(() => this.#change(), period);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  pause(paused: boolean): void {
    this.#paused = paused;
    this.start();
  }

  /** The other photo, which then stays. */
  step(): void {
    this.#second = !this.#second;
    this.pause(true);
  }

  #change(): void {
    this.#second = !this.#second;
    this.turn(this.#second);
  }
}
