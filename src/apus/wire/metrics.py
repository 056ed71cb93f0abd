"""What this process did, as counters that cost a microsecond, in Prometheus' text format.

prometheus-client would do the same for a tenth of a second of import in each process.  The series are bounded: one for
each operation and status, one for each loop; what has to be looked up is looked up when somebody asks.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from apus.kernel.errors import Forbidden
from apus.kernel.policy import Rule
from apus.wire.app import Api
from apus.wire.faults import Faults, errors_fault
from apus.wire.route import ApiRequest, Reply, Route

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Look = Callable[[], Awaitable[Mapping[str, float]]]


class _Took:
    """A histogram."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts, self.sum_s = [0] * (len(BOUNDS_S) + 1), 0.0


class Metrics:
    """The counters of one process."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._requests: dict[tuple[str, str, int], int] = {}
        self._took: dict[tuple[str, str], _Took] = {}
        self._rounds: dict[str, tuple[float, float]] = {}
        self._looks: dict[str, tuple[str, str, Look]] = {}

    def request(self, service: str, operation: str, status: int, took_s: float) -> None:
        key = (service, operation, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        took = self._took.get(key[:2])
        if took is None:
            took = self._took[key[:2]] = _Took()
        took.counts[bisect_left(BOUNDS_S, took_s)] += 1
        took.sum_s += took_s

    def round(self, loop: str, took_s: float) -> None:
        """A loop has been through what it had to look at (see `kernel.loop.drive`)."""
        self._rounds[loop] = (self._monotonic_s(), took_s)

    def watch(self, name: str, about: str, label: str, look: Look) -> None:
        """A gauge that is looked up when it is asked for: label value -> number."""
        self._looks[name] = (about, label, look)

    async def text(self) -> bytes:
        parts = [*self._request_lines(), *self._loop_lines()]
        for name, (about, label, look) in self._looks.items():
            parts += _head(name, "gauge", about)
            parts += [f"{name}{_labels({label: key})} {value:g}" for key, value in sorted((await look()).items())]
        return ("\n".join(parts) + "\n").encode()

    def _request_lines(self) -> Iterable[str]:
        yield from _head("apus_http_requests_total", "counter", "Requests answered.")
        for (service, operation, status), count in sorted(self._requests.items()):
            labels = _labels({"service": service, "operation": operation, "status": str(status)})
            yield f"apus_http_requests_total{labels} {count}"
        yield from _head("apus_http_request_seconds", "histogram", "From the request's head to the reply's end.")
        for (service, operation), took in sorted(self._took.items()):
            named, total = {"service": service, "operation": operation}, 0
            for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), took.counts, strict=True):
                total += count
                yield f"apus_http_request_seconds_bucket{_labels({**named, 'le': bound})} {total}"
            yield f"apus_http_request_seconds_sum{_labels(named)} {took.sum_s:.6f}"
            yield f"apus_http_request_seconds_count{_labels(named)} {total}"

    def _loop_lines(self) -> Iterable[str]:
        now_s = self._monotonic_s()
        yield from _head("apus_loop_idle_seconds", "gauge", "Since the loop's last round ended; it should stay small.")
        for loop, (ended_s, _) in sorted(self._rounds.items()):
            yield f"apus_loop_idle_seconds{_labels({'loop': loop})} {now_s - ended_s:.3f}"
        yield from _head("apus_loop_round_seconds", "gauge", "What the loop's last round took.")
        for loop, (_, took_s) in sorted(self._rounds.items()):
            yield f"apus_loop_round_seconds{_labels({'loop': loop})} {took_s:.6f}"

    async def show(self, request: ApiRequest) -> Reply:
        """`GET /metrics`: for this machine, and for administrators."""
        by_admin = request.caller is not None and request.caller.is_admin
        if not by_admin and not _from_here(request.scope.get("client")):
            raise Forbidden("wire.metrics", "Metrics are for administrators, and for who asks from this machine.")
        return Reply(await self.text(), content_type=_TYPE)


def metrics_api(metrics: Metrics) -> Api:
    return Api(
        name="metrics",
        prefix="/metrics",
        routes=(Route("GET", "", metrics.show, may="metrics:show", name="show_metrics"),),
        service=None,
        policy={"metrics:show": Rule.PUBLIC},  # who asks from this machine needs no token; `show` looks closer
        faults=Faults(errors_fault),
    )


def _from_here(client: Any) -> bool:
    try:
        return client is not None and ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


def _head(name: str, kind: str, about: str) -> tuple[str, str]:
    return f"# HELP {name} {about}", f"# TYPE {name} {kind}"


def _labels(labels: Mapping[str, str]) -> str:
    quoted = (value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for value in labels.values())
    return "{" + ",".join(f'{name}="{value}"' for name, value in zip(labels, quoted, strict=True)) + "}"
