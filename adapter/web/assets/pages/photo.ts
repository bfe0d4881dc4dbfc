// One photo, large: zoom, pan, full resolution.
import { bindCommands, setPressed } from "../lib/commands.ts";
import { get } from "../lib/dom.ts";
import { arrowOf, fit, openViewer, panBy, showFull, VIEW_KEYS, zoomBy, zoomText } from "../lib/viewer.ts";

const stage = get<HTMLElement>("#stage");
const zoom = get<HTMLOutputElement>("#zoom");
const viewer = openViewer(stage);
let full = false;

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
    full: (button) => {
      full = !full;
      setPressed(button, full);
      void showFull(viewer, stage, full);
    },
  },
  VIEW_KEYS,
);
