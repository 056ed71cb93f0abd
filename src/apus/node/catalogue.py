"""What the catalogue of this cloud says: every service by path below one URL, objects at their own port."""

from __future__ import annotations

from urllib.parse import urlsplit

from apus.kernel.settings import Settings
from apus.services.identity.contract import CatalogueEntry


def public_url(settings: Settings) -> str:
    """How clients reach the APIs: as the operator says, else the address that we listen on."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = "127.0.0.1" if settings.bind in ("0.0.0.0", "::") else settings.bind  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def object_address(settings: Settings) -> tuple[str, int]:
    """Where our own processes reach the object process."""
    if settings.object_url:
        parts = urlsplit(settings.object_url)
        return parts.hostname or "127.0.0.1", parts.port or 80
    host = "127.0.0.1" if settings.bind in ("0.0.0.0", "::") else settings.bind  # noqa: S104 - compared, not bound
    return host, settings.objects_at


def object_url(settings: Settings) -> str:
    """The object process itself: data takes one hop.  Behind a proxy of the operator's, or on a node that clients
    need not reach, the one public URL."""
    if settings.public_url or settings.object_url:
        return public_url(settings)
    parts = urlsplit(public_url(settings))
    return f"{parts.scheme}://{parts.netloc.rpartition(':')[0]}:{settings.objects_at}"


def s3_url(settings: Settings) -> str:
    """The S3 door, at a port of its own."""
    parts = urlsplit(public_url(settings))
    return f"{parts.scheme}://{parts.netloc.rpartition(':')[0] or parts.netloc}:{settings.s3_port}"


def catalogue(settings: Settings) -> list[CatalogueEntry]:
    url = public_url(settings)
    objects = CatalogueEntry(type="object-store", name="swift", url=f"{object_url(settings)}/v1/AUTH_%(project_id)s")
    identity = CatalogueEntry(type="identity", name="keystone", url=f"{url}/identity")
    if "control" not in settings.roles:
        return [identity, objects]
    return [
        identity,
        CatalogueEntry(type="image", name="glance", url=f"{url}/image"),
        CatalogueEntry(type="compute", name="nova", url=f"{url}/compute/v2.1"),
        CatalogueEntry(type="placement", name="placement", url=f"{url}/placement"),
        CatalogueEntry(type="network", name="neutron", url=f"{url}/network"),
        objects,
        CatalogueEntry(type="apus", name="apus", url=f"{url}/apus/v1"),
    ]
