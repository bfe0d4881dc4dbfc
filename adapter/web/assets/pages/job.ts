// Follows a running job by its JSON; when it has finished, the page itself has the results.
import { get, pause } from "../lib/dom.ts";
import { askJson } from "../lib/http.ts";

interface Status {
  state: string;
  done: number;
  failed: number;
  total: number;
  finished: boolean;
}

const EVERY = 1000;

function show(status: Status): void {
  const bar = get<HTMLProgressElement>("#bar");
  bar.max = status.total || 1;
  bar.value = status.done + status.failed;
  const failed = status.failed ? `, ${status.failed} failed` : "";
  get("#progress-text").textContent = `${status.done} of ${status.total} done${failed}`;
}

async function follow(url: string): Promise<void> {
  for (;;) {
    await pause(EVERY);
    try {
      const status = await askJson<Status>(url);
      show(status);
      if (status.finished) break;
    } catch {
      await pause(4 * EVERY); // the job goes on without us; look again later
    }
  }
  location.reload();
}

const url = get<HTMLElement>("#job").dataset["status"];
if (url) void follow(url);
