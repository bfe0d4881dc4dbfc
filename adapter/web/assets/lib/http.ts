// Asking the server: pages as parsed documents, JSON, and what an error answer says in words.

export class Refused extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

interface Issue {
  diagnostics?: string;
  details?: { text?: string };
}

/** The sentence of an OperationOutcome (or of {"message"}); `fallback` when the body says nothing readable. */
export function messageOf(body: string, fallback: string): string {
  try {
    const answer = JSON.parse(body) as { issue?: Issue[]; message?: string };
    const said = answer.issue?.map((issue) => issue.details?.text ?? issue.diagnostics).find(Boolean);
    return said ?? answer.message ?? fallback;
  } catch {
    return fallback;
  }
}

export async function askJson<T>(url: string, init: RequestInit = {}): Promise<T> {
  const headers = new Headers(init.headers);
  headers.set("Accept", "application/json");
  const answer = await fetch(url, { credentials: "same-origin", ...init, headers });
  const body = await answer.text();
  if (!answer.ok) throw new Refused(messageOf(body, `The server answered ${answer.status}.`), answer.status);
  return JSON.parse(body) as T;
}

/** A picture as an object URL, to be revoked by who asked. Rejects with the server's reason. */
export async function askPicture(url: string): Promise<string> {
  const answer = await fetch(url, { credentials: "same-origin", headers: { Accept: "image/jpeg, application/json" } });
  if (!answer.ok) throw new Refused(messageOf(await answer.text(), `The server answered ${answer.status}.`), answer.status);
  return URL.createObjectURL(await answer.blob());
}

/** A page of ours, parsed and not shown; null when it cannot be had (session over, server away). */
export async function askPage(url: string): Promise<Document | null> {
  try {
    const answer = await fetch(url, { credentials: "same-origin", headers: { Accept: "text/html" } });
    if (!answer.ok || new URL(answer.url).pathname !== new URL(url, location.href).pathname) return null;
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    return null;
  }
}
