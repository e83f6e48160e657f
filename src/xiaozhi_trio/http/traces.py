"""`/xiaozhi/traces`: the turns of late, for `xiaozhi-trio trace` and whoever may read them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio
from starlette.responses import Response
from starlette.routing import Route

from xiaozhi_trio.http.errors import RequestRefused
from xiaozhi_trio.http.reading import require_reader
from xiaozhi_trio.telemetry.telemetry import Telemetry
from xiaozhi_trio.telemetry.trace_record import TracePage, record_of, to_json
from xiaozhi_trio.wire.device_id import normalise_device_id

if TYPE_CHECKING:
    from starlette.requests import Request

    from xiaozhi_trio.telemetry.trace_keeper import KeptTurn

PATH: Final = "/xiaozhi/traces"
MOST_TURNS: Final = 200
"""Turns in one answer; 6 MB where every one of them is as long as can be."""
_DEFAULT_TURNS: Final = 20
_BAD_REQUEST: Final = 400
_MOST_DIGITS: Final = 18


@attrs.frozen
class TracesEndpoint:
    """Answers with turns as `TracePage`.

    `?device=ID` asks for those of one device, `last=N` for how many, `after=SERIAL` for
    those newer than the ones that were read before.
    """

    telemetry: Telemetry
    _limiter: trio.CapacityLimiter = attrs.field(factory=partial(trio.CapacityLimiter, 1))

    def routes(self) -> list[Route]:
        """With and without a slash at the end."""
        return [Route(path, self.show, methods=["GET"]) for path in (PATH, f"{PATH}/")]

    async def show(self, request: Request) -> Response:
        """The turns asked for. Raises `RequestRefused`."""
        require_reader(request, self.telemetry.settings.read_token)
        last = _number(request, "last", _DEFAULT_TURNS)
        if not 1 <= last <= MOST_TURNS:
            raise _refused("last", f"1 to {MOST_TURNS}")
        traces = self.telemetry.traces
        turns = traces.turns(_device(request), last=last, after=_number(request, "after", 0))
        # A turn that is over does not change any more, and is 0.1 ms of work.
        body = await trio.to_thread.run_sync(
            _page,
            traces.serial,
            traces.devices()[-MOST_TURNS:],
            turns,
            limiter=self._limiter,
            abandon_on_cancel=True,
        )
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


def _page(serial: int, devices: tuple[str, ...], turns: tuple[KeptTurn, ...]) -> bytes:
    return to_json(TracePage(serial, devices, tuple(map(record_of, turns))))


def _device(request: Request) -> str | None:
    text = request.query_params.get("device")
    if text is None:
        return None
    try:
        return normalise_device_id(text)
    except ValueError as error:
        raise _refused("device", "a device id") from error


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise _refused(name, "a whole number")
    return int(text)


def _refused(name: str, expected: str) -> RequestRefused:
    return RequestRefused(
        _BAD_REQUEST,
        "query_wrong",
        f"The query's {name} is not {expected}, as in {PATH}?last=20. 查询参数 {name} 无效。",
    )
