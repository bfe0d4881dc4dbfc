// One photo, large: zoom and pan, down to its pixels.
import { bindCommands } from "../lib/commands.ts";
import { find, get } from "../lib/dom.ts";
import { Measuring } from "../lib/measure.ts";
import { arrowOf, fit, openViewer, panBy, showPixels, VIEW_KEYS, zoomBy, zoomText } from "../lib/viewer.ts";

const stage = get<HTMLElement>("#stage");
const zoom = get<HTMLOutputElement>("#zoom");
const viewer = openViewer(stage);
const measuring = find("#measure") ? new Measuring(viewer, stage) : null;

viewer.addHandler("zoom", () => (zoom.value = zoomText(viewer)));
stage.addEventListener("keydown", (event) => {
  const arrow = arrowOf(event.key);
  if (!arrow) return;
  event.preventDefault();
  panBy(viewer, ...arrow);
});
bindCommands(
  get("#tools"),
  {
    in: () => zoomBy(viewer, 1),
    out: () => zoomBy(viewer, -1),
    fit: () => fit(viewer),
    pixels: () => showPixels(viewer, Number(stage.dataset["width"])),
    measure: (button) => measuring?.toggle(button),
  },
  { ...VIEW_KEYS, m: "measure" },
);
