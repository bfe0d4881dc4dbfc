// Selecting photos: shift-click ranges, the count, and which buttons make sense for it.
import { all, get } from "./dom.ts";

const boxes = (form: HTMLFormElement): HTMLInputElement[] => all('.tile-pick input[name="media"]', form);

function tell(form: HTMLFormElement): void {
  const picked = boxes(form).filter((box) => box.checked).length;
  get<HTMLOutputElement>("#picked", form).value = `${picked} photo${picked === 1 ? "" : "s"} selected`;
  for (const button of all<HTMLButtonElement>("[data-least]", form)) {
    button.disabled = picked < Number(button.dataset["least"]);
  }
}

export function watchSelection(form: HTMLFormElement): void {
  if (!form.querySelector("#actions")) return;
  let anchor: HTMLInputElement | null = null;

  form.addEventListener("click", (event) => {
    const box = event.target;
    if (!(box instanceof HTMLInputElement) || box.name !== "media") return;
    if (event.shiftKey && anchor?.isConnected) {
      const row = boxes(form);
      const [from, to] = [row.indexOf(anchor), row.indexOf(box)].sort((a, b) => a - b);
      for (const between of row.slice(from, (to ?? 0) + 1)) between.checked = box.checked;
    }
    anchor = box;
    tell(form);
  });
  form.addEventListener("change", () => tell(form));
  form.addEventListener("reset", () => setTimeout(() => tell(form)));
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector(":popover-open")) form.reset();
    if (event.key === "Enter" && event.target instanceof HTMLInputElement && event.target.name === "media") {
      event.preventDefault(); // Enter on a checkbox would submit the first button unseen
      event.target.click();
    }
  });
  tell(form);
}
