"""Whatever is sent, to every route, with and without rights: never a 5xx."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apus.services.image.api.bodies import FIELDS, PATCH_2_1, READ_ONLY
from apus.services.image.api.routes import ROUTES
from tests.doubles import BOB
from tests.image_cloud import image_cloud

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from(sorted([*FIELDS, *READ_ONLY, "kernel_id", "custom", "os_glance_x"])) | st.text(max_size=12)
IMAGE = st.dictionaries(NAMES, JSON, max_size=5)
PATH = NAMES.map(lambda name: f"/{name}") | st.text(max_size=10)
OP = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "replace", "remove", "copy"]), "path": PATH}, optional={"value": JSON}
)
BODY = st.one_of(
    JSON,
    IMAGE,
    st.lists(OP | JSON, max_size=4),
    st.fixed_dictionaries({"member": st.just(BOB.project_id) | JSON}),
    st.fixed_dictionaries({"status": st.sampled_from(["accepted", "pending"]) | JSON}),
    st.fixed_dictionaries(
        {"method": st.fixed_dictionaries({"name": st.sampled_from(["glance-direct", "web-download", "copy-image"])},
                                         optional={"uri": st.just("http://web/good") | st.text(max_size=30)}) | JSON}
    ),
    st.binary(max_size=200),
)  # fmt: skip
PARAMETERS = st.lists(
    st.tuples(
        st.sampled_from([
            "limit", "marker", "sort", "sort_key", "sort_dir", "name", "id", "status", "visibility", "member_status",
            "size_min", "size_max", "protected", "os_hidden", "tag", "owner", "created_at", "updated_at", "min_ram",
            "x",
        ]),
        st.text(max_size=12)
        | st.sampled_from(["in:a,b", 'in:"', "gt:2020-01-01T00:00:00Z", "0", "9" * 30, "%00", "all"]),
    ),
    max_size=4,
)  # fmt: skip
HEADERS = st.dictionaries(
    st.sampled_from(["range", "content-type", "x-openstack-image-size", "idempotency-key", "content-length"]),
    st.sampled_from(
        ["bytes=0-1", "bytes=-", "application/octet-stream", "application/json", PATCH_2_1, "12", "-1", "x" * 300, "k"]
    ),
    max_size=3,
)
SEGMENT = st.sampled_from(["{id}", "{id}", "{id}", "none", "%00", "%ff%fe", "a/b", "'"])


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.sampled_from(ROUTES), BODY, PARAMETERS, HEADERS, SEGMENT,
            st.sampled_from(["alice", "alice", "bob", "admin", "rita", None, "nobody"]),
        ),
        min_size=3, max_size=10,
    )
)  # fmt: skip
def test_never_5xx(asks: list[tuple[Any, ...]]) -> None:
    async def story() -> None:
        async with image_cloud({"http://web/good": b"data" * 100}) as cloud:
            image_id = await cloud.image()
            for route, body, parameters, headers, segment, token in asks:
                path = "/image" + route.path.replace("{id}", segment).replace("{id}", image_id)
                path = path.replace("{member}", str(BOB.project_id)).replace("{tag}", segment.replace("{id}", "t"))
                query = "&".join(f"{name}={_quoted(value)}" for name, value in parameters)
                got = await cloud.ask(route.method, f"{path}?{query}", body, token=token, headers=headers)
                assert got.status == 0 or got.status < 500, (route.method, path, query, body, got.body)

    asyncio.run(story())


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="%")
