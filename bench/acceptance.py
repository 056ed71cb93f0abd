"""`make tempest`: OpenStack's own acceptance suite against two clouds of ours, and docs/tempest.md written from what it said.

The API groups run on simulated hosts, where a server boots at once and nothing but the API is judged; the scenarios run on
a real cloud with flat networks, where Tempest logs in to the guests.  The flags below say what this cloud has: what is off
is not there yet, so its tests are skipped, and counted as skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.cloud import BenchCloud, bench_cloud

HERE: Final = Path(__file__).parent
PAGE: Final = HERE.parent / "docs" / "tempest.md"
API: Final = ("identity", "image", "network", "compute", "object_storage")

# `--features none` switches every flag off; these are what we have.
HAVE: Final[Mapping[str, str]] = {
    "compute-feature-enabled.config_drive": "True",
    "compute-feature-enabled.console_output": "True",
    "compute-feature-enabled.disk_config": "True",
    "compute-feature-enabled.enable_instance_password": "True",
    "compute-feature-enabled.metadata_service": "True",
    "compute-feature-enabled.pause": "True",
    "identity-feature-enabled.access_rules": "True",
    "identity-feature-enabled.trust": "True",
    "image-feature-enabled.import_image": "True",
    "network-feature-enabled.ipv6": "True",
    "network-feature-enabled.ipv6_subnet_attributes": "True",
    "network-feature-enabled.port_admin_state_change": "True",
    "network-feature-enabled.port_security": "True",
    "object-storage-feature-enabled.discoverability": "True",
    "object-storage-feature-enabled.object_versioning": "True",
}
# A simulated server is up at once; images over HTTP are taken from the ports of the web alone.
SIMULATED: Final = ("--build-timeout", "60", "--serve-addr", "127.0.0.1:80")
# There are no routers yet: servers are put into the network that all share, and reached at their fixed addresses (the
# machine of a real cloud has a foot in that network).
FLAT: Final[Mapping[str, str]] = {
    "auth.create_isolated_networks": "False",
    "compute.fixed_network_name": "default",
    "network.shared_physical_network": "True",
    "validation.connect_method": "fixed",
    "validation.network_for_ssh": "default",
}

# What is not there yet, by what its tests are called: their failures are summed up on the page, all others are listed.
NOT_YET: Final[Mapping[str, str]] = {
    "rebuild, resize, shelve, snapshot, change of password, restore of servers": (
        r"rebuild|resize|[Uu]nshelve|create_backup|ServerActionsTestOtherA|ServerActionsTestJSON|restore_server"
        r"|ServerDiskConfig|InstanceActionsTestJSON|nova_image_snapshot|compute\.images\.test_list_image_filters"
    ),
    "compute's old doors to images, networks and security groups (2.1 to 2.35)": (
        r"compute\.images|compute\.security_groups|compute\.admin\.test_(security_groups|networks)|tenant_networks"
    ),
    "compute: shutting hosts down, usage audit log, external events, extensions": (
        r"test_hosts_negative|instance_usage_audit|external_events|test_extensions"
    ),
    "routers (these tests make or list one)": r"test_dhcp_ipv6|filter_by_router|TagsExtTest",
    "metadata definitions and import tasks of images": r"metadefs|MetadataSchema|image_task",
    "identity: OAuth 1, policies, endpoint groups, configuration of domains": (
        r"oauth_consumers|test_policies|endpoint_groups|domain_configuration"
    ),
}


def judge(cloud: BenchCloud, out: Path, regex: str, options: Sequence[str]) -> dict[str, Any]:
    """One run of the judge; its result.json."""
    clouds = msgspec.yaml.decode((cloud.state_dir / "clouds.yaml").read_bytes())["clouds"]
    auth = clouds["apus-admin"]["auth"]
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OS_")},
        "ANCHOR_DIR": os.environ.get("ANCHOR_DIR", str(Path.home() / ".cache" / "apus" / "tempest")),
        "OS_AUTH_URL": auth["auth_url"],
        "OS_USERNAME": auth["username"],
        "OS_PASSWORD": auth["password"],
        "OS_PROJECT_NAME": auth["project_name"],
    }
    sets = [part for name, value in {**HAVE, **FLAT}.items() for part in ("--set", f"{name}={value}")]
    command = [sys.executable, str(HERE / "tempest_run.py"), "--plugins", "core", "--features", "none", "--prepare"]
    command += ["--regex", regex, "--out", str(out), *options, *sets]
    subprocess.run(command, env=env)
    return dict(json.loads((out / "result.json").read_text()))


def on_simulated_hosts(port: int, out: Path, groups: Sequence[str]) -> dict[str, Any]:
    with bench_cloud(port, "--sim-hosts", "4", "--network", "simulated") as cloud:
        realm = f"[realm1]\nkey = secret\ncluster_name1 = http://127.0.0.1:{port}/v1/\n"
        cloud.state_dir.mkdir(parents=True)
        (cloud.state_dir / "container-sync-realms.conf").write_text(realm)
        (cloud.state_dir / "apus.toml").write_text("web_download_private = true\n")
        cloud.up()
        regex = rf"^tempest\.api\.({'|'.join(groups)})\."
        return judge(cloud, out, regex, ["--no-validation", *SIMULATED])


def on_real_guests(port: int, out: Path) -> dict[str, Any]:
    with bench_cloud(port, "--network", "flat") as cloud:
        cloud.up()
        options = ["--concurrency", "1", "--ssh-user", "root"]
        return judge(cloud, out, r"^tempest\.scenario\.", options)


def table(result: Mapping[str, Any]) -> list[str]:
    lines = ["| group | passed | failed | did not run | skipped | of |", "| --- | --- | --- | --- | --- | --- |"]
    for name, count in [*sorted(result["groups"].items()), ("**all**", result["total"])]:
        cells = [count[key] for key in ("passed", "failed", "notrun", "skipped", "total")]
        lines.append(f"| {name} | {' | '.join(str(cell) for cell in cells)} |")
    return lines


def one_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return (lines[-1] if lines else "?").replace("|", "\\|")[:200]


def failures(result: Mapping[str, Any]) -> list[str]:
    """What failed or did not run: features that are not there, counted; the rest one by one."""
    failed = {name.split("[")[0]: why for name, why in {**result["not_run"], **result["failed_why"]}.items()}
    missing: Counter[str] = Counter()
    ours = []
    for name, why in sorted(failed.items()):
        feature = next((text for text, pattern in NOT_YET.items() if re.search(pattern, name)), None)
        if feature is None:
            ours.append(f"- `{name}`: {one_line(why)}")
        missing.update([feature] if feature is not None else [])
    lines = ["", "Failed or did not run for want of what is not there yet:", ""] if missing else []
    lines += [f"- {count} × {feature}" for feature, count in missing.most_common()]
    return lines + (["", "Failed otherwise:", "", *ours] if ours else [])


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    first = next(iter(results.values()))
    lines = [
        "# What Tempest says",
        "",
        f"Written by `make tempest` on {first['started'][:10]} with {', '.join(first['pins'])}, {first['concurrency']} workers.",
        "A skip is not a pass. Flags are set to what this cloud has (`HAVE` in `bench/acceptance.py`); what is off is skipped.",
    ]
    for title, result in results.items():
        lines += ["", f"## {title}", "", *table(result)]
        lines += failures(result)
        reasons = Counter({one_line(why): count for why, count in result["skip_reasons"].items()})
        if reasons:
            lines += ["", "Skipped, and why:", ""]
            lines += [f"- {count} × {why}" for why, count in reasons.most_common()]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=18790)
    parser.add_argument("--groups", default=",".join(API), help="the API groups, separated by commas")
    parser.add_argument("--only", choices=("api", "scenario"), help="one of the two clouds")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the page is written")
    options = parser.parse_args()
    out = Path(tempfile.mkdtemp(prefix=time.strftime("apus-tempest-%H%M.")))
    results = {}
    if options.only != "scenario":
        results["The APIs, on simulated hosts"] = on_simulated_hosts(
            options.port, out / "api", options.groups.split(",")
        )
    if options.only != "api":
        results["The scenarios, on real guests"] = on_real_guests(options.port + 1, out / "scenario")
    options.page.write_text(page(results))
    print(f"written: {options.page}; details: {out}")
    return int(any(result["total"]["failed"] or result["total"]["notrun"] for result in results.values()))


if __name__ == "__main__":
    raise SystemExit(main())
