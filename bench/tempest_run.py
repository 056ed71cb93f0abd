#!/usr/bin/env python3
"""Judge an OpenStack-compatible endpoint with Tempest and its plugins.

Phases (each can be run alone):
  1. a virtual environment under $ANCHOR_DIR with pinned tempest + plugins
     (tempest_constraints.txt beside this file), made once;
  2. tempest.conf, written by discovery: catalogue, microversions, extensions,
     images, flavors, external network, volume pools, hypervisor count, roles;
  3. the run: a regex (or preset, or list of ids) at a chosen concurrency;
  4. one line per group: passed / failed / skipped / not run, and result.json
     with the failing ids, the skip reasons and everything that did not run.

Accounting rules, deliberately strict:
  * the tests to be accounted for are listed before the run; every one of them
    ends in exactly one of passed, failed, skipped, not run;
  * a skip is never a pass; skips raised in setUpClass are spread over all the
    tests of that class (the runner itself reports them as one);
  * a class whose setUpClass FAILED puts its tests in 'not run' and is listed
    (and counted) as a failed fixture; so does a failing tearDownClass;
  * a test marked @unstable_test that fails reports itself as a skip: it is
    counted as failed here;
  * a run cut off by --timeout leaves the rest as 'not run'.
Exit status: 0 all selected tests passed or skipped and none failed / not run;
1 something failed or did not run; 2 could not set up; 3 nothing passed.

Feature flags that no API tells (resize, live migration, consoles...) come from
--features: 'all' (default: the cloud claims everything, so that a missing
feature is a failure and not a skip), 'default' (tempest's own defaults) or
'none'.  --set 'section.option=value' overrides anything.

Environment: OS_AUTH_URL, OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME,
OS_USER_DOMAIN_NAME, OS_PROJECT_DOMAIN_NAME, OS_REGION_NAME, OS_CACERT,
OS_INSECURE; ANCHOR_DIR (default ~/.anchors/tempest).
"""

import argparse
import collections
import configparser
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
ANCHOR_DIR = os.environ.get("ANCHOR_DIR", os.path.join(os.path.expanduser("~"), ".anchors", "tempest"))
CONSTRAINTS = os.path.join(HERE, "tempest_constraints.txt")

# name -> (distribution, top-level module of its tests)
PLUGINS = {
    "keystone": ("keystone-tempest-plugin==0.22.0", "keystone_tempest_plugin"),
    "neutron": ("neutron-tempest-plugin==3.3.0", "neutron_tempest_plugin"),
    "cinder": ("cinder-tempest-plugin==1.23.0", "cinder_tempest_plugin"),
    "glance": ("glance-tempest-plugin==0.17.0", "glance_tempest_plugin"),
    "heat": ("heat-tempest-plugin==3.0.0", "heat_tempest_plugin"),
    "octavia": ("octavia-tempest-plugin==3.5.0", "octavia_tempest_plugin"),
    "ironic": ("ironic-tempest-plugin==3.2.0", "ironic_tempest_plugin"),
    "barbican": ("barbican-tempest-plugin==4.6.0", "barbican_tempest_plugin"),
    "designate": ("designate-tempest-plugin==0.30.0", "designate_tempest_plugin"),
    "manila": ("manila-tempest-plugin==3.2.0", "manila_tempest_tests"),
    "zun": ("zun-tempest-plugin==4.14.0", "zun_tempest_plugin"),
    "magnum": ("magnum-tempest-plugin==2.12.0", "magnum_tempest_plugin"),
    "telemetry": ("telemetry-tempest-plugin==2.11.0", "telemetry_tempest_plugin"),
    # Not in the default set; named explicitly with --plugins.  Give ec2api an
    # ANCHOR_DIR of its own: its old boto pins do not go with the others.
    "patrole": ("patrole==0.16.0", "patrole_tempest_plugin"),
    "ec2api": ("ec2api-tempest-plugin==1.7.0", "ec2api_tempest_plugin"),
    "mistral": ("mistral-tempest-tests==2.10.0", "mistral_tempest_tests"),
    "zaqar": ("zaqar-tempest-plugin==4.3.0", "zaqar_tempest_plugin"),
    "watcher": ("watcher-tempest-plugin==3.9.0", "watcher_tempest_plugin"),
    "trove": ("trove-tempest-plugin==2.8.0", "trove_tempest_plugin"),
    "blazar": ("blazar-tempest-plugin==0.19.0", "blazar_tempest_plugin"),
    "freezer": ("freezer-tempest-plugin==3.5.0", "freezer_tempest_plugin"),
    "cyborg": ("cyborg-tempest-plugin==2.8.0", "cyborg_tempest_plugin"),
    "cloudkitty": ("cloudkitty-tempest-plugin==3.6.0", "cloudkitty_tempest_plugin"),
}
DEFAULT_PLUGINS = [
    "keystone",
    "neutron",
    "cinder",
    "glance",
    "heat",
    "octavia",
    "ironic",
    "barbican",
    "designate",
    "manila",
    "zun",
    "magnum",
    "telemetry",
]
TEMPEST = "tempest==47.0.0"
CLIENT = "openstacksdk"  # discovery asks with it; the version is in the constraints

# regex, exclude regex
PRESETS = {
    "smoke": (r"\[.*\bsmoke\b.*\]", None),
    "core": (r"^tempest\.", None),
    "api": (r"^tempest\.api\.", None),
    "identity": (r"^tempest\.api\.identity\.", None),
    "compute": (r"^tempest\.api\.compute\.", None),
    "image": (r"^tempest\.api\.image\.", None),
    "network": (r"^tempest\.api\.network\.", None),
    "object": (r"^tempest\.api\.object_storage\.", None),
    "volume": (r"^tempest\.api\.volume\.", None),
    "scenario": (r"^tempest\.scenario\.", None),
    "core-fast": (r"^tempest\.", r"\[.*\bslow\b.*\]"),
    "rbac": (r"(\.rbac\.|test_.*rbac)", None),
    "all": (r".*", None),
}

# catalogue type(s) -> [service_available] option
CATALOG = {
    "nova": ["compute"],
    "glance": ["image"],
    "neutron": ["network"],
    "cinder": ["block-storage", "volumev3", "block-store", "volume"],
    "swift": ["object-store"],
    "heat": ["orchestration"],
    "ironic": ["baremetal"],
    "ironic_inspector": ["baremetal-introspection"],
    "load_balancer": ["load-balancer"],
    "barbican": ["key-manager"],
    "designate": ["dns"],
    "manila": ["shared-file-system", "sharev2", "share"],
    "zun": ["container", "application-container"],
    "magnum": ["container-infra", "container-infrastructure-management"],
    "gnocchi": ["metric"],
    "aodh": ["alarming", "alarm"],
}
# The [section] holding catalog_type for a service, where there is one.
CATALOG_SECTION = {
    "nova": "compute",
    "glance": "image",
    "neutron": "network",
    "cinder": "volume",
    "swift": "object-storage",
    "heat": "heat_plugin",
    "ironic": "baremetal",
    "load_balancer": "load_balancer",
    "barbican": "key_manager",
    "designate": "dns",
    "manila": "share",
    "zun": "container_service",
    "magnum": "magnum",
    "gnocchi": "metric",
    "aodh": "alarming_plugin",
}

# Flags no API tells.  'all' turns these on.
FEATURES_ALL = {
    "compute-feature-enabled": {
        "change_password": True,
        "console_output": True,
        "resize": True,
        "pause": True,
        "shelve": True,
        "shelve_migrate": True,
        "suspend": True,
        "cold_migration": True,
        "live_migration": True,
        "live_migrate_back_and_forth": True,
        "metadata_service": True,
        "block_migration_for_live_migration": True,
        "volume_backed_live_migration": True,
        "vnc_console": True,
        "spice_console": True,
        "serial_console": True,
        "rescue": True,
        "stable_rescue": True,
        "enable_instance_password": True,
        "interface_attach": True,
        "snapshot": True,
        "personality": True,
        "attach_encrypted_volume": True,
        "config_drive": True,
        "scheduler_enabled_filters": "all",
        "swap_volume": True,
        "volume_multiattach": True,
        "ide_bus": True,
        "hostname_fqdn_sanitization": True,
        "disk_config": True,
    },
    "identity-feature-enabled": {
        "trust": True,
        "api_v2": False,
        "api_v2_admin": False,
        "security_compliance": False,
        "access_rules": True,
        "domain_specific_drivers": False,
        "federation": False,
        "external_idp": False,
    },
    "image-feature-enabled": {
        "api_v2": True,
        "import_image": True,
        "os_glance_reserved": True,
        "manage_locations": True,
        "image_conversion": True,
        "http_store_enabled": True,
        "do_secure_hash": True,
    },
    "network-feature-enabled": {
        "ipv6": True,
        "ipv6_subnet_attributes": True,
        "port_security": True,
        "port_admin_state_change": True,
        "floating_ips": True,
        "qos_min_bw_and_pps": True,
    },
    "volume-feature-enabled": {
        "backup": True,
        "snapshot": True,
        "clone": True,
        "manage_snapshot": True,
        "manage_volume": True,
        "extend_attached_volume": True,
        "extend_attached_encrypted_volume": True,
        "extend_volume_with_snapshot": True,
        "consistency_group": True,
        "volume_revert": True,
        "concurrency_tests": True,
    },
    "object-storage-feature-enabled": {
        "container_sync": True,
        "object_versioning": True,
        "discoverability": True,
    },
    "enforce_scope": {
        "nova": True,
        "neutron": True,
        "glance": True,
        "cinder": True,
        "keystone": True,
        "placement": True,
        "octavia": True,
        "barbican": True,
        "designate": True,
        "manila": True,
        "magnum": True,
    },
    "heat_features_enabled": {"stack_cancel": True},
    "dns_feature_enabled": {
        "api_admin": True,
        "api_v2_root_recordsets": True,
        "api_v2_quotas": True,
        "api_v2_quotas_verify_project": True,
    },
}


def say(*a):
    print(*a, file=sys.stderr, flush=True)


def die(msg, code=2):
    say("tempest_run:", msg)
    sys.exit(code)


# --------------------------------------------------------------- environment
def venv_python():
    return os.path.join(ANCHOR_DIR, "venv", "bin", "python")


def ensure_venv(plugins, force=False):
    """Make (once) the virtual environment; return its python."""
    vdir = os.path.join(ANCHOR_DIR, "venv")
    py = venv_python()
    want = [TEMPEST, CLIENT] + [PLUGINS[p][0] for p in plugins]
    extra = os.environ.get("TEMPEST_EXTRA_PINS", "").split()
    marker = os.path.join(ANCHOR_DIR, "venv.pins")
    have = set()
    if os.path.exists(marker) and os.path.exists(py):
        have = set(open(marker).read().split())
    missing = [w for w in want + extra if w not in have]
    if not missing and not force:
        return py
    os.makedirs(ANCHOR_DIR, exist_ok=True)
    if not os.path.exists(py):
        say("making", vdir)
        subprocess.run([sys.executable, "-m", "venv", vdir], check=True)
    say("installing", " ".join(missing or want))
    cmd = [py, "-m", "pip", "install", "-q", "--disable-pip-version-check", "setuptools<81", *(missing or want)]
    log = os.path.join(ANCHOR_DIR, "pip.log")
    with open(log, "w") as f:
        # The constraints are the set this runner was tested with.  If one of
        # them has gone from the registry, fall back to the pins alone.
        rc = subprocess.call(cmd + ["-c", CONSTRAINTS], stdout=f, stderr=subprocess.STDOUT)
        if rc:
            say("the tested constraints could not be met; pins only")
            rc = subprocess.call(cmd, stdout=f, stderr=subprocess.STDOUT)
    if rc:
        say(open(log).read()[-3000:])
        die("pip failed, see %s" % log)
    with open(marker, "w") as f:
        f.write("\n".join(sorted(have | set(want) | set(extra))) + "\n")
    return py


# ----------------------------------------------------------------- discovery
class Conf(dict):
    def put(self, section, option, value):
        if value is None:
            return
        if isinstance(value, bool):
            value = "True" if value else "False"
        elif isinstance(value, (list, tuple)):
            value = ",".join(str(v) for v in value)
        self.setdefault(section, {})[option] = str(value)

    def write(self, path):
        with open(path, "w") as f:
            for s in sorted(self):
                f.write("[%s]\n" % s)
                for k in sorted(self[s]):
                    # oslo.config substitutes $name
                    f.write("%s = %s\n" % (k, self[s][k].replace("$", "$$")))
                f.write("\n")
        os.chmod(path, 0o600)


def env_credentials():
    e = os.environ
    return dict(
        auth_url=e.get("OS_AUTH_URL", ""),
        username=e.get("OS_USERNAME", "admin"),
        password=e.get("OS_PASSWORD", ""),
        project_name=e.get("OS_PROJECT_NAME", "admin"),
        user_domain_name=e.get("OS_USER_DOMAIN_NAME", "Default"),
        project_domain_name=e.get("OS_PROJECT_DOMAIN_NAME", "Default"),
        region=e.get("OS_REGION_NAME", ""),
        cacert=e.get("OS_CACERT", ""),
        insecure=e.get("OS_INSECURE", "").lower() in ("1", "true", "yes"),
    )


def static_conf(c, args, work):
    """What needs no cloud to be written."""
    cred = env_credentials()
    # (a placeholder keeps --list and an offline --dry-run working: tempest
    # refuses an empty URL)
    url = (cred["auth_url"] or "http://127.0.0.1:5000").rstrip("/")
    if not url.endswith("/v3"):
        url += "/v3"
    c.put("DEFAULT", "log_dir", os.path.join(work, "logs"))
    c.put("DEFAULT", "log_file", "tempest.log")
    c.put("DEFAULT", "use_stderr", False)
    c.put("DEFAULT", "debug", bool(args.debug))
    c.put("oslo_concurrency", "lock_path", os.path.join(work, "lock"))
    c.put("identity", "uri_v3", url)
    c.put("identity", "auth_version", "v3")
    if cred["region"]:
        c.put("identity", "region", cred["region"])
    if cred["cacert"]:
        c.put("identity", "ca_certificates_file", cred["cacert"])
    c.put("identity", "disable_ssl_certificate_validation", cred["insecure"])
    c.put("auth", "use_dynamic_credentials", True)
    c.put("auth", "create_isolated_networks", True)
    c.put("auth", "admin_username", cred["username"])
    c.put("auth", "admin_password", cred["password"])
    c.put("auth", "admin_project_name", cred["project_name"])
    c.put("auth", "admin_user_domain_name", cred["user_domain_name"])
    c.put("auth", "admin_project_domain_name", cred["project_domain_name"])
    c.put("auth", "admin_domain_name", cred["user_domain_name"])
    c.put("auth", "default_credentials_domain_name", cred["project_domain_name"])
    c.put("validation", "run_validation", not args.no_validation)
    c.put("validation", "connect_method", "floating")
    c.put("validation", "auth_method", "keypair")
    c.put("validation", "ssh_key_type", args.ssh_key_type)
    c.put("validation", "image_ssh_user", args.ssh_user)
    c.put("validation", "image_alt_ssh_user", args.ssh_user)
    c.put("validation", "image_ssh_password", args.ssh_password)
    c.put("validation", "image_alt_ssh_password", args.ssh_password)
    c.put("validation", "ssh_timeout", args.ssh_timeout)
    c.put("validation", "ping_timeout", args.ssh_timeout)
    c.put("scenario", "dhcp_client", args.dhcp_client)
    for s in ("compute", "volume", "image", "network"):
        c.put(s, "build_timeout", args.build_timeout)
    if args.features == "all":
        for s, d in FEATURES_ALL.items():
            for k, v in d.items():
                c.put(s, k, v)
    elif args.features == "none":
        for s, d in FEATURES_ALL.items():
            for k, v in d.items():
                if v is True and (s, k) != ("image-feature-enabled", "api_v2"):
                    c.put(s, k, False)
    for k, v in (
        ("auth_url", url),
        ("auth_version", "3"),
        ("username", cred["username"]),
        ("password", cred["password"]),
        ("project_name", cred["project_name"]),
        ("admin_username", cred["username"]),
        ("admin_password", cred["password"]),
        ("admin_project_name", cred["project_name"]),
        ("user_domain_name", cred["user_domain_name"]),
        ("project_domain_name", cred["project_domain_name"]),
        ("user_domain_id", "default"),
        ("project_domain_id", "default"),
        ("region", cred["region"] or "RegionOne"),
    ):
        c.put("heat_plugin", k, v)


def check_local(url, allow_remote):
    """Only ever talk to this machine, unless told otherwise."""
    host = urllib.parse.urlsplit(url).hostname
    if not host:
        die("OS_AUTH_URL is not a URL: %r" % url)
    for fam, _t, _p, _c, addr in socket.getaddrinfo(host, None):
        s = socket.socket(fam, socket.SOCK_STREAM)
        try:
            s.bind((addr[0], 0))
        except OSError:
            if not allow_remote:
                die("%s (%s) is not an address of this machine; --allow-remote if that is meant" % (host, addr[0]))
        finally:
            s.close()


class Discovery:
    """Fills a Conf from a live endpoint.  Every probe may fail: a partial
    cloud is what this is for.  What failed is kept in self.warnings."""

    def __init__(self, args, conf, work):
        import openstack

        cred = env_credentials()
        kw = {}
        if cred["region"]:
            kw["region_name"] = cred["region"]
        if cred["cacert"]:
            kw["cacert"] = cred["cacert"]
        self.conn = openstack.connect(
            auth=dict(
                auth_url=conf["identity"]["uri_v3"],
                username=cred["username"],
                password=cred["password"],
                project_name=cred["project_name"],
                user_domain_name=cred["user_domain_name"],
                project_domain_name=cred["project_domain_name"],
            ),
            verify=not cred["insecure"],
            app_name="tempest_run",
            load_yaml_config=False,
            load_envvars=False,
            **kw,
        )
        self.args, self.c, self.work = args, conf, work
        self.warnings, self.facts = [], {}
        self.present = {}

    def probe(self, name, fn, *a, **k):
        try:
            return fn(*a, **k)
        except Exception as e:  # noqa: BLE001
            self.warnings.append("%s: %s: %s" % (name, type(e).__name__, str(e)[:200]))
            return None

    def get(self, service, path):
        """GET a path below the service's catalogue URL, as a dict."""
        cat = self.catalog[service]
        r = self.conn.session.get(cat["url"].rstrip("/") + path)
        return r.json()

    # -- catalogue -----------------------------------------------------
    def services(self):
        access = self.conn.session.auth.get_access(self.conn.session)
        self.project_id = access.project_id
        self.user_id = access.user_id
        region = env_credentials()["region"] or None
        cat = {}
        regions = set()
        for s in access.service_catalog.catalog:
            for ep in s.get("endpoints", []):
                regions.add(ep.get("region_id") or ep.get("region"))
                if ep.get("interface") != "public":
                    continue
                if region and (ep.get("region_id") or ep.get("region")) != region:
                    continue
                cat.setdefault(s["type"], ep["url"])
        self.catalog_types = sorted(cat)
        if not region and regions:
            region = "RegionOne" if "RegionOne" in regions else sorted(r for r in regions if r)[0]
            self.c.put("identity", "region", region)
            self.c.put("heat_plugin", "region", region)
        self.c.put("key_manager", "region", region)
        self.catalog = {}
        for svc, types in CATALOG.items():
            found = next((t for t in types if t in cat), None)
            self.present[svc] = bool(found)
            self.c.put("service_available", svc, bool(found))
            if found:
                self.catalog[svc] = {"type": found, "url": cat[found]}
                if svc in CATALOG_SECTION:
                    self.c.put(CATALOG_SECTION[svc], "catalog_type", found)
        if "placement" in cat:
            self.catalog["placement"] = {"type": "placement", "url": cat["placement"]}
            self.present["placement"] = True
        for svc in ("ceilometer", "sg_core"):
            self.c.put("service_available", svc, False)
        self.c.put("service_available", "ceilometer", self.present["gnocchi"] and self.present["aodh"])
        self.c.put("service_available", "horizon", bool(self.args.dashboard_url))
        if self.args.dashboard_url:
            self.c.put("dashboard", "dashboard_url", self.args.dashboard_url)
        self.facts["catalog"] = self.catalog_types

    # -- versions ------------------------------------------------------
    def version_range(self, svc):
        """(min, max) microversion from the service's version document."""
        url = self.catalog[svc]["url"]
        parts = urllib.parse.urlsplit(url)
        path = parts.path.rstrip("/")
        # try the versioned root first, then the parents
        m = re.search(r"^(.*/v\d+(?:\.\d+)?)(?:/|$)", path)
        cands = []
        if m:
            cands.append(m.group(1) + "/")
        base = (re.sub(r"/v\d+(?:\.\d+)?.*$", "", path) or "") + "/"
        cands += [base, path + "/"]
        for p in cands:
            u = urllib.parse.urlunsplit((parts.scheme, parts.netloc, p, "", ""))
            try:
                r = self.conn.session.get(u, raise_exc=False)
                if r.status_code not in (200, 300):
                    continue
                doc = r.json()
            except Exception:  # noqa: BLE001
                continue
            vs = doc.get("versions") or [doc.get("version")] or []
            if isinstance(vs, dict):
                vs = vs.get("values", [])
            best = None
            for v in vs:
                if not isinstance(v, dict):
                    continue
                hi = v.get("max_version") or v.get("version")
                lo = v.get("min_version")
                if hi and lo:
                    key = tuple(int(x) for x in hi.split("."))
                    if best is None or key > best[0]:
                        best = (key, lo, hi)
            if best:
                return best[1], best[2]
        return None

    def microversions(self):
        for svc, section, lo_opt, hi_opt in (
            ("nova", "compute", "min_microversion", "max_microversion"),
            ("cinder", "volume", "min_microversion", "max_microversion"),
            ("placement", "placement", "min_microversion", "max_microversion"),
            ("ironic", "baremetal", "min_microversion", "max_microversion"),
            ("manila", "share", "min_api_microversion", "max_api_microversion"),
            ("barbican", "key_manager", "min_microversion", "max_microversion"),
            ("zun", "container_service", "min_microversion", "max_microversion"),
        ):
            if svc not in self.catalog:
                continue
            r = self.probe("microversion " + svc, self.version_range, svc)
            if r:
                self.facts.setdefault("microversions", {})[svc] = list(r)
                self.c.put(section, lo_opt, r[0])
                self.c.put(section, hi_opt, r[1])
            else:
                self.warnings.append("no microversion range for %s: its microversioned tests will skip" % svc)

    # -- identity ------------------------------------------------------
    def roles(self):
        have = {r.name for r in self.conn.identity.roles()}
        self.facts["roles"] = sorted(have)
        want = []
        self.c.put(
            "identity",
            "admin_role",
            "admin" if "admin" in have else next((r for r in have if r.lower() == "admin"), "admin"),
        )
        self.c.put("object-storage", "operator_role", "member")
        self.c.put("auth", "tempest_roles", "member")
        if self.present["swift"]:
            want.append("ResellerAdmin")
        if self.present["barbican"]:
            want += ["creator", "observer", "audit", "key-manager:service-admin"]
        if self.present["load_balancer"]:
            want += [
                "load-balancer_member",
                "load-balancer_admin",
                "load-balancer_observer",
                "load-balancer_global_observer",
            ]
        if self.present["heat"]:
            want.append("heat_stack_user")
        for r in ("admin", "manager", "member", "reader", "service"):
            if r not in have:
                self.warnings.append("no role %r" % r)
        for r in want:
            if r not in have:
                if self.args.prepare:
                    self.probe("create role " + r, self.conn.identity.create_role, name=r)
                else:
                    self.warnings.append("no role %r (--prepare makes it)" % r)
        self.c.put(
            "compute-feature-enabled",
            "nova_policy_roles",
            [r for r in ("admin", "manager", "member", "reader") if r in have],
        )

    # -- images and flavors --------------------------------------------
    def images(self):
        a = self.args
        imgs = [i for i in self.conn.image.images() if i.status == "active"]
        if a.upload_image and not any(i.name == a.image for i in imgs):
            name = a.image or "tempest-guest"
            fmt = "raw"
            with open(a.upload_image, "rb") as f:
                if f.read(4) == b"QFI\xfb":
                    fmt = "qcow2"
            img = self.conn.image.create_image(
                name=name,
                filename=a.upload_image,
                disk_format=fmt,
                container_format="bare",
                visibility="public",
                wait=True,
            )
            imgs.insert(0, self.conn.image.get_image(img.id))
            a.image = img.id

        def score(i):
            n = (i.name or "").lower()
            return (
                not (a.image and a.image in (i.id, i.name)),
                not re.search(r"tempest|micro|cirros|tiny|nano", n),
                i.visibility != "public",
                i.disk_format not in ("qcow2", "raw", "ami"),
                i.size or 1 << 60,
            )

        imgs = [i for i in imgs if i.disk_format not in ("aki", "ari", "iso")]
        imgs.sort(key=score)
        if not imgs:
            self.warnings.append("no active image: compute tests will fail")
            return
        img = imgs[0]
        alt = imgs[1] if len(imgs) > 1 else img
        if a.image_alt:
            alt = next((i for i in imgs if a.image_alt in (i.id, i.name)), alt)
        self.c.put("compute", "image_ref", img.id)
        self.c.put("compute", "image_ref_alt", alt.id)
        self.c.put("heat_plugin", "image_ref", img.name)
        self.c.put("heat_plugin", "minimal_image_ref", img.name)
        self.c.put("scenario", "img_disk_format", img.disk_format)
        self.c.put("scenario", "img_container_format", img.container_format)
        self.facts["image"] = dict(id=img.id, name=img.name, size=img.size, disk_format=img.disk_format, alt=alt.id)
        self.img = img
        path = os.path.join(self.work, "guest.img")
        if a.image_file:
            path = a.image_file
        elif not os.path.exists(path) or os.path.getsize(path) != (img.size or -1):
            self.probe("download image", self.conn.image.download_image, img, output=path)
        if os.path.exists(path):
            self.c.put("scenario", "img_file", path)
            self.img_path = path

    def image_features(self):
        r = self.probe("image import", self.get, "glance", self.v("glance", "/v2/info/import"))
        if r is not None:
            methods = r.get("import-methods", {}).get("value", [])
            self.facts["import_methods"] = methods
            if self.args.features != "all":
                self.c.put("image-feature-enabled", "import_image", bool(methods))
        r = self.probe("image schema", self.get, "glance", self.v("glance", "/v2/schemas/image"))
        if r is not None:
            p = r.get("properties", {})
            for opt, key in (("disk_formats", "disk_format"), ("container_formats", "container_format")):
                vals = [x for x in p.get(key, {}).get("enum", []) or [] if x]
                if vals:
                    self.c.put("image", opt, vals)
        r = self.probe("image stores", self.get, "glance", self.v("glance", "/v2/info/stores"))
        if r:
            self.facts["image_stores"] = [s.get("id") for s in r.get("stores", [])]

    def v(self, svc, path):
        """Drop a version prefix the catalogue URL already carries."""
        m = re.match(r"^/v\d[^/]*", path)
        if m and urllib.parse.urlsplit(self.catalog[svc]["url"]).path.rstrip("/").endswith(m.group(0)):
            return path[m.end() :]
        return path

    def flavors(self):
        a = self.args
        fl = [f for f in self.conn.compute.flavors(get_extra_specs=False)]
        need = max(getattr(getattr(self, "img", None), "min_disk", 0) or 0, 0)

        def by(name):
            return next((f for f in fl if name in (f.id, f.name)), None)

        if len(fl) < 2 and a.prepare:
            for i, (name, ram, disk) in enumerate((("tempest.nano", 128, 1), ("tempest.micro", 192, 1))):
                if not by(name):
                    f = self.probe(
                        "create flavor", self.conn.compute.create_flavor, name=name, ram=ram, vcpus=1, disk=disk
                    )
                    if f:
                        fl.append(f)
        fl = sorted((f for f in fl if (f.disk or 0) >= need), key=lambda f: (f.ram, f.disk, f.vcpus))
        if not fl:
            self.warnings.append("no flavor")
            return
        ref = by(a.flavor) if a.flavor else fl[0]
        bigger = [f for f in fl if f.id != ref.id and f.ram >= ref.ram and (f.disk or 0) >= (ref.disk or 0)]
        alt = by(a.flavor_alt) if a.flavor_alt else (bigger[0] if bigger else ref)
        if alt.id == ref.id:
            self.warnings.append("only one usable flavor: resize tests cannot pass")
        self.c.put("compute", "flavor_ref", ref.id)
        self.c.put("compute", "flavor_ref_alt", alt.id)
        self.c.put("heat_plugin", "instance_type", ref.name)
        self.c.put("heat_plugin", "minimal_instance_type", ref.name)
        self.facts["flavors"] = [ref.name, alt.name]

    def compute(self):
        svcs = list(self.conn.compute.services())
        up = [s for s in svcs if s.binary == "nova-compute" and s.state == "up" and s.status == "enabled"]
        self.facts["compute_nodes"] = len(up)
        self.c.put("compute", "min_compute_nodes", max(1, len(up)))
        if len(up) < 2:
            self.warnings.append("fewer than 2 compute nodes: the multinode tests will skip")
        hv = self.probe("hypervisors", lambda: list(self.conn.compute.hypervisors(details=True)))
        if hv:
            t = {getattr(h, "hypervisor_type", None) for h in hv}
            self.facts["hypervisor_types"] = sorted(str(x) for x in t)

    # -- network -------------------------------------------------------
    def network(self):
        a = self.args
        ext = [e.alias for e in self.conn.network.extensions()]
        self.facts["network_extensions"] = len(ext)
        # 'all' makes tempest run the tests of extensions the cloud does not
        # even advertise, so that they fail instead of being skipped.
        self.c.put(
            "network-feature-enabled", "api_extensions", ["all"] if a.extensions == "all" else sorted(ext) or ["none"]
        )
        if "port-security" not in ext and a.features != "all":
            self.c.put("network-feature-enabled", "port_security", False)
        nets = list(self.conn.network.networks(is_router_external=True))
        if a.public_net:
            nets = [n for n in nets if a.public_net in (n.id, n.name)] or nets
        nets.sort(key=lambda n: (not n.is_default, not n.subnet_ids, n.name))
        if nets:
            n = nets[0]
            self.c.put("network", "public_network_id", n.id)
            self.c.put("network", "floating_network_name", n.name)
            self.c.put("heat_plugin", "floating_network_name", n.name)
            self.c.put("magnum", "nic_id", n.id)
            self.facts["public_network"] = n.name
            for sid in n.subnet_ids or []:
                s = self.probe("public subnet", self.conn.network.get_subnet, sid)
                if s is not None and s.ip_version == 4:
                    self.c.put("baremetal", "public_subnet_id", s.id)
                    break
        else:
            self.warnings.append("no external network: floating-IP and SSH tests will fail")
            self.c.put("network-feature-enabled", "floating_ips", False)
        priv = [n for n in self.conn.network.networks(is_router_external=False) if n.subnet_ids]
        shared = [n for n in priv if n.is_shared] or priv
        if shared:
            n = shared[0]
            self.c.put("heat_plugin", "fixed_network_name", n.name)
            self.c.put("heat_plugin", "network_for_ssh", n.name)
            s = self.probe("heat subnet", self.conn.network.get_subnet, n.subnet_ids[0])
            if s is not None:
                self.c.put("heat_plugin", "fixed_subnet_name", s.name)
        agents = self.probe("agents", lambda: list(self.conn.network.agents()))
        if agents:
            modes = {((g.configuration or {}).get("agent_mode")) for g in agents if g.binary == "neutron-l3-agent"}
            modes.discard(None)
            if len(modes) == 1:
                self.c.put("neutron_plugin_options", "l3_agent_mode", modes.pop())
            azs = {g.availability_zone for g in agents if g.availability_zone}
            if len(azs) == 1:
                self.c.put("neutron_plugin_options", "agent_availability_zone", azs.pop())
        types = a.network_types
        if types:
            self.c.put("neutron_plugin_options", "available_type_drivers", types)
        if a.guest_is_advanced:
            self.c.put("neutron_plugin_options", "default_image_is_advanced", True)

    # -- volume --------------------------------------------------------
    def volume(self):
        r = self.probe("volume extensions", self.get, "cinder", "/extensions")
        if r is not None:
            al = sorted(e["alias"] for e in r.get("extensions", []))
            self.facts["volume_extensions"] = len(al)
            if al and self.args.extensions != "all":
                self.c.put("volume-feature-enabled", "api_extensions", al)
        r = self.probe("volume pools", self.get, "cinder", "/scheduler-stats/get_pools?detail=true")
        names, protos, vendors = [], [], []
        for p in (r or {}).get("pools", []):
            cap = p.get("capabilities", {})
            n = cap.get("volume_backend_name")
            if n and n not in names:
                names.append(n)
            pr = cap.get("storage_protocol")
            pr = pr[0] if isinstance(pr, list) and pr else pr
            protos.append(pr)
            vendors.append(cap.get("vendor_name"))
        if names:
            self.c.put("volume", "backend_names", names)
            self.c.put("volume", "storage_protocol", protos[0])
            self.c.put("volume", "vendor_name", vendors[0])
        self.facts["volume_backends"] = names
        self.c.put("volume-feature-enabled", "multi_backend", len(names) > 1)
        r = self.probe("volume services", self.get, "cinder", "/os-services")
        svcs = (r or {}).get("services", [])
        backup = any(s["binary"] == "cinder-backup" and s["state"] == "up" for s in svcs)
        if svcs and not backup and self.args.features != "all":
            self.c.put("volume-feature-enabled", "backup", False)
        r = self.probe("volume types", self.get, "cinder", "/types")
        types = (r or {}).get("volume_types", [])
        multi = [t for t in types if "True" in str((t.get("extra_specs") or {}).get("multiattach", ""))]
        if multi:
            self.c.put("volume", "volume_type_multiattach", multi[0]["name"])
        elif types and self.args.prepare:
            r = self.probe(
                "create multiattach type",
                lambda: self.conn.block_storage.create_type(
                    name="tempest-multiattach", extra_specs={"multiattach": "<is> True"}
                ),
            )
            if r:
                self.c.put("volume", "volume_type_multiattach", r.name)
        self.c.put("volume", "backup_driver", self.args.backup_driver)

    # -- objects -------------------------------------------------------
    def objects(self):
        u = urllib.parse.urlsplit(self.catalog["swift"]["url"])
        info = None
        for p in ("/info", "/swift/info"):
            r = self.probe(
                "swift info",
                lambda: self.conn.session.get(
                    urllib.parse.urlunsplit((u.scheme, u.netloc, p, "", "")), authenticated=False, raise_exc=False
                ),
            )
            if r is not None and r.status_code == 200:
                info = self.probe("swift info json", r.json)
                break
        if not info:
            self.warnings.append("object store tells no /info")
            if self.args.features != "all":
                self.c.put("object-storage-feature-enabled", "discoverability", False)
            return
        mw = sorted(k for k in info if k != "swift")
        self.facts["swift_info"] = mw
        if self.args.extensions != "all":
            self.c.put("object-storage-feature-enabled", "discoverable_apis", mw or ["none"])
        cs = info.get("container_sync", {}).get("realms", {})
        for realm, d in cs.items():
            for cl, x in d.get("clusters", {}).items():
                self.c.put("object-storage", "realm_name", realm)
                if x.get("current"):
                    self.c.put("object-storage", "cluster_name", cl)
        if not cs and self.args.features != "all":
            self.c.put("object-storage-feature-enabled", "container_sync", False)
        dig = info.get("tempurl", {}).get("allowed_digests") or []
        if dig and "sha256" not in dig:
            self.c.put("object-storage-feature-enabled", "tempurl_digest_hashlib", dig[0])

    def http_image(self):
        """web-download and http-store tests need an image over HTTP."""
        a = self.args
        if a.http_image:
            self.c.put("image", "http_image", a.http_image)
            self.c.put("image", "http_qcow2_image", a.http_image)
        elif getattr(self, "img_path", None):
            self.serve = self.img_path

    def run(self):
        self.serve = None
        self.services()
        if self.c.get("identity", {}):
            self.probe("roles", self.roles)
        self.microversions()
        if self.present["glance"]:
            self.probe("images", self.images)
            self.image_features()
            self.http_image()
        if self.present["nova"]:
            self.probe("flavors", self.flavors)
            self.probe("compute", self.compute)
        if self.present["neutron"]:
            self.probe("network", self.network)
        if self.present["cinder"]:
            self.volume()
        if self.present["swift"]:
            self.objects()
        if self.present["load_balancer"]:
            self.c.put("load_balancer", "test_server_path", self.args.lb_test_server)
        return self


# ------------------------------------------------------------------ the run
def group_of(test_id):
    p = test_id.split(".")
    if p[0] == "tempest" and len(p) > 2:
        return ".".join(p[:3]) if p[1] in ("api", "serial_tests") else ".".join(p[:2])
    return p[0]


def class_of(test_id):
    return re.sub(r"[\[(].*$", "", test_id).rpartition(".")[0]


def tool(name):
    return os.path.join(os.path.dirname(sys.executable), name)


def workspace(work):
    import tempest

    top = os.path.dirname(tempest.__file__)
    os.makedirs(os.path.join(work, "etc"), exist_ok=True)
    os.makedirs(os.path.join(work, "logs"), exist_ok=True)
    os.makedirs(os.path.join(work, "lock"), exist_ok=True)
    with open(os.path.join(work, ".stestr.conf"), "w") as f:
        f.write("[DEFAULT]\ntest_path=%s/test_discover\ntop_dir=%s\ngroup_regex=([^\\.]*\\.)*\n" % (top, top))
    if not os.path.isdir(os.path.join(work, ".stestr")):
        subprocess.run(
            [tool("stestr"), "init"], cwd=work, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def tempest_env(work):
    env = dict(
        os.environ, TEMPEST_CONFIG_DIR=os.path.join(work, "etc"), TEMPEST_CONFIG="tempest.conf", PYTHONWARNINGS="ignore"
    )
    env["PATH"] = os.path.dirname(sys.executable) + os.pathsep + env["PATH"]
    for k in list(env):
        if k.startswith("OS_") and k != "OS_TEST_TIMEOUT":
            del env[k]
    return env


def list_tests(work, regex, exclude, plugins):
    r = subprocess.run(
        [tool("tempest"), "run", "--list-tests", "--regex", "."],
        cwd=work,
        env=tempest_env(work),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ids = [x.strip() for x in r.stdout.splitlines() if re.match(r"^[A-Za-z_][\w]*(\.[^ ]+)+", x.strip())]
    bad = re.findall(r"Failed to import test module: (\S+)", r.stdout + r.stderr)
    if bad:
        say((r.stdout + r.stderr)[-3000:])
        die("%d test modules do not import: %s" % (len(bad), " ".join(bad[:8])))
    if not ids:
        say(r.stdout[-2000:], r.stderr[-4000:])
        die("tempest listed no tests")
    mods = {"tempest"} | {PLUGINS[p][1] for p in plugins}
    ids = [i for i in ids if i.split(".")[0] in mods]
    if regex:
        ids = [i for i in ids if re.search(regex, i)]
    if exclude:
        ids = [i for i in ids if not re.search(exclude, i)]
    return sorted(set(ids))


class Results:
    """Collects a subunit v2 stream as it comes."""

    UNSTABLE = "Marked as unstable and skipped because of bug"

    def __init__(self):
        self.status = {}  # id -> passed|failed|skipped
        self.reason = {}
        self.fixtures = {}  # 'setUpClass (x.Y)' -> reason
        self.class_skips = {}  # class -> reason
        self.class_fails = {}
        self.started = set()
        self.seconds = {}
        self._t0 = {}
        self._text = collections.defaultdict(lambda: collections.defaultdict(bytearray))
        self.lock = threading.Lock()

    # StreamResult protocol
    def startTestRun(self):
        pass

    def stopTestRun(self):
        pass

    def status_event(self, test_id=None, test_status=None, file_name=None, file_bytes=None, timestamp=None, **_k):
        if not test_id:
            return
        if file_name and file_bytes is not None:
            buf = self._text[test_id][file_name]
            if len(buf) < 20000:
                buf.extend(bytes(file_bytes)[:20000])
        if test_status in (None, "exists"):
            return
        if test_status == "inprogress":
            self.started.add(test_id)
            if timestamp is not None:
                self._t0[test_id] = timestamp
            return
        text = self._text.pop(test_id, {})

        def t(*names):
            for n in names:
                if n in text:
                    return bytes(text[n]).decode("utf-8", "replace")
            return ""

        if timestamp is not None and test_id in self._t0:
            self.seconds[test_id] = round((timestamp - self._t0[test_id]).total_seconds(), 3)
        m = re.match(
            r"^(setUpClass|tearDownClass|setUpModule|"
            r"tearDownModule)\s*\((.*)\)$",
            test_id,
        )
        if test_status in ("success", "xfail"):
            if not m:
                self.status[test_id] = "passed"
            return
        if test_status == "skip":
            why = t("reason").strip() or "no reason given"
            if m:
                self.class_skips[m.group(2)] = why
            elif self.UNSTABLE in why:
                self.status[test_id], self.reason[test_id] = "failed", why
            else:
                self.status[test_id], self.reason[test_id] = "skipped", why
            return
        # fail, uxsuccess, or an error outside a test
        tb = t("traceback", "traceback-1", "stderr") or "\n".join(
            bytes(v).decode("utf-8", "replace") for k, v in text.items() if "traceback" in k
        )
        why = last_line(tb) or test_status
        if m:
            self.fixtures[test_id] = why
            if m.group(1).startswith("setUp"):
                self.class_fails[m.group(2)] = why
        else:
            self.status[test_id], self.reason[test_id] = "failed", why


def last_line(tb):
    lines = [x.rstrip() for x in tb.splitlines() if x.strip()]
    for x in reversed(lines):
        if re.match(
            r"^[\w.]+(Error|Exception|Timeout|Failed|Mismatch|Fault|"
            r"Found|Denied|Conflict|Request|Forbidden|Unauthorized|"
            r"Type|Code|Body|Limit|Missing|Config\w*)\b",
            x,
        ):
            return x[:400]
    return lines[-1][:400] if lines else ""


def run_tests(work, ids, concurrency, timeout, out):
    import subunit
    from testtools import StreamResult

    res = Results()

    class Sink(StreamResult):
        def status(self, **k):
            with res.lock:
                res.status_event(**k)

    idfile = os.path.join(out, "ids.txt")
    with open(idfile, "w") as f:
        f.write("\n".join(ids) + "\n")
    cmd = [tool("stestr"), "run", "--subunit", "--load-list", idfile]
    cmd += ["--serial"] if concurrency == 1 else ["--concurrency", str(concurrency)]
    log = open(os.path.join(out, "run.stderr"), "w")
    t0 = time.time()
    proc = subprocess.Popen(
        cmd, cwd=work, env=tempest_env(work), stdout=subprocess.PIPE, stderr=log, start_new_session=True
    )
    raw = open(os.path.join(out, "run.subunit"), "wb")

    class Tee:
        """File-like: what is read is also kept, and counted aloud."""

        def __init__(self, src):
            self.src = src
            self.mute = 0

        def read(self, n=-1):
            b = self.src.read(n)
            raw.write(b)
            return b

        def fileno(self):
            return self.src.fileno()

    def reader():
        try:
            subunit.ByteStreamToStreamResult(Tee(proc.stdout), non_subunit_name="stdout").run(_Relay(Sink()))
        except Exception as e:  # noqa: BLE001
            say("subunit stream:", e)

    class _Relay(StreamResult):
        def __init__(self, to):
            super().__init__()
            self.to = to

        def status(self, *a, **k):
            names = (
                "test_id",
                "test_status",
                "test_tags",
                "runnable",
                "file_name",
                "file_bytes",
                "eof",
                "mime_type",
                "route_code",
                "timestamp",
            )
            k.update(dict(zip(names, a)))
            self.to.status(**k)

    th = threading.Thread(target=reader, daemon=True)
    th.start()
    cut = False
    nextsay = time.time() + 60
    while proc.poll() is None or th.is_alive():
        th.join(1.0)
        if time.time() > nextsay:
            nextsay = time.time() + 60
            with res.lock:
                cnt = collections.Counter(res.status.values())
            say("%5ds %d/%d %s" % (time.time() - t0, sum(cnt.values()), len(ids), dict(cnt)))
        if timeout and time.time() - t0 > timeout and proc.poll() is None:
            cut = True
            say("time is up, stopping")
            os.killpg(proc.pid, signal.SIGTERM)
            try:
                proc.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(proc.pid, signal.SIGKILL)
            th.join(10)
            break
    raw.close()
    log.close()
    return res, proc.returncode, round(time.time() - t0, 1), cut


def account(ids, res):
    """Every selected id into exactly one bin."""
    strip = {re.sub(r"\[[^\]]*\]$", "", i): i for i in ids}
    final, why = {}, {}
    for i, s in res.status.items():
        k = i if i in ids else strip.get(re.sub(r"\[[^\]]*\]$", "", i))
        if k is None:
            continue
        final[k] = s
        if i in res.reason:
            why[k] = res.reason[i]
    for i in ids:
        if i in final:
            continue
        c = class_of(i)
        if c in res.class_skips:
            final[i], why[i] = "skipped", res.class_skips[c]
        elif c in res.class_fails:
            final[i] = "notrun"
            why[i] = "setUpClass failed: " + res.class_fails[c]
        else:
            final[i] = "notrun"
            why[i] = "interrupted" if i in res.started else "never started"
    # errors that stestr reports under an id of its own (import failures...)
    stray = {
        i: res.reason.get(i, "")
        for i, s in res.status.items()
        if s == "failed" and i not in ids and re.sub(r"\[[^\]]*\]$", "", i) not in strip
    }
    return final, why, stray


def report(ids, final, why, res, stray, out, meta):
    groups = collections.OrderedDict()
    for i in ids:
        g = groups.setdefault(group_of(i), collections.Counter())
        g[final[i]] += 1
        g["total"] += 1
    for f in list(res.fixtures) + list(stray):
        m = re.search(r"\((.*)\)", f)
        g = group_of(m.group(1)) if m else group_of(f)
        groups.setdefault(g, collections.Counter())["fixtures"] += 1
    total = collections.Counter()
    w = max([len(g) for g in groups] + [5])
    for g in sorted(groups):
        c = groups[g]
        total.update(c)
        print(
            "%-*s  passed %4d  failed %4d  skipped %4d  not run %4d  of %4d"
            "%s"
            % (
                w,
                g,
                c["passed"],
                c["failed"],
                c["skipped"],
                c["notrun"],
                c["total"],
                "  (+%d failed fixtures)" % c["fixtures"] if c["fixtures"] else "",
            )
        )
    print(
        "%-*s  passed %4d  failed %4d  skipped %4d  not run %4d  of %4d%s"
        % (
            w,
            "TOTAL",
            total["passed"],
            total["failed"],
            total["skipped"],
            total["notrun"],
            total["total"],
            "  (+%d failed fixtures)" % total["fixtures"] if total["fixtures"] else "",
        )
    )
    doc = dict(meta)
    doc.update(
        groups={
            g: {k: c[k] for k in ("total", "passed", "failed", "skipped", "notrun", "fixtures")}
            for g, c in groups.items()
        },
        total={k: total[k] for k in ("total", "passed", "failed", "skipped", "notrun", "fixtures")},
        failed=sorted(i for i in ids if final[i] == "failed"),
        failed_why={i: why.get(i, "") for i in sorted(ids) if final[i] == "failed"},
        failed_fixtures=res.fixtures,
        stray_errors=stray,
        not_run={i: why.get(i, "") for i in sorted(ids) if final[i] == "notrun"},
        skipped={i: why.get(i, "") for i in sorted(ids) if final[i] == "skipped"},
        skip_reasons=dict(collections.Counter(why.get(i, "") for i in ids if final[i] == "skipped").most_common()),
        passed=sorted(i for i in ids if final[i] == "passed"),
        seconds=res.seconds,
    )
    path = os.path.join(out, "result.json")
    with open(path, "w") as f:
        json.dump(doc, f, indent=1, sort_keys=True)
    say("details:", path)
    return total, doc


def serve_file(path, addr):
    """A tiny HTTP server for web-download tests; its URL."""
    import http.server

    class H(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self, body):
            size = os.path.getsize(path)
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if body:
                with open(path, "rb") as f:
                    shutil.copyfileobj(f, self.wfile)

        def do_GET(self):
            self.reply(True)

        def do_HEAD(self):
            self.reply(False)

        def log_message(self, *a):
            pass

    class S(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # a client that left

    host, _, port = addr.rpartition(":")
    s = S((host or "127.0.0.1", int(port or 0)), H)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    return "http://%s:%d/%s" % (host or "127.0.0.1", s.server_address[1], os.path.basename(path))


def parse(argv):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--preset", choices=sorted(PRESETS))
    p.add_argument("--regex", help="tests to run (default: ^tempest\\.)")
    p.add_argument("--exclude-regex")
    p.add_argument("--ids", help="file of test ids, or a result.json: its failed and not-run tests")
    p.add_argument(
        "--plugins", default="default", help="'default', 'core' (none), 'all' or a,b,c of: " + " ".join(PLUGINS)
    )
    p.add_argument("--concurrency", type=int, default=2)
    p.add_argument("--timeout", type=int, default=0, help="seconds for the whole run")
    p.add_argument("--test-timeout", type=int, default=1200, help="seconds for one test (OS_TEST_TIMEOUT)")
    p.add_argument("--list", action="store_true", help="count the selected tests per group and stop")
    p.add_argument("--list-ids", action="store_true")
    p.add_argument(
        "--dry-run",
        action="store_true",
        help="write tempest.conf (by discovery if OS_AUTH_URL is set), print it with secrets masked, and stop",
    )
    p.add_argument("--features", choices=("all", "default", "none"), default="all")
    p.add_argument(
        "--extensions",
        choices=("discovered", "all"),
        default="discovered",
        help="which API extensions tempest shall expect; 'all' turns\ntheir skips into failures",
    )
    p.add_argument("--set", action="append", default=[], metavar="SECTION.OPTION=VALUE")
    p.add_argument("--config", help="use this tempest.conf as it is")
    p.add_argument("--prepare", action="store_true", help="make missing roles, flavors and the multiattach volume type")
    p.add_argument("--image")
    p.add_argument("--image-alt")
    p.add_argument("--image-file", help="the same guest image as a file")
    p.add_argument("--upload-image", metavar="FILE")
    p.add_argument("--http-image", help="URL of an image the cloud can fetch")
    p.add_argument("--serve-addr", default="127.0.0.1:0", help="where the guest image is served over HTTP")
    p.add_argument("--flavor")
    p.add_argument("--flavor-alt")
    p.add_argument("--public-net")
    p.add_argument("--network-types", default="", help="e.g. vxlan,vlan,flat")
    p.add_argument("--no-validation", action="store_true", help="no SSH into guests (run_validation = False)")
    p.add_argument("--ssh-user", default="cirros")
    p.add_argument("--ssh-password", default="gocubsgo")
    p.add_argument("--ssh-key-type", default="ecdsa", choices=("ecdsa", "rsa"))
    p.add_argument("--ssh-timeout", type=int, default=196)
    p.add_argument("--build-timeout", type=int, default=300)
    p.add_argument("--dhcp-client", default="udhcpc", choices=("udhcpc", "dhclient", "dhcpcd"))
    p.add_argument("--guest-is-advanced", action="store_true", help="neutron plugin: default_image_is_advanced")
    p.add_argument("--backup-driver", default="swift")
    p.add_argument("--dashboard-url")
    p.add_argument("--lb-test-server", default="test_server.bin")
    p.add_argument("--out", help="where results go (default: $ANCHOR_DIR/runs/TIME)")
    p.add_argument("--allow-remote", action="store_true", help="the endpoint may be on another machine")
    p.add_argument("--debug", action="store_true")
    p.add_argument("--install-only", action="store_true")
    a = p.parse_args(argv)
    if a.plugins == "default":
        a.plugins = list(DEFAULT_PLUGINS)
    elif a.plugins in ("core", "none", ""):
        a.plugins = []
    elif a.plugins == "all":
        a.plugins = list(PLUGINS)
    else:
        a.plugins = [x for x in a.plugins.split(",") if x]
        bad = [x for x in a.plugins if x not in PLUGINS]
        if bad:
            p.error("unknown plugins: " + " ".join(bad))
    if a.preset:
        r, x = PRESETS[a.preset]
        a.regex = a.regex or r
        a.exclude_regex = a.exclude_regex or x
    if not a.regex and not a.ids:
        a.regex = r"^tempest\."
    return a


def main(argv):
    a = parse(argv)
    if os.environ.get("_TEMPEST_RUN_INNER") != "1":
        py = ensure_venv(a.plugins)
        if a.install_only:
            print(py)
            return 0
        env = dict(os.environ, _TEMPEST_RUN_INNER="1")
        os.execve(py, [py, os.path.abspath(__file__)] + argv, env)
    os.environ.pop("_TEMPEST_RUN_INNER", None)
    os.environ["OS_TEST_TIMEOUT"] = str(a.test_timeout)
    work = os.path.join(ANCHOR_DIR, "work")
    os.makedirs(work, exist_ok=True)
    workspace(work)
    confpath = os.path.join(work, "etc", "tempest.conf")
    conf, disc = Conf(), None
    facts, warnings = {}, []
    if a.config:
        shutil.copy(a.config, confpath)
    else:
        static_conf(conf, a, work)
        if os.environ.get("OS_AUTH_URL") and not (a.list or a.list_ids):
            check_local(os.environ["OS_AUTH_URL"], a.allow_remote)
            try:
                disc = Discovery(a, conf, work).run()
            except Exception as e:  # noqa: BLE001
                die("discovery failed: %s: %s" % (type(e).__name__, e))
            facts, warnings = disc.facts, disc.warnings
            if disc.serve and not a.dry_run:
                u = serve_file(disc.serve, a.serve_addr)
                conf.put("image", "http_image", u)
                conf.put("image", "http_qcow2_image", u)
        elif not (a.list or a.list_ids or a.dry_run):
            die("OS_AUTH_URL is not set")
        for s in a.set:
            k, _, v = s.partition("=")
            sec, _, opt = k.rpartition(".")
            if not sec or not opt:
                die("--set wants SECTION.OPTION=VALUE, not %r" % s)
            conf.put(sec, opt, v)
        conf.write(confpath)
    for w in warnings:
        say("warning:", w)
    if a.dry_run:
        cp = configparser.RawConfigParser(strict=False)
        cp.read(confpath)
        for s in ["DEFAULT"] + cp.sections():
            print("[%s]" % s)
            d = cp.defaults() if s == "DEFAULT" else cp._sections[s]
            for k, v in d.items():
                secret = k.endswith("password") and v not in ("True", "False")
                print("%s = %s" % (k, "***" if secret else v))
            print()
        say(json.dumps(facts, indent=1))
        # does tempest itself accept it?
        r = subprocess.run(
            [
                sys.executable,
                "-c",
                "from tempest import config; c=config.CONF; "
                "c.identity.uri_v3; c.compute.image_ref; "
                'c.compute_feature_enabled.resize; print("tempest '
                'reads it")',
            ],
            cwd=work,
            env=tempest_env(work),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        say(r.stdout.strip().splitlines()[-1] if r.stdout.strip() else "?")
        return 0 if r.returncode == 0 else 2
    if a.ids:
        if a.ids.endswith(".json"):
            d = json.load(open(a.ids))
            want = set(d["failed"]) | set(d["not_run"])
        else:
            want = {x.strip() for x in open(a.ids) if x.strip()}
        ids = list_tests(work, None, a.exclude_regex, a.plugins)
        bare = {re.sub(r"\[[^\]]*\]$", "", w) for w in want}
        ids = [i for i in ids if i in want or re.sub(r"\[[^\]]*\]$", "", i) in bare]
    else:
        ids = list_tests(work, a.regex, a.exclude_regex, a.plugins)
    if a.list_ids:
        print("\n".join(ids))
        return 0
    if a.list:
        c = collections.Counter(group_of(i) for i in ids)
        for g in sorted(c):
            print("%-40s %5d" % (g, c[g]))
        print("%-40s %5d" % ("TOTAL", len(ids)))
        return 0
    if not ids:
        die("no test matches", 3)
    out = a.out or os.path.join(ANCHOR_DIR, "runs", time.strftime("%Y%m%d-%H%M%S"))
    os.makedirs(out, exist_ok=True)
    shutil.copy(confpath, os.path.join(out, "tempest.conf"))
    say("%d tests, concurrency %d" % (len(ids), a.concurrency))
    res, rc, secs, cut = run_tests(work, ids, a.concurrency, a.timeout, out)
    final, why, stray = account(set(ids), res)
    meta = dict(
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds_total=secs,
        cut_off=cut,
        stestr_exit=rc,
        regex=a.regex,
        exclude_regex=a.exclude_regex,
        concurrency=a.concurrency,
        features=a.features,
        validation=not a.no_validation,
        plugins=a.plugins,
        pins=[TEMPEST] + [PLUGINS[p][0] for p in a.plugins],
        config_sha256=hashlib.sha256(open(confpath, "rb").read()).hexdigest(),
        discovered=facts,
        discovery_warnings=warnings,
    )
    total, _doc = report(ids, final, why, res, stray, out, meta)
    # In the closing line a test that did not run is a failed one; a failing
    # tearDownClass is one more (a failing setUpClass is in 'not run').
    down = sum(not f.startswith("setUp") for f in res.fixtures)
    print(
        "tempest: %d passed, %d failed, %d skipped"
        % (total["passed"], total["failed"] + total["notrun"] + down + len(stray), total["skipped"])
    )
    if not total["passed"]:
        return 3
    return 1 if (total["failed"] or total["notrun"] or total["fixtures"]) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
