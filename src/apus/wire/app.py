"""The one HTTP application: finds the service by path, then walks each request down the same stairs.

request id → route → version → token → may → body → handler → view of that version → reply; every error on the way
becomes the service's own fault.  Only here, at the edge, is `except Exception` allowed: it is a bug of ours, is
logged with its request id, and answers 500 without its text.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from random import Random
from typing import Any, Final, Protocol

import msgspec

from apus.kernel import policy
from apus.kernel.caller import Caller
from apus.kernel.errors import CloudError, Invalid, NotFound, Unauthenticated
from apus.kernel.ids import new_id
from apus.kernel.log import get_logger
from apus.kernel.policy import Policy, Rule
from apus.wire.access import require_listed
from apus.wire.faults import Faults, MethodNotAllowed, errors_fault
from apus.wire.route import ApiRequest, ClientGone, Reply, Route, Router, convert_body, decode_body
from apus.wire.versions import Version, VersionChain, text_of

_log: Final = get_logger("apus.http")
_encode = msgspec.json.Encoder().encode

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Authenticator(Protocol):
    def verify(self, token: str) -> Caller:
        """Who holds this token.  Reads no database.  Raise Unauthenticated."""
        ...


class Replays(Protocol):
    """Keeps answers by Idempotency-Key (see wire/idempotency.py)."""

    async def around(self, request: ApiRequest, handle: Callable[[], Awaitable[Reply]]) -> Reply: ...


class Api:
    """One service's door: its routes under a prefix."""

    def __init__(
        self,
        *,
        name: str,
        prefix: str,
        routes: Sequence[Route],
        service: Any,
        policy: Policy,
        faults: Faults,
        versions: VersionChain | None = None,
        service_type: str | None = None,
    ) -> None:
        self.service_type = service_type or name
        self.name, self.prefix, self.routes, self.service = name, prefix.rstrip("/"), routes, service
        self.policy, self.faults, self.versions = policy, faults, versions
        self.router = Router(routes)
        for route in routes:
            assert route.may is None or route.may in policy, f"{name}: no rule for {route.may}"


_NOWHERE: Final = Api(name="apus", prefix="", routes=(), service=None, policy={}, faults=Faults(errors_fault))


class App:
    """An ASGI application of several Apis.  `lifespan` is not used: node/ starts and stops what there is."""

    def __init__(
        self,
        apis: Sequence[Api],
        authenticator: Authenticator,
        *,
        dice: Random,
        auth_path: str = "/identity",
        replays: Replays | None = None,
    ) -> None:
        self._apis = sorted(apis, key=lambda api: -len(api.prefix))
        self._first: dict[str, list[Api]] = {}
        for api in self._apis:
            self._first.setdefault(api.prefix.split("/")[1] if api.prefix else "", []).append(api)
        self._authenticator, self._dice, self._auth_path, self._replays = authenticator, dice, auth_path, replays

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request_id = "req-" + new_id(self._dice)
        request = ApiRequest(scope, receive, headers, request_id)
        api = self._api_for(request.raw_path)
        try:
            reply = await self._answer(api, request)
        except ClientGone:
            _log.info("client gone", request_id=request_id, method=request.method, path=request.raw_path)
            return
        status = reply.status or request.route.status
        await _send(api, request, reply, status, send)
        _log.info(
            "request",
            method=request.method,
            path=request.raw_path,
            status=status,
            ms=round((time.perf_counter() - began) * 1000, 2),
            request_id=request_id,
            user=request.caller.user_id if request.caller else None,
            project=request.caller.project_id if request.caller else None,
        )

    def _api_for(self, raw_path: str) -> Api:
        first = raw_path.split("/", 2)[1] if len(raw_path) > 1 else ""
        for api in self._first.get(first, []) + self._first.get("", []):
            rest = raw_path[len(api.prefix) :]
            if raw_path.startswith(api.prefix) and (not rest or rest[0] == "/"):
                return api
        return _NOWHERE

    async def _answer(self, api: Api, request: ApiRequest) -> Reply:
        try:
            return await self._handle(api, request)
        except CloudError as error:
            return self._fault(api, request, error)
        except ClientGone:
            raise
        except Exception:
            _log.exception("unhandled", request_id=request.request_id, path=request.raw_path)
            ours = CloudError("wire.internal", f"An unexpected error happened; it is logged as {request.request_id}.")
            return self._fault(api, request, ours)

    async def _handle(self, api: Api, request: ApiRequest) -> Reply:
        if api.versions is not None:
            request.version = api.versions.negotiate(request.headers)
        route, request.params = self._route(api, request)
        request.route, request.service = route, api.service
        rule = api.policy[route.may] if route.may is not None else Rule.ANYONE
        token = request.headers.get("x-auth-token")
        if token:
            try:
                caller = self._authenticator.verify(token)
                if caller.access_rules is not None:
                    require_listed(caller.access_rules, api.service_type, request.method, request.raw_path)
                request.caller = msgspec.structs.replace(caller, request_id=request.request_id)
            except Unauthenticated:
                if rule is not Rule.PUBLIC:
                    raise
        elif rule is not Rule.PUBLIC:
            raise Unauthenticated("wire.no_token", "The request you have made requires authentication.")
        if route.may is not None and request.caller is not None:
            policy.require(api.policy, route.may, request.caller)
        if route.takes is not None:
            request.body = await self._body(api, request, route)
        if self._replays is not None and request.method == "POST" and "idempotency-key" in request.headers:
            reply = await self._replays.around(request, lambda: route.to(request))
        else:
            reply = await route.to(request)
        if api.versions is not None and request.version is not None and isinstance(reply.body, dict):
            view = api.versions.downgrade(reply.body, route.operation, request.version)
            if view is not reply.body:
                return Reply(view, reply.status, reply.headers)
        return reply

    def _route(self, api: Api, request: ApiRequest) -> tuple[Route, dict[str, str]]:
        if "%00" in request.raw_path or "%00" in request.raw_query:
            raise Invalid("wire.nul", "A NUL character (%00) is nowhere part of a name or a value.")
        found, methods = api.router.find(request.method, request.raw_path[len(api.prefix) :])
        for route, params in found:
            if _in_range(route, request.version):
                return route, params
        if methods and not found:
            raise MethodNotAllowed(
                "wire.method", f"{request.method} is not possible here; possible: {', '.join(methods)}."
            )
        raise NotFound("wire.no_route", "The resource could not be found.")

    async def _body(self, api: Api, request: ApiRequest, route: Route) -> Any:
        data = await request.read()
        if api.versions is None or request.version is None:
            return decode_body(data, route.takes)
        raw = decode_body(data, Any)
        if not isinstance(raw, dict):  # no version of a versioned API changes the shape of a list
            return convert_body(raw, route.takes)
        return convert_body(api.versions.upgrade(raw, route.operation, request.version), route.takes)

    def _fault(self, api: Api, request: ApiRequest, error: CloudError) -> Reply:
        status = api.faults.status(error)
        headers = {}
        if status == 401:
            headers["WWW-Authenticate"] = f'Keystone uri="{request.base_url}{self._auth_path}"'
        if isinstance(error, MethodNotAllowed):
            headers["Allow"] = error.shown.rpartition(": ")[2].rstrip(".")
        if error.retry and status == 503:
            headers["Retry-After"] = "1"
        if status >= 500 or error.hidden:
            _log.warning(
                "fault", request_id=request.request_id, code=error.code, shown=error.shown, hidden=error.hidden
            )
        body = api.faults.render(status, error)
        return Reply(body, status, headers, content_type=api.faults.content_type if isinstance(body, bytes) else None)


def _in_range(route: Route, version: Version | None) -> bool:
    if version is None:
        return True
    return (route.since is None or version >= route.since) and (route.until is None or version <= route.until)


async def _send(api: Api, request: ApiRequest, reply: Reply, status: int, send: Send) -> None:
    headers = [(b"x-openstack-request-id", request.request_id.encode())]
    data = b""
    if reply.stream is None and reply.body is not None:
        data = reply.body if isinstance(reply.body, bytes) else _encode(reply.body)
    content_type = reply.content_type
    if content_type is None and data and not isinstance(reply.body, bytes):
        content_type = "application/json"
    if content_type is not None:
        headers.append((b"content-type", content_type.encode("latin-1")))
    if api.versions is not None and request.version is not None:
        versions, number = api.versions, text_of(request.version)
        vary = "OpenStack-API-Version"
        headers.append((b"openstack-api-version", f"{versions.service_type} {number}".encode()))
        if versions.legacy_header is not None:
            headers.append((versions.legacy_header.encode(), number.encode()))
            vary = f"{vary}, {versions.legacy_header}"
        headers.append((b"vary", vary.encode()))
    named = {name.lower() for name in reply.headers}
    for name, value in reply.headers.items():
        headers.append((name.lower().encode("latin-1"), value.encode("utf-8")))
    if reply.stream is None and status not in (204, 304) and "content-length" not in named:
        headers.append((b"content-length", str(len(data)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if reply.stream is None or request.method == "HEAD":
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else data})
        return
    async for chunk in reply.stream:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
