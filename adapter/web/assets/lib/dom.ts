// Typed access to the page. Templates and scripts are built together, so a missing element is a defect: say which.

export function find<T extends Element>(selector: string, within: ParentNode = document): T | null {
  return within.querySelector<T>(selector);
}

export function get<T extends Element>(selector: string, within: ParentNode = document): T {
  const element = within.querySelector<T>(selector);
  if (!element) throw new Error(`The page has no ${selector}`);
  return element;
}

export function all<T extends Element>(selector: string, within: ParentNode = document): T[] {
  return [...within.querySelectorAll<T>(selector)];
}

/** The JSON block that the template wrote with `tojson`. */
export function readJson<T>(selector: string): T {
  return JSON.parse(get(selector).textContent ?? "null") as T;
}

export function csrfToken(): string {
  return get<HTMLMetaElement>('meta[name="csrf-token"]').content;
}

/** True while the user is writing or choosing, so that one-key shortcuts stay out of the way. */
export function isTyping(event: KeyboardEvent): boolean {
  const target = event.target;
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || target.closest("textarea, select, [popover]")) return true;
  return target instanceof HTMLInputElement && !["checkbox", "button"].includes(target.type);
}

/** Run `act` once, `wait` milliseconds after the last call. */
export function settled(wait: number, act: () => void): () => void {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = window.setTimeout(act, wait);
  };
}

export const pause = (wait: number): Promise<void> => new Promise((done) => setTimeout(done, wait));
