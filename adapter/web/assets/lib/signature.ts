// A signature drawn with finger, pen or mouse.

export class SignaturePad {
  #drawn = false;
  readonly #pen: CanvasRenderingContext2D;

  constructor(readonly canvas: HTMLCanvasElement) {
    this.#pen = canvas.getContext("2d")!;
    Object.assign(this.#pen, { lineWidth: 2.6, lineCap: "round", lineJoin: "round", strokeStyle: "#10141c" });
    this.clear();
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#pen.beginPath();
      this.#pen.moveTo(...this.#at(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return;
      for (const point of event.getCoalescedEvents?.() ?? [event]) this.#pen.lineTo(...this.#at(point));
      this.#pen.stroke();
      this.#drawn = true;
    });
  }

  get empty(): boolean {
    return !this.#drawn;
  }

  clear(): void {
    this.#pen.fillStyle = "#ffffff";
    this.#pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.#drawn = false;
  }

  toPng(): Promise<Blob | null> {
    return new Promise((done) => this.canvas.toBlob(done, "image/png"));
  }

  #at(event: PointerEvent): [number, number] {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }
}
