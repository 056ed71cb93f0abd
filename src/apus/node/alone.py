"""An object store without a cloud: identity and objects in one process, behind one port, and S3 behind another.

`object.env` in the state directory says where it is and who may use it, for a shell to source.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from apus.kernel.settings import Settings
from apus.kernel.world import World
from apus.node.catalogue import public_url, s3_url
from apus.node.control import WiredControl
from apus.node.objects import WiredObjects, open_objects, s3_door
from apus.node.secrets import load_secrets, tenants, write_private
from apus.node.stages import Stages
from apus.services.identity.service import Identity
from apus.skins.apus.routes import events_api

if TYPE_CHECKING:
    from apus.skins.s3.door import S3Door

NAMES = {"demo": "", "alt_demo": "ALT_"}
"""What the variables of each tenant begin with."""


async def wire_alone(
    state_dir: Path, settings: Settings, world: World, stages: Stages
) -> tuple[WiredControl, WiredObjects, S3Door | None]:
    control = WiredControl(state_dir, settings, world, stages)
    identity = await control.identity()
    objects = await open_objects(
        state_dir, settings, control.world, stages, control.metrics, control.object_events, identity
    )
    control.front([*control.doors_of(identity), *objects.apis(), events_api(control.world)], identity)
    write_private(state_dir / "object.env", await _access(state_dir, settings, identity, control.projects))
    s3 = None
    if settings.s3_port:
        s3 = s3_door(settings, objects.store, identity, identity, identity.core.view, control.metrics)
    return control, objects, s3


async def _access(state_dir: Path, settings: Settings, identity: Identity, projects: Mapping[str, str]) -> str:
    """The variables that swiftclient and Amazon's clients read, and as many for a second tenant."""
    url = public_url(settings)
    lines = {"ST_AUTH": f"{url}/auth/v1.0", "APUS_URL": url, "APUS_IDENTITY_URL": f"{url}/identity/v3"}
    if settings.s3_port:
        lines |= {"AWS_ENDPOINT_URL": s3_url(settings), "AWS_DEFAULT_REGION": settings.region}
    for name, password in tenants(settings, load_secrets(state_dir)).items():
        prefix, project_id = NAMES[name], projects[name]
        lines |= {
            f"{prefix}ST_USER": f"{name}:{name}",
            f"{prefix}ST_KEY": password,
            f"{prefix}STORAGE_URL": f"{url}/v1/AUTH_{project_id}",
        }
        key = await identity.secrets.ensure_ec2(name, project_id)
        if key is not None:
            lines |= {f"{prefix}AWS_ACCESS_KEY_ID": key[0], f"{prefix}AWS_SECRET_ACCESS_KEY": key[1]}
    head = "# Access to this object store.  For a shell: set -a; . object.env\n"
    return head + "".join(f"{name}={shlex.quote(value)}\n" for name, value in lines.items())
