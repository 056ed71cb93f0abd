"""The S3 door: from a request as it comes to an answer in S3's words.

The stairs: bucket and key → who asks → which operation → the bucket → may he → the handler.  An error on any of them
is S3's XML.  As in `wire/app.py`, `except Exception` is allowed here alone: a bug of ours answers 500 and is logged.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from random import Random
from typing import TYPE_CHECKING, Any, Final

from apus.kernel.errors import CloudError
from apus.kernel.log import get_logger
from apus.services.identity.contract import Principals
from apus.services.object import consistency
from apus.services.object.consistency import READING
from apus.services.object.key_locks import KeyLocks
from apus.services.object.logic.hidden import is_hidden
from apus.services.object.service import Objects
from apus.skins.s3 import cors, rights, website
from apus.skins.s3.auth import Authority
from apus.skins.s3.errors import S3Error, error_body, s3_error
from apus.skins.s3.names import BucketNames
from apus.skins.s3.operations import Operation, find_operation
from apus.skins.s3.request import BUCKET_BYTES_MAX, S3Request, joined_headers
from apus.wire.answer import BODIES, BODILESS, Answer, Body, NotBegun, completed, send_answer
from apus.wire.body import ClientGone
from apus.wire.route import Reply

if TYPE_CHECKING:
    from apus.wire.metrics import Metrics

_log: Final = get_logger("apus.s3")

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class S3Door:
    """An ASGI application.  `domains`: below them, host names are those of buckets.  `principals`: identity."""

    def __init__(
        self,
        objects: Objects,
        authority: Authority,
        principals: Principals,
        *,
        dice: Random,
        domains: tuple[str, ...] = (),
        metrics: Metrics | None = None,
    ) -> None:
        self.objects, self.authority, self.region = objects, authority, authority.region
        self.names, self.principals = BucketNames(objects), principals
        self.domains = tuple(domain.lower() for domain in domains)
        self.key_locks = KeyLocks()
        self.dice, self._metrics = dice, metrics
        self._host_id = base64.b64encode(dice.randbytes(24)).decode()

    def now_s(self) -> float:
        return self.objects.cluster.world.clock.now_s()

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            return
        began_s = time.perf_counter()
        request = S3Request(scope, receive, joined_headers(scope["headers"]), f"{self.dice.getrandbits(64):016X}", self)
        try:
            reply = await self._answer(request)
            try:
                await send_answer(request, self._rendered(request, reply), send)
            except NotBegun as failed:
                reply = await self._refusal(request, s3_error(failed.error))
                await send_answer(request, self._rendered(request, reply), send)
        except ClientGone:
            _log.info("client gone", request_id=request.request_id, method=request.method, path=request.raw_path)
            return
        except Exception:  # midway in a stream: the reply ends early, and the client can tell
            _log.exception("a reply ended early", request_id=request.request_id, path=request.raw_path)
            return
        took_s = time.perf_counter() - began_s
        if self._metrics is not None:
            self._metrics.request("s3", request.operation, reply.status or 200, took_s)
        caller = request.caller
        _log.info(
            "request",
            method=request.method,
            path=request.raw_path,
            operation=request.operation,
            status=reply.status or 200,
            ms=round(took_s * 1000, 2),
            request_id=request.request_id,
            user=caller.user_id if caller else None,
            project=caller.project_id if caller else None,
        )

    async def _answer(self, request: S3Request) -> Reply:
        try:
            try:
                return await self._handle(request)
            except CloudError as error:
                if error.hidden:
                    _log.warning("fault", request_id=request.request_id, code=error.code, hidden=error.hidden)
                raise s3_error(error) from error
        except S3Error as error:
            return await self._refusal(request, error)
        except ClientGone:
            raise
        except Exception:
            _log.exception("unhandled", request_id=request.request_id, path=request.raw_path)
            return await self._refusal(request, S3Error("InternalError"))

    async def _handle(self, request: S3Request) -> Reply:
        site = website.site_of(request.headers.get("host", ""), self.domains)
        if site is not None:
            return await website.serve(request, site)
        request.parse(self.domains)
        if request.method == "OPTIONS":
            request.operation = "Preflight"
            return await cors.preflight(request)
        operation = find_operation(request)
        request.operation = operation.name
        if operation.proves:
            request.proof = await self.authority.prove(request)
            request.caller = request.proof.caller
        reading = consistency.asked(request.headers, of_object=bool(request.key))
        READING.set(reading)
        if request.bucket and operation.on_bucket:
            await self.enter(request)
        await self._permit(request, operation)
        reply = await operation.to(request)
        if request.bucket and not request.key:
            self.objects.directory.saw(reading, request.account, request.bucket)
        if "origin" in request.headers and request.bucket:
            return cors.with_headers(request, reply)
        return reply

    async def enter(self, request: S3Request) -> None:
        """Find the bucket.  Raise S3Error when there is none."""
        bucket = request.bucket
        if len(bucket.encode()) > BUCKET_BYTES_MAX or is_hidden("", bucket):
            raise S3Error("InvalidBucketName", fields={"BucketName": bucket})
        account = await self.names.account_of(bucket, request.caller)
        if account is None:
            raise S3Error("NoSuchBucket", fields={"BucketName": bucket})
        request.account, request.head = account, await self.objects.container(account, bucket)
        expected = request.headers.get("x-amz-expected-bucket-owner")
        if expected is not None and expected != account.removeprefix("AUTH_"):
            raise S3Error("AccessDenied")

    async def _permit(self, request: S3Request, operation: Operation) -> None:
        """Ask for the rights that the table names; where it names none, the handler asks."""
        if operation.needs_caller and request.caller is None:
            raise S3Error("AccessDenied")
        if operation.action:
            await rights.require(request, operation.action, operation.permission)

    async def _refusal(self, request: S3Request, error: S3Error) -> Reply:
        body = error_body(error, request.raw_path, request.request_id, self._host_id)
        headers = dict(error.headers)
        if error.code == "AuthorizationHeaderMalformed" and "Region" in error.fields:
            headers["x-amz-bucket-region"] = self.region
        reply = Reply(body, error.status, headers, content_type="application/xml")
        if "origin" in request.headers and hasattr(request, "head"):
            return cors.with_headers(request, reply)
        return reply

    def _rendered(self, request: S3Request, reply: Reply) -> Answer:
        status = reply.status or 200
        bodiless = status in BODILESS
        data: Body = reply.body if isinstance(reply.body, BODIES) and not bodiless else b""
        headers = [("x-amz-request-id", request.request_id), ("x-amz-id-2", self._host_id), ("server", "apus")]
        reading = READING.get()
        if reading is not None:
            headers += reading.headers(wrote=request.method not in ("GET", "HEAD") and status < 300).items()
        if reply.content_type is not None and not bodiless:
            headers.append(("content-type", reply.content_type))
        return completed(request, reply, status, headers, data)
