"""Decoding in a bounded child gives the same renditions, and survives what kills the child."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import pytest

from adapter import bounded
from adapter.bounded import BoundedChild
from adapter.capture.bounded import BoundedRenderer
from adapter.capture.renditions import render
from adapter.errors import TooLarge, Unavailable, Unprocessable
from tests.capture.dying import calls

SMALL = {"display": 48, "thumbnail": 16}


def test_the_child_renders_photo_after_photo_like_the_parent(photo):
    with BoundedRenderer() as renderer:
        for format_ in ("JPEG", "HEIF"):
            assert renderer.render(photo(format_), SMALL) == render(photo(format_), SMALL)


def test_refusals_cross_the_process_boundary(photo):
    with BoundedRenderer() as renderer:
        with pytest.raises(Unprocessable, match="truncated"):
            renderer.render(photo("PNG")[:-20], SMALL)
        with pytest.raises(TooLarge, match="over the limit"):
            renderer.render(photo("PNG"), SMALL, max_pixels=1000)
        assert renderer.render(photo("PNG"), SMALL).keys() == SMALL.keys()


def test_a_photo_that_takes_too_long_costs_only_the_child(photo, scene):
    with BoundedRenderer(seconds=0.2) as renderer:
        renderer.render(photo("PNG"), SMALL)
        with pytest.raises(Unprocessable, match=r"more than 0\.2 s of processor time"):
            renderer.render(photo("PNG", scene(6000, 6000), compress_level=1), SMALL)
        assert renderer.render(photo("PNG"), SMALL).keys() == SMALL.keys()


def test_a_photo_that_takes_too_much_memory_is_refused(photo, scene):
    wide = photo("PNG", scene(5000, 5000, "P"), transparency=0, compress_level=1)
    with BoundedRenderer(memory=128 << 20) as renderer:
        with pytest.raises(Unprocessable, match="more than 128 MiB of memory"):
            renderer.render(wide, SMALL)
        assert renderer.render(photo("PNG"), SMALL).keys() == SMALL.keys()


def test_a_child_that_died_between_two_photos_is_replaced_unseen(photo):
    with BoundedRenderer() as renderer:
        renderer.render(photo("PNG"), SMALL)
        child = renderer._child._child
        assert child is not None
        child.kill()  # as a machine out of memory does
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert renderer.render(photo("PNG"), SMALL).keys() == SMALL.keys()


@pytest.fixture
def dying():
    child = BoundedChild("tests.capture.dying:die", seconds=5, memory=1 << 30)
    yield child
    child.close()


def test_a_child_killed_in_the_middle_of_a_photo_is_replaced_and_asked_again(dying, tmp_path):
    _, made = dying.call({"signal": signal.SIGKILL, "times": 1, "log": str(tmp_path / "log")})
    assert made == [b"done"]
    assert calls(tmp_path / "log") == 2


def test_no_photo_is_blamed_for_a_machine_that_kills_every_child(dying, tmp_path):
    with pytest.raises(Unavailable, match="no fault of the photo"):
        dying.call({"signal": signal.SIGKILL, "times": 9, "log": str(tmp_path / "log")})
    assert calls(tmp_path / "log") == 2


@pytest.mark.parametrize("by", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_photo_that_crashes_the_decoder_is_blamed_at_once_by_its_signal(dying, tmp_path, by):
    with pytest.raises(Unprocessable, match=rf"crashed the decoder \({by.name}\)"):
        dying.call({"signal": by, "times": 9, "log": str(tmp_path / "log")})
    assert calls(tmp_path / "log") == 1


def test_an_error_of_the_decoder_itself_is_told_from_a_limit(dying):
    with pytest.raises(Unprocessable, match="an error of its own"):
        dying.call({})  # it has no such key


def test_an_answer_that_was_not_read_is_nobody_elses(photo, monkeypatch):
    def receive(_stream):
        raise MemoryError

    with BoundedRenderer() as renderer:
        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(bounded, "_receive", receive)
            renderer.render(photo("PNG"), SMALL)
        assert renderer.render(photo("JPEG"), SMALL) == render(photo("JPEG"), SMALL)


def test_the_child_inherits_no_secret(monkeypatch, photo):
    monkeypatch.setenv("DERMBRIDGE_KEY", "secret")
    with BoundedRenderer() as renderer:
        renderer.render(photo("PNG"), SMALL)
        child = renderer._child._child
        assert child is not None
        assert b"DERMBRIDGE" not in Path(f"/proc/{child.pid}/environ").read_bytes()


def test_a_closed_renderer_may_be_used_again(photo):
    renderer = BoundedRenderer()
    renderer.render(photo("PNG"), SMALL)
    renderer.close()
    assert renderer.render(photo("PNG"), SMALL).keys() == SMALL.keys()
    renderer.close()


def test_a_lying_child_cannot_make_the_parent_read_without_end():
    with pytest.raises(EOFError):
        bounded._receive(io.BytesIO(b"\xff" * 8 + b"x"))
