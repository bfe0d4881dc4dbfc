// One table of commands, reached by toolbar buttons (data-do="name") and by keys.
import { all, isTyping } from "./dom.ts";

export type Commands = Record<string, (button: HTMLButtonElement | null) => void>;

export function bindCommands(bar: HTMLElement, commands: Commands, keys: Record<string, string>): void {
  const buttonOf = (name: string): HTMLButtonElement | null => bar.querySelector(`[data-do="${name}"]`);
  const run = (name: string): void => commands[name]?.(buttonOf(name));

  for (const button of all<HTMLButtonElement>("[data-do]", bar)) {
    button.addEventListener("click", () => run(button.dataset["do"] ?? ""));
  }
  document.addEventListener("keydown", (event) => {
    if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey) return;
    const name = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!name) return;
    event.preventDefault();
    run(name);
  });
  bar.hidden = false;
}

export function setPressed(button: HTMLButtonElement | null, pressed: boolean): void {
  button?.setAttribute("aria-pressed", String(pressed));
}
