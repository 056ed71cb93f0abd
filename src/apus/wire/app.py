"""The one HTTP application: finds the service by path, then walks each request down the same stairs.

request id → route → version → token → may → body → handler → view of that version → reply; every error on the way
becomes the service's own fault.  Only here, at the edge, is `except Exception` allowed: it is a bug of ours, is
logged with its request id, and answers 500 without its text.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from apus.kernel import policy
from apus.kernel.caller import Caller
from apus.kernel.errors import CloudError, Invalid, NotFound, Unauthenticated
from apus.kernel.ids import new_id
from apus.kernel.log import get_logger
from apus.kernel.policy import Policy, Rule
from apus.wire.access import require_listed
from apus.wire.answer import Answer, NotBegun, Send, rendered, send_answer
from apus.wire.body import ClientGone
from apus.wire.faults import Faults, MethodNotAllowed, errors_fault
from apus.wire.route import ApiRequest, Reply, Route, Router, convert_body, decode_body
from apus.wire.versions import Version, VersionChain

if TYPE_CHECKING:
    from apus.wire.metrics import Metrics

_log: Final = get_logger("apus.http")


class Authenticator(Protocol):
    def verify(self, token: str) -> Caller:
        """Who holds this token.  Reads no database.  Raise Unauthenticated."""
        ...


class Replays(Protocol):
    """Keeps answers by Idempotency-Key (see wire/idempotency.py)."""

    async def around(self, request: ApiRequest, handle: Callable[[], Awaitable[Reply]]) -> Reply: ...


def unmarked(request: ApiRequest) -> Sequence[tuple[str, str]]:
    return ()


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
        forgives_slash: bool = False,
        admits_nul: bool = False,
        marks: Callable[[ApiRequest], Sequence[tuple[str, str]]] = unmarked,
    ) -> None:
        """`admits_nul`: its handlers say themselves where there may be none (%00).

        `marks`: headers of all its answers, refusals too.

        `forgives_slash`: a slash at the end of a path changes nothing, as in Keystone and Neutron, whose clients
        send it.  Elsewhere it asks for a thing without a name.
        """
        self.service_type = service_type or name
        self.name, self.prefix, self.routes, self.service = name, prefix.rstrip("/"), routes, service
        self.policy, self.faults, self.versions, self.forgives_slash = policy, faults, versions, forgives_slash
        self.admits_nul, self.marks = admits_nul, marks
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
        metrics: Metrics | None = None,
    ) -> None:
        self._rootless = [api for api in apis if not api.prefix]
        self._first: dict[str, list[Api]] = {}
        """By the path's first segment, the longest prefix first."""
        for api in sorted(apis, key=lambda api: -len(api.prefix)):
            if api.prefix:
                self._first.setdefault(api.prefix.split("/")[1], []).append(api)
        for found in self._first.values():
            found.extend(self._rootless)
        self._authenticator, self._dice, self._auth_path = authenticator, dice, auth_path
        self._replays, self._metrics = replays, metrics

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            return
        began_s = time.perf_counter()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request = ApiRequest(scope, receive, headers, "req-" + new_id(self._dice))
        api = self._api_for(request.raw_path)
        try:
            answer = await self._answer(api, request)
            try:
                await send_answer(request, answer, send)
            except NotBegun as failed:
                answer = self._rendered(api, request, self._fault(api, request, failed.error))
                await send_answer(request, answer, send)
        except ClientGone:
            _log.info("client gone", request_id=request.request_id, method=request.method, path=request.raw_path)
            return
        except Exception as error:  # midway in a stream: the reply ends early, and the client can tell
            shown = {"code": error.code, "shown": error.shown} if isinstance(error, CloudError) else {}
            _log.exception("a reply ended early", request_id=request.request_id, path=request.raw_path, **shown)
            return
        took_s = time.perf_counter() - began_s
        if self._metrics is not None:
            self._metrics.request(api.name, request.route.operation, answer.status, took_s)
        caller = request.caller
        _log.info(
            "request",
            method=request.method,
            path=request.raw_path,
            status=answer.status,
            ms=round(took_s * 1000, 2),
            request_id=request.request_id,
            user=caller.user_id if caller else None,
            project=caller.project_id if caller else None,
        )

    def _api_for(self, raw_path: str) -> Api:
        first = raw_path[1:].partition("/")[0]
        for api in self._first.get(first, self._rootless):
            if raw_path.startswith(api.prefix) and raw_path[len(api.prefix) :][:1] in ("", "/"):
                return api
        return _NOWHERE

    async def _answer(self, api: Api, request: ApiRequest) -> Answer:
        try:
            return self._rendered(api, request, await self._handle(api, request))
        except CloudError as error:
            return self._rendered(api, request, self._fault(api, request, error))
        except ClientGone:
            raise
        except Exception:
            _log.exception("unhandled", request_id=request.request_id, path=request.raw_path)
            ours = CloudError("wire.internal", f"An unexpected error happened; it is logged as {request.request_id}.")
            return self._rendered(api, request, self._fault(api, request, ours))

    def _rendered(self, api: Api, request: ApiRequest, reply: Reply) -> Answer:
        return rendered(request, reply, api.versions, api.marks(request))

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
                return msgspec.structs.replace(reply, body=view)
        return reply

    def _route(self, api: Api, request: ApiRequest) -> tuple[Route, dict[str, str]]:
        if not api.admits_nul and ("%00" in request.raw_path or "%00" in request.raw_query):
            raise Invalid("wire.nul", "A NUL character (%00) is nowhere part of a name or a value.")
        path = request.raw_path[len(api.prefix) :]
        found, methods = api.router.find(request.method, path)
        if not methods and api.forgives_slash and path.endswith("/"):
            found, methods = api.router.find(request.method, path.rstrip("/"))
        for route, params in found:
            if _in_range(route, request.version):
                return route, params
        if methods and not found:
            possible = sorted({*methods, "HEAD"} if "GET" in methods else methods)
            shown = f"{request.method} is not possible here; possible: {', '.join(possible)}."
            raise MethodNotAllowed("wire.method", shown, details={"allow": possible})
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
            headers["Allow"] = ", ".join(error.details["allow"])
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
