"""Photos for the capture tests: two corpora on disk, and small ones made on the spot with metadata that must go.

`DERMBRIDGE_PHOTO_CORPUS` may name a further folder of pictures; every file below it goes through the corpus tests too.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from pillow_heif import register_heif_opener

DATA = Path(__file__).parents[1] / "data"
SERIAL, OWNER, NOTE = b"SN-4711-0815", b"Dr. Erika Mustermann", b"left forearm, room 12"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>secret-xmp-text</rdf:RDF></x:xmpmeta>'
SECRETS = (SERIAL, OWNER, NOTE, b"xmpmeta", b"secret-xmp-text", b"MAKERNOTE-BYTES", b"2026:11:20")
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "HEIF")
Photo = Callable[..., bytes]

register_heif_opener(thumbnails=False)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "corpus_file" in metafunc.fixturenames:
        folders = [
            DATA / "photos",
            DATA / "malformed",
            *map(Path, filter(None, [os.environ.get("DERMBRIDGE_PHOTO_CORPUS")])),
        ]
        files = sorted(
            path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"
        )
        metafunc.parametrize("corpus_file", files, ids=lambda path: path.name)


def telling_exif(orientation: int = 1) -> Image.Exif:
    """EXIF with a position, serial numbers, an owner, a maker note, comments and times."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Apple", "iPhone 12", orientation
    exif[0x013B], exif[0x010E], exif[0x0132] = OWNER.decode(), NOTE.decode(), "2026:11:20 09:30:00"
    private = exif.get_ifd(0x8769)
    private[0x9003], private[0x9291], private[0x9011] = "2026:11:20 09:30:00", "25", "+02:00"
    private[0x927C], private[0xA430], private[0xA431] = b"MAKERNOTE-BYTES", OWNER.decode(), SERIAL.decode()
    position = exif.get_ifd(0x8825)
    position[1], position[2], position[3], position[4] = "N", (52.0, 31.0, 12.0), "E", (13.0, 24.0, 36.0)
    return exif


def make_scene(width: int = 96, height: int = 64, mode: str = "RGB") -> Image.Image:
    """Different in each corner, so that every turn and mirroring shows."""
    image = Image.new("RGB", (width, height), (200, 150, 130))
    image.paste((220, 20, 20), (0, 0, width // 2, height // 3))
    image.paste((20, 20, 220), (width * 2 // 3, height * 2 // 3, width, height))
    image.paste((20, 160, 60), (0, height * 2 // 3, width // 5, height))
    return image.convert(mode)


@pytest.fixture(scope="session")
def photo() -> Photo:
    """`photo(format, image, orientation, **options)`: a file full of metadata that must not leave."""
    plain = functools.cache(make_photo)
    return lambda format_, image=None, orientation=1, **options: (
        make_photo(format_, image, orientation, **options)
        if image is not None or options
        else plain(format_, orientation=orientation)
    )


@pytest.fixture(scope="session")
def scene() -> Callable[..., Image.Image]:
    return make_scene


@pytest.fixture(scope="session")
def opened() -> Callable[[bytes], Image.Image]:
    return open_loaded


@pytest.fixture(scope="session")
def secrets() -> tuple[bytes, ...]:
    return SECRETS


def make_photo(format_: str, image: Image.Image | None = None, orientation: int = 1, **options: object) -> bytes:
    content = io.BytesIO()
    telling: dict[str, object] = {"exif": telling_exif(orientation).tobytes(), "xmp": XMP}
    if format_ == "PNG":
        telling = {"exif": telling["exif"], "pnginfo": _png_texts()}
    elif format_ == "TIFF":
        tags = telling_exif(orientation)
        if not options.get("compression"):  # libtiff cannot write the private directories
            tags[0x8769], tags[0x8825] = dict(tags.get_ifd(0x8769)), dict(tags.get_ifd(0x8825))
        tags[700], tags[33723] = XMP, b"\x1c\x02\x50" + OWNER
        telling = {"exif": tags}
    elif format_ == "JPEG":
        telling["comment"] = NOTE
    (image or make_scene()).save(content, format_, **{**telling, **options})
    return content.getvalue()


def _png_texts() -> object:
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_text("Author", OWNER.decode())
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
    texts.add_text("Comment", NOTE.decode(), zip=True)
    return texts


def open_loaded(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image
