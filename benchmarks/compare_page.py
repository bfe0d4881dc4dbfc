"""docs/compare-accuracy.md with its plots and galleries, from what `benchmarks.compare --json` measured.

    python -m benchmarks.compare --pairs 20 --tones 6 --alternatives 4 --json > result.json
    python -m benchmarks.compare_page result.json

Needs Matplotlib: pip install 'dermbridge[benchmark]'. Pictures of the galleries are made again from their seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import orjson
from matplotlib import pyplot as plt

from adapter.compare import align, overlay_jpeg, prepare
from benchmarks.compare import PERCENTILES, others, recipes, strangers
from benchmarks.skin import TONES, make_pair

DOCS = Path(__file__).parents[1] / "docs"
PICTURES = DOCS / "images" / "compare-accuracy"
THUMBNAIL = (360, 270)
GALLERY = 4
_QUALITY = 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    result = orjson.loads(parser.parse_args().result.read_bytes())
    PICTURES.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update({"svg.hashsalt": "dermbridge", "font.size": 9, "axes.spines.top": False})
    mpl.rcParams.update({"axes.spines.right": False, "figure.figsize": (6.4, 3.2), "axes.grid": True})
    for name, draw in {"errors": draw_errors, "gate": draw_gate, "tones": draw_tones}.items():
        figure, axes = plt.subplots(layout="constrained")
        draw(axes, result)
        figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None})
    worst = worst_pairs(result["pairs"])
    for number, row in enumerate(worst):
        picture_pair(f"worst-{number + 1}", *_files_of(row))
    nearest = sorted(result["non_matching"], key=lambda row: row["share"], reverse=True)[:GALLERY]
    photos = dict(strangers())
    for number, row in enumerate(nearest):
        picture_strangers(f"stranger-{number + 1}", row["pair"], photos)
    (DOCS / "compare-accuracy.md").write_text(page(result, worst, nearest))


# --- plots ----------------------------------------------------------------------------------------------------------


def draw_errors(axes: Any, result: dict[str, Any]) -> None:
    """Share of all points within a distance of the truth, by method; solid: normal set, dashed: hard set."""
    for color, method in enumerate(_methods(result["pairs"])):
        prefix = "" if method == "DermBridge" else f"{method} "
        for name, style in (("normal", "-"), ("hard", "--")):
            of = [row[f"{prefix}percentiles"] for row in _rows(result, name) if f"{prefix}percentiles" in row]
            distances = np.sort(np.concatenate(of))
            shares = np.linspace(0, 100, len(distances))
            axes.plot(distances, shares, style, color=f"C{color}", label=f"{method}, {name}")
    axes.set(
        xscale="log", xlim=(0.02, 500), ylim=(0, 100), xlabel="error, pixels of a 12 MP photo", ylabel="% of points"
    )
    axes.legend(fontsize=7, loc="lower right")


def draw_gate(axes: Any, result: dict[str, Any]) -> None:
    """Share of agreeing patches: what matches and what does not, and the two limits of the gate."""
    bins = np.linspace(0, 1, 101)
    kinds = (("no match", "C3", result["non_matching"]), ("same skin", "C0", result["pairs"]))
    for label, color, rows in kinds:
        axes.hist([row["share"] for row in rows], bins, color=color, label=f"{label}, {len(rows)} pairs", log=True)
    for limit, style in ((0.08, ":"), (0.14, "--")):
        axes.axvline(limit, color="black", linestyle=style, label=f"gate: {limit}")
    axes.set(xlabel="share of patches that agree with the map", ylabel="pairs")
    axes.legend(fontsize=7)


def draw_tones(axes: Any, result: dict[str, Any]) -> None:
    """Median and p95 error on the normal set for each Fitzpatrick type."""
    for name, marker in (("median", "o"), ("p95", "^")):
        values = [[row[name] for row in _rows(result, f"tone {tone}")] for tone in TONES]
        positions = range(len(TONES))
        scattered = [(at, one) for at, of in zip(positions, values, strict=True) for one in of]
        axes.plot(*zip(*scattered, strict=True), marker, alpha=0.4, color="C0" if name == "median" else "C1")
        middle = [float(np.median(of)) for of in values]
        axes.plot(positions, middle, color="C0" if name == "median" else "C1", label=f"{name}, middle of its pairs")
    axes.set(ylim=(0, None), xlabel="Fitzpatrick type", ylabel="error, pixels of a 12 MP photo")
    axes.set_xticks(range(len(TONES)), list(TONES))
    axes.legend(fontsize=7)


def _rows(result: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [row for row in result["pairs"] if row["set"] == name]


def _methods(rows: Iterable[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(key.removesuffix(" percentiles") for key in chain(*rows) if key.endswith(" percentiles"))
    return ["DermBridge", *names]


# --- galleries ------------------------------------------------------------------------------------------------------


def worst_pairs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those not aligned, then the greatest p95."""
    return sorted(rows, key=lambda row: (row["verdict"] == "aligned", -row["p95"]))[:GALLERY]


def _files_of(row: dict[str, Any]) -> list[bytes]:
    found = (recipe for name, recipe in recipes([row["seed"]], 99) if (name, recipe.seed) == (row["set"], row["seed"]))
    return make_pair(next(found)).jpegs()


def picture_pair(name: str, left: bytes, right: bytes) -> None:
    """LEFT, RIGHT and both laid over each other where there is a map."""
    found = align(prepare(left), prepare(right))
    _save(name, [left, right, *([overlay_jpeg(found)] if found.skin_map else [])])


def picture_strangers(name: str, pair: list[Any], photos: dict[tuple[str, int], bytes]) -> None:
    one, other = photos[pair[0], pair[1]], photos[pair[2], pair[3]]
    _save(name, [one, _mirrored(other) if one == other else other])


def _mirrored(jpeg: bytes) -> bytes:
    return cv2.imencode(".jpg", _decoded(jpeg)[:, ::-1])[1].tobytes()


def _decoded(jpeg: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def _save(name: str, jpegs: list[bytes]) -> None:
    small = [cv2.resize(_decoded(jpeg), THUMBNAIL, interpolation=cv2.INTER_AREA) for jpeg in jpegs]
    cv2.imwrite(str(PICTURES / f"{name}.jpg"), np.hstack(small), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


# --- text -----------------------------------------------------------------------------------------------------------


def page(result: dict[str, Any], worst: list[dict[str, Any]], nearest: list[dict[str, Any]]) -> str:
    targets = [
        f"| {row['measure']} | {row['target']:g} | {row['seen']:.3g} | {'yes' if row['met'] else '**no**'} |"
        for row in result["targets"]
        if not row["measure"].endswith(" s")  # which depend on what else the machine did
    ]
    methods = [
        f"| {row['set']} | {row['method']} | {row['median px']:.2f} | {row['p95 px']:.2f} | {row['times ours']:.1f} |"
        for row in others(result["pairs"])
    ]
    roc = [
        f"| {row['share']:.2f} | {100 * row['matching kept']:.1f} % | {100 * row['non-matching kept']:.1f} % |"
        for row in result["roc"]
    ]
    gallery = [
        f"![Both photos, and one over the other](images/compare-accuracy/worst-{number}.jpg)\n\n"
        f"{row['set']}, seed {row['seed']}, {row['kind']}: "
        f"{row['verdict']}, median {row['median']:.2f} px, p95 {row['p95']:.2f} px\n"
        for number, row in enumerate(worst, 1)
    ]
    strangers_ = [
        f"![Two photos of different skin](images/compare-accuracy/stranger-{number}.jpg)\n\n"
        f"{row['verdict']}; {100 * row['share']:.1f} % of the "
        "patches agree by chance\n"
        for number, row in enumerate(nearest, 1)
    ]
    return _PAGE.format(
        last=max(PERCENTILES),
        others=sum(row["set"] == "normal" and "ORB median" in row for row in result["pairs"]),
        pairs=len(result["pairs"]),
        strangers=len(result["non_matching"]),
        targets="\n".join(targets),
        methods="\n".join(methods),
        roc="\n".join(roc),
        gallery="\n".join(gallery),
        nearest="\n".join(strangers_),
    )


_PAGE = """# How exact comparisons are

Made by `python -m benchmarks.compare_page` from one run of `python -m benchmarks.compare`: {pairs} pairs of the same
skin, {strangers} pairs of different skin, all made from their seeds (`benchmarks/skin.py`: real dermoscopic textures,
a known displacement). Errors are in pixels of a 12-megapixel photo. What this cannot show: photos of real patients at
two visits; see the limits in [compare.md](compare.md). Seconds depend on the machine and its load; they are in
[benchmarks.md](benchmarks.md) as measured on a quiet one.

| measure | target | seen | met |
|---|---|---|---|
{targets}

## Error distributions

![Share of points within a distance of the truth, by method](images/compare-accuracy/errors.svg)

Every fifth percentile of each pair's errors (0 to {last}). Medians over pairs, of DermBridge all, of the others as many
as `--alternatives` asked for ({others} of each set):

| set | method | median px | p95 px | times DermBridge's median |
|---|---|---|---|---|
{methods}

## The gate

![Shares of agreeing patches of pairs that match and pairs that do not](images/compare-accuracy/gate.svg)

What the gate's first criterion alone would let through at other limits (it asks 0.14 for `aligned`, 0.08 for
`approximate`; the other criteria come on top):

| limit | same skin kept | different skin let through |
|---|---|---|
{roc}

## Skin tones

![Error by Fitzpatrick type](images/compare-accuracy/tones.svg)

## Where it does worst

LEFT, RIGHT, and both laid over each other (grey where they agree) for the pairs with the greatest errors.

{gallery}
## Different skin that looked most alike

{nearest}"""


if __name__ == "__main__":
    main()
