"""What all answers of the Swift API have in common: signatures, web sites, origins, errors; and the id of a
transaction, which refusals have too that no handler sees."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import quote

from apus.kernel.errors import CloudError
from apus.kernel.world import Clock
from apus.services.object import consistency
from apus.services.object.api import bulk, cors, signed, web
from apus.services.object.api.ask import Ask
from apus.services.object.api.faults import FAULTS, HTML
from apus.services.object.consistency import READING, Reading
from apus.wire.route import ApiRequest, Reply

Handler = Callable[[Ask], Awaitable[Reply]]


def door(handler: Handler) -> Callable[[ApiRequest], Awaitable[Reply]]:
    """For a route that names an account."""

    async def handle(request: ApiRequest) -> Reply:
        try:
            ask = Ask.of(request)
        except CloudError as error:
            return refusal(request, error)
        reading: Reading | None = None
        try:
            reading = consistency.asked(ask.headers, of_object=bool(ask.name))
            READING.set(reading)  # for as long as the reply is sent: each request is a task of its own
            url = await signed.temp_url(ask)
            shown = await web.served(ask, handler, url)
            reply = shown or await (bulk.asked(ask) or handler)(ask)
            if url is not None:
                reply = signed.signed_reply(ask, url, reply, saved=shown is None)
        except CloudError as error:
            reply = refusal(request, error)
        told = _told(ask, reading, reply) if reading is not None else {}
        reply = await cors.with_origin(ask, reply)
        return reply.having(told) if told else reply

    handle.__name__ = getattr(handler, "__name__", "")
    return handle


def _told(ask: Ask, reading: Reading, reply: Reply) -> Mapping[str, str]:
    """What it got, and how old it may be."""
    if not ask.name:
        ask.service.directory.saw(reading, ask.account, ask.container)
    wrote = ask.method not in ("GET", "HEAD", "OPTIONS") and (reply.status or 200) < 300
    return reading.headers(wrote=wrote)


def refusal(request: ApiRequest, error: CloudError) -> Reply:
    """An error as Swift shows it; what is not the client's doing goes on to where it is logged."""
    status = FAULTS.status(error)
    if status >= 500 or error.hidden:
        raise error
    headers = dict(error.details.get("headers", {}))
    if "target" in error.details:
        headers["content-location"] = quote(f"/v1/{error.details['target']}")
    if status == 401:
        account = request.raw_path.split("/")[2]
        headers["www-authenticate"] = f'Swift realm="{account}"'
    return Reply(FAULTS.render(status, error), status, headers, content_type=HTML)


def trans_ids(clock: Clock) -> Callable[[ApiRequest], Sequence[tuple[str, str]]]:
    """Swift's own name for the id of a request, beside OpenStack's, in its own form: 21 and 10 hex digits, the latter
    the time (tools that read logs, and Tempest, match on it)."""

    def marks(request: ApiRequest) -> Sequence[tuple[str, str]]:
        digits = request.request_id.removeprefix("req-").replace("-", "")
        return (("x-trans-id", f"tx{digits[:21]:0<21}-{int(clock.now_s()):010x}"),)

    return marks
