"""The FHIR server on Starlette: bodies are read here, with a limit; everything else happens in a worker thread."""

from __future__ import annotations

import re
import uuid

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from adapter.errors import BadInput, DermBridgeError
from adapter.fhir_api.answers import error_answer
from adapter.fhir_api.exchange import Answer, Request, parse_params
from adapter.fhir_api.server import FhirServer
from adapter.web.bodies import read_body

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]
_REQUEST_ID = re.compile(r"[A-Za-z0-9.\-]{1,64}")


def fhir_routes(server: FhirServer, prefix: str = "/fhir") -> list[Route]:
    """`server.base_url` must end with `prefix`. A middleware sets `request.state.actor`; unset: nobody."""
    most = server.bridge.settings.max_capture_bytes * 4 // 3 + 2**20  # a Binary as base64 in JSON

    async def serve(http: HttpRequest) -> Response:
        request_id = http.headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = str(uuid.uuid4())
        try:
            request = await _read_request(http, request_id, most)
        except DermBridgeError as error:
            return _response(http, error_answer(error), request_id)
        return _response(http, await run_in_threadpool(server.answer, request), request_id)

    return [Route(prefix, serve, methods=METHODS), Route(f"{prefix}/{{path:path}}", serve, methods=METHODS)]


async def _read_request(http: HttpRequest, request_id: str, most: int) -> Request:
    path = http.path_params.get("path", "").strip("/")
    params = tuple(parse_params(http.scope["query_string"].decode("latin-1")))
    if "\x00" in path or any("\x00" in text for param in params for text in param):
        raise BadInput("an address may not hold the character U+0000")
    return Request(
        method=http.method,
        segments=tuple(path.split("/")) if path else (),
        params=params,
        headers={name.lower(): value for name, value in http.headers.items()},
        body=await read_body(http, most),
        actor=getattr(http.state, "actor", None),
        request_id=request_id,
    )


def _response(http: HttpRequest, answer: Answer, request_id: str) -> Response:
    headers = answer.headers | {"X-Request-Id": request_id}
    if http.method == "HEAD":
        headers.setdefault("Content-Length", str(len(answer.body)))
        return Response(status_code=answer.status, headers=headers)
    if answer.stream is not None:
        return StreamingResponse(answer.stream, answer.status, headers)
    body = answer.body
    if body and http.query_params.get("_pretty") == "true":
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2)
    return Response(body, answer.status, headers)
