"""Shows every page with sample values: `python -m tests.web.preview [PHOTO_FOLDER] [PORT]`; not shipped.

Photos of the folder (JPEG) stand in for the captures; without one, grey cards do. The pages run under the product's
Content-Security-Policy, so that a violation shows here first.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path

import segno
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from adapter.capture.metadata import read_metadata
from tests.web.test_templates import PAGES, STATIC, environment

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "font-src 'self'; media-src 'self' blob:; form-action 'self'; base-uri 'none'; frame-src 'self'"
)


def picture(folder: Path | None, number: int, size: int) -> bytes:
    """Photo `number` of the folder, at most `size` wide; a grey card without a folder."""
    files = sorted(folder.glob("*.jpg")) if folder else []
    image = Image.open(files[number % len(files)]) if files else Image.new("RGB", (1200, 900), (90 + 9 * number,) * 3)
    image.thumbnail((size, size))
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG")
    return out.getvalue()


def build(folder: Path | None) -> Starlette:
    pages = environment()

    def page(request: Request) -> Response:
        template, context = PAGES[request.path_params["page"]]
        values = context() | {"embedded": "embedded" in request.query_params}
        values["need_patient_banner"] = not values["embedded"]
        return HTMLResponse(pages.get_template(template).render(values), headers={"Content-Security-Policy": CSP})

    def photo(request: Request) -> Response:
        size = {"thumbnail": 320, "display": 1280}.get(request.path_params.get("rendition", ""), 4000)
        number = int(request.path_params["id"].removeprefix("m"))
        return Response(picture(folder, number, size), media_type="image/jpeg")

    async def receive(request: Request) -> Response:
        assert await request.body()
        assert request.headers["repr-digest"].startswith("sha-256=:")
        assert request.headers["x-csrf-token"] == "token-1"
        described = base64.urlsafe_b64decode(request.headers["dermbridge-metadata"] + "==")
        read_metadata(json.loads(described), accept_unlisted_sites=True)  # or 500, which the page tells
        pending = {"destination": "Larkfield EHR", "state": "pending"}
        identifier = request.headers["idempotency-key"]
        return JSONResponse({"id": identifier, "identity": "bound", "deliveries": [pending]}, 201)

    def status(request: Request) -> Response:
        identifier = request.path_params["id"]
        confirmed = {"destination": "Larkfield EHR", "state": "confirmed"}
        return JSONResponse({"id": identifier, "identity": "bound", "deliveries": [confirmed]})

    async def consent(request: Request) -> Response:
        async with request.form() as form:
            return JSONResponse({"id": "c1", "summary": f"Consent recorded: {form['method']}."}, 201)

    def comparison(_request: Request) -> Response:
        region = {"box": [1000, 800, 300, 300], "difference": 13.2, "certain": True}
        change = {"method": "local light, CIELAB", "version": "1", "regions": [region]}
        nodes = [[x / 2 + 0.05, y / 2 * 0.75] for y in range(3) for x in range(3)]
        lattice = {"columns": 3, "rows": 3, "left": [4000, 3000], "right": [4000, 3000], "left_in_right": nodes}
        lattice["right_in_left"] = [[x - 0.1, y] for x, y in nodes]
        found = {"verdict": "aligned", "reasons": ["All agree."], "method": "key points", "version": "1"}
        found |= {"lattice": lattice, "tiles": "/captures/m2/tiles"}
        pictures = {name: f"/captures/m{n}/display" for n, name in enumerate(("aligned", "change"), 1)}
        return JSONResponse(found | {"width": 4000, "height": 3000, "change": change, "pictures": pictures})

    def tiles(request: Request) -> Response:
        url = f"/captures/{request.path_params['id']}/tiles/{{level}}/{{column}}/{{row}}"
        return JSONResponse({"width": 4000, "height": 3000, "tile": 510, "overlap": 1, "levels": 3, "url": url})

    def tile(request: Request) -> Response:
        out = io.BytesIO()
        shade = 40 * int(request.path_params["level"]) + 60
        Image.new("RGB", (512, 512), (shade, shade, shade)).save(out, "JPEG")
        return Response(out.getvalue(), media_type="image/jpeg")

    def code(request: Request) -> Response:
        out = io.BytesIO()
        segno.make("https://dermbridge.example/h/5Q2M7K").save(out, kind="svg", scale=4)
        return Response(out.getvalue(), media_type="image/svg+xml")

    return Starlette(
        routes=[
            Route("/captures", receive, methods=["POST"]),
            Route("/comparison", comparison),
            Route("/captures/{id}", status),
            Route("/captures/{id}/tiles", tiles),
            Route("/captures/{id}/tiles/{level}/{column}/{row}", tile),
            Route("/captures/{id}/{rendition}", photo),
            Route("/fhir/Binary/{id}", photo),
            Route("/patients/p1/consents", consent, methods=["POST"]),
            Route(
                "/jobs/j1.json",
                lambda _: JSONResponse({"state": "running", "done": 9, "failed": 1, "total": 12, "finished": False}),
            ),
            Route("/handoff.svg", code),
            Mount("/static", StaticFiles(directory=STATIC)),
            Route("/{page}", page),
        ]
    )


if __name__ == "__main__":
    photos = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8899
    uvicorn.run(build(photos), port=port, log_level="warning")
