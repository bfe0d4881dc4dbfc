"""Logs as JSON lines of ids and outcomes, for our own code and for what the libraries say.

The message of an exception may quote what it stumbled over: a name, a key of PostgreSQL's DETAIL, a whole HL7 message.
So a traceback is written with its files, lines and types, and with the messages of our own errors only.
"""

from __future__ import annotations

import logging
import traceback
from contextlib import suppress
from types import TracebackType
from typing import TypeAlias

import structlog
from structlog.typing import Processor

from adapter.errors import DermBridgeError


class _Printer(structlog.PrintLogger):
    """A log that cannot be written, on a full disk or to a reader who has gone, keeps nobody from working."""

    def msg(self, message: str) -> None:
        with suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def configure_logs(*, least: int = logging.INFO) -> None:
    """For the long-running processes; `least` is the lowest level of ours to write.

    Names, bodies and addresses with queries never get this far.
    """
    told = structlog.processors.ExceptionRenderer(traceback_without_messages)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        told,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        logger_factory=lambda *_: _Printer(),
        wrapper_class=structlog.make_filtering_bound_logger(least),
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def traceback_without_messages(exc_info: ExcInfo) -> str:
    """Where it happened and of which type it was, the cause first."""
    error = exc_info[1]
    return "".join(_told(error)) if error is not None else ""


def _told(error: BaseException) -> list[str]:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines = [*_told(before), "which led to:\n"] if before is not None else []
    lines += traceback.format_tb(error.__traceback__)
    lines.append(f"{type(error).__module__}.{type(error).__qualname__}{_reason(error)}\n")
    for each in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        lines += _told(each)
    return lines


def _reason(error: BaseException) -> str:
    """What may be said: our own sentences, and the codes of operating system and databases."""
    if isinstance(error, DermBridgeError):
        return f": {error}"
    codes = (getattr(error, name, None) for name in ("strerror", "sqlite_errorname", "sqlstate"))
    told = next(filter(None, codes), "")
    return f" ({told})" if told else ""
