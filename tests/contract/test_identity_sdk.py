"""Identity through openstacksdk and the `openstack` command, unmodified."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keystoneauth1.exceptions
import openstack
import pytest

from tests.contract.conftest import Served, serve_in_thread
from tests.identity_cloud import ADMIN_PASSWORD, DEMO_PASSWORD, identity_cloud

REFUSED = (keystoneauth1.exceptions.Unauthorized, openstack.exceptions.HttpException, openstack.exceptions.SDKException)


@pytest.fixture(scope="module")
def cloud() -> Iterator[Served]:
    with serve_in_thread(identity_cloud) as served:
        yield served


def connect(cloud: Served, **auth: str) -> openstack.connection.Connection:
    given = {"auth_url": f"{cloud.url}/identity", "user_domain_id": "default", **auth}
    if "system_scope" not in given and "domain_id" not in given:
        given.setdefault("project_domain_id", "default")
    return openstack.connect(auth=given, region_name="RegionOne", identity_interface="public", load_yaml_config=False)


@pytest.fixture
def admin(cloud: Served) -> openstack.connection.Connection:
    return connect(cloud, username="admin", password=ADMIN_PASSWORD, project_name="admin")


def test_catalogue_names_the_services(cloud: Served, admin: openstack.connection.Connection) -> None:
    assert admin.session.get_endpoint(service_type="identity") == f"{cloud.url}/identity"
    project_id = admin.current_project_id
    assert admin.session.get_endpoint(service_type="object-store") == f"{cloud.url}/v1/AUTH_{project_id}"


def test_the_life_of_a_project_and_its_user(cloud: Served, admin: openstack.connection.Connection) -> None:
    project = admin.identity.create_project(name="blue", description="ours", domain_id="default", tags=["a"])
    user = admin.identity.create_user(
        name="ann", password="first", domain_id="default", email="ann@example.org", default_project_id=project.id
    )
    assert admin.identity.get_user(user.id).email == "ann@example.org"
    member = admin.identity.find_role("member")
    admin.identity.assign_project_role_to_user(project, user, member)
    assert [role.name for role in admin.identity.role_assignments_filter(project=project, user=user)] == ["member"]

    hers = connect(cloud, username="ann", password="first", project_name="blue")
    assert hers.current_project_id == project.id
    roles = {role["name"] for role in hers.session.auth.get_access(hers.session)._data["token"]["roles"]}
    assert roles == {"member", "reader"}
    with pytest.raises(openstack.exceptions.ForbiddenException):
        list(hers.identity.users())
    assert hers.identity.get_user(user.id).name == "ann"

    admin.identity.unassign_project_role_from_user(project, user, member)
    with pytest.raises(REFUSED):
        connect(cloud, username="ann", password="first", project_name="blue").authorize()
    admin.identity.delete_user(user)
    admin.identity.delete_project(project)
    assert admin.identity.find_project("blue") is None


def test_scopes(cloud: Served) -> None:
    system = connect(cloud, username="admin", password=ADMIN_PASSWORD, system_scope="all")
    assert {user.name for user in system.identity.users()} >= {"admin", "demo"}
    with pytest.raises(REFUSED):
        connect(cloud, username="demo", password=DEMO_PASSWORD, system_scope="all").authorize()
    with pytest.raises(REFUSED):
        connect(cloud, username="demo", password=DEMO_PASSWORD, project_name="admin").authorize()


def test_application_credentials(cloud: Served) -> None:
    demo = connect(cloud, username="demo", password=DEMO_PASSWORD, project_name="demo")
    made = demo.identity.create_application_credential(user=demo.current_user_id, name="robot")
    assert made.secret
    robot = openstack.connect(
        auth_type="v3applicationcredential",
        auth={
            "auth_url": f"{cloud.url}/identity",
            "application_credential_id": made.id,
            "application_credential_secret": made.secret,
        },
        load_yaml_config=False,
    )
    assert robot.current_project_id == demo.current_project_id
    with pytest.raises(openstack.exceptions.ForbiddenException):
        robot.identity.create_application_credential(user=demo.current_user_id, name="second")
    token = robot.authorize()
    demo.identity.delete_application_credential(demo.current_user_id, made.id)
    reply = demo.session.get(
        f"{cloud.url}/identity/v3/auth/tokens", headers={"X-Subject-Token": token}, raise_exc=False
    )
    assert reply.status_code == 404


def test_domains_groups_and_implied_roles(cloud: Served, admin: openstack.connection.Connection) -> None:
    domain = admin.identity.create_domain(name="north")
    group = admin.identity.create_group(name="crew", domain_id=domain.id)
    user = admin.identity.create_user(name="bo", password="x", domain_id=domain.id)
    admin.identity.add_user_to_group(user, group)
    manager = admin.identity.find_role("manager")
    admin.identity.assign_domain_role_to_group(domain, group, manager)
    hers = openstack.connect(
        auth={
            "auth_url": f"{cloud.url}/identity",
            "username": "bo",
            "password": "x",
            "user_domain_id": domain.id,
            "domain_id": domain.id,
        },
        load_yaml_config=False,
    )
    made = hers.identity.create_project(name="inside", domain_id=domain.id)
    assert [project.name for project in hers.identity.projects()] == ["inside"]
    with pytest.raises(openstack.exceptions.ForbiddenException):
        hers.identity.create_project(name="outside", domain_id="default")
    member, top = admin.identity.find_role("member"), admin.identity.find_role("admin")
    hers.identity.assign_project_role_to_user(made, user, member)
    hers.identity.assign_project_role_to_user(made, user, top)  # the SDK does not raise here
    held = admin.identity.role_assignments_filter(project=made, user=user)
    assert [role.name for role in held] == ["member"]
    with pytest.raises(openstack.exceptions.ForbiddenException):
        admin.identity.delete_domain(domain)
    admin.identity.update_domain(domain, is_enabled=False)
    admin.identity.delete_domain(domain)
    assert admin.identity.find_user("bo", domain_id=domain.id) is None


def test_the_openstack_command(cloud: Served, tmp_path: Path) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "OS_AUTH_URL": f"{cloud.url}/identity",
        "OS_USERNAME": "admin",
        "OS_PASSWORD": ADMIN_PASSWORD,
        "OS_PROJECT_NAME": "admin",
        "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
        "OS_IDENTITY_API_VERSION": "3",
    }

    def run(*words: str) -> object:
        command = [str(Path(sys.executable).parent / "openstack"), *words, "-f", "json"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert run("token", "issue")["user_id"]  # type: ignore[index]
    assert {row["Type"] for row in run("catalog", "list")} == {"identity", "compute", "object-store"}  # type: ignore[attr-defined]
    rows = run("role", "assignment", "list", "--names")
    assert {"admin@Default", "demo@Default"} <= {row["User"] for row in rows}  # type: ignore[attr-defined]
    made = run("ec2", "credentials", "create")
    assert made["access"]  # type: ignore[index]
