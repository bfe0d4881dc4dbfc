"""``dermbridge card`` and ``dermbridge measure``: the calibration card to print, and measuring one photo file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer

from adapter.cli import Json, cli, out, show
from adapter.errors import BadInput


@cli.command()
def card(
    to: Annotated[Path, typer.Argument(dir_okay=False, help="A .pdf page of eight cards, or one card as .svg.")],
) -> None:
    """Write the calibration card to print at 100 %. Example: dermbridge card card.pdf"""
    from mappings.calibration_card import card_pdf, card_svg

    drawings = {".pdf": card_pdf, ".svg": card_svg}
    if to.suffix.lower() not in drawings:
        raise BadInput("name a file that ends in .pdf or .svg")
    to.write_bytes(drawings[to.suffix.lower()]())
    out.print(f"{to}: print it at 100 %, and check that its ruler is 50 mm long", markup=False)


@cli.command()
def measure(
    photo: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The photo.")],
    at: Annotated[str, typer.Option(help="X,Y: a pixel of the lesion, counted in the upright photo.")],
    as_json: Json = False,
) -> None:
    """Outline and measure one lesion in a photo file; no server, no database, nothing kept.

    Example: dermbridge measure mole.jpg --at 2016,1512 --json
    """
    from adapter.measure.files import measure_file
    from mappings.measurement_to_observation import MEASURES, wording

    try:
        x, y = (float(part) for part in at.split(","))
    except ValueError:
        raise BadInput("--at takes X,Y, such as --at 2016,1512") from None
    answer = measure_file(photo.read_bytes(), (x, y))
    if as_json:
        sys.stdout.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    rows = [{"measure": MEASURES[one["name"]]["wording"], "value": wording(one)} for one in answer["measures"]]
    show(rows, ["measure", "value"], as_json=False, empty="")
    out.print(f"scale: {answer['scale']['source']}; ± is two standard uncertainties", markup=False)
