// Sending one photo so that it arrives once: same idempotency key on every try, a digest the server checks, and the
// server's own words when it refuses.
import { csrfToken, pause } from "./dom.ts";
import { askJson, messageOf, Refused } from "./http.ts";

export interface Metadata {
  patient: string | null;
  encounter: string | null;
  lesion: string | null;
  body_site: string | null;
  laterality: string | null;
  view: string | null;
  taken_at?: string;
  device?: string;
  sensitivity: string[];
}

export interface Receipt {
  id: string;
  identity: string;
  consent?: { decision: string; because: string };
  deliveries?: { destination: string; state: string; reason?: string }[];
  reason?: string;
}

export interface Outgoing {
  key: string;
  blob: Blob;
  metadata: Metadata;
}

const WAITS = [1000, 3000, 8000]; // between tries of our own, before the user is asked
const PASSING = new Set([0, 408, 425, 429, 500, 502, 503, 504]);

const base64 = (bytes: Uint8Array): string => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));

const base64url = (text: string): string =>
  base64(new TextEncoder().encode(text)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

/** RFC 9530 Repr-Digest of the bytes, or null where the page has no WebCrypto (not a secure context). */
async function digestOf(blob: Blob): Promise<string | null> {
  if (!globalThis.crypto?.subtle) return null;
  const hash = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
  return `sha-256=:${base64(new Uint8Array(hash))}:`;
}

export function newKey(): string {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** One try. XMLHttpRequest because fetch does not report how much of a body has left. */
function attempt(url: string, out: Outgoing, digest: string | null, progress: (part: number) => void): Promise<Receipt> {
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("Content-Type", out.blob.type || "application/octet-stream");
    request.setRequestHeader("DermBridge-Metadata", base64url(JSON.stringify(out.metadata)));
    request.setRequestHeader("Idempotency-Key", out.key);
    request.setRequestHeader("X-CSRF-Token", csrfToken());
    if (digest) request.setRequestHeader("Repr-Digest", digest);
    request.upload.onprogress = (event) => progress(event.lengthComputable ? event.loaded / event.total : 0);
    request.onload = () => {
      if (request.status === 201 || request.status === 202 || request.status === 200) {
        done(JSON.parse(request.responseText) as Receipt);
      } else {
        fail(new Refused(messageOf(request.responseText, `The server answered ${request.status}.`), request.status));
      }
    };
    request.onerror = () => fail(new Refused("The server cannot be reached. The photo is still here.", 0));
    request.send(out.blob);
  });
}

/** Send, trying again by itself what may pass; throws Refused. Call again with the same `out` to resume. */
export async function upload(url: string, out: Outgoing, progress: (part: number) => void): Promise<Receipt> {
  const digest = await digestOf(out.blob);
  for (const wait of WAITS) {
    try {
      return await attempt(url, out, digest, progress);
    } catch (error) {
      if (!(error instanceof Refused) || !PASSING.has(error.status)) throw error;
      await pause(wait);
    }
  }
  return attempt(url, out, digest, progress);
}

export interface Standing {
  level: "ok" | "info" | "warning" | "error";
  text: string;
  settled: boolean;
}

/** What a receipt means, in the words of the pages. Only "confirmed" (read back) is "in chart". */
export function standingOf(receipt: Receipt): Standing {
  const deliveries = receipt.deliveries ?? [];
  const at = (state: string): string[] => deliveries.filter((d) => d.state === state).map((d) => d.destination);
  const because = receipt.reason ?? receipt.consent?.because;
  if (receipt.identity !== "bound") {
    return { level: "warning", text: `Stored, held: ${because ?? "its patient is not certain yet"}`, settled: true };
  }
  if (at("failed").length) {
    return { level: "error", text: `Stored, not in chart: ${at("failed").join(", ")} refused it. See Deliveries.`, settled: true };
  }
  if (at("withheld").length) return { level: "warning", text: `Stored, held: ${because ?? "no consent"}`, settled: true };
  if (!deliveries.length) return { level: "ok", text: "Stored", settled: true };
  if (at("confirmed").length === deliveries.length) {
    return { level: "ok", text: `In chart · ${at("confirmed").join(", ")}`, settled: true };
  }
  return { level: "info", text: "Stored, on its way to the chart", settled: false };
}

/** Report the capture's standing until it is settled, about two minutes at most. */
export async function follow(url: string, report: (standing: Standing) => void): Promise<void> {
  for (let look = 0; look < 45; look++) {
    await pause(look < 3 ? 400 : look < 12 ? 1000 : 3000);
    const standing = await askJson<Receipt>(url).then(standingOf, () => null);
    if (standing) report(standing);
    if (standing?.settled) return;
  }
  report({ level: "info", text: "Stored, not yet in chart. Deliveries shows where it is.", settled: true });
}
