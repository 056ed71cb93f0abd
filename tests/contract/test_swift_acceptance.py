"""What Swift's own functional tests found wrong with our door, each once, over real sockets."""

from __future__ import annotations

import json
import time
from email.utils import formatdate, parsedate_to_datetime

from apus.services.object.logic.merge import seconds_of
from tests.contract.swift_server import SwiftServer


def test_words_of_errors_end_without_a_newline(swift: SwiftServer, base: str) -> None:
    assert swift.ask("PUT", base + "/o", b"", X_Delete_At="x")[2] == b"Non-integer X-Delete-At"
    assert swift.ask("PUT", base + "/o", b"", X_Delete_After="x")[2] == b"Non-integer X-Delete-After"
    status, headers, body = swift.ask("GET", base + "?limit=10001")
    assert (status, headers["content-type"], body) == (412, "text/html; charset=UTF-8", b"Maximum limit is 10000")


def test_words_of_an_unmet_condition_are_those_of_its_status(swift: SwiftServer, base: str) -> None:
    status, _, body = swift.ask("PUT", base + "/o", b"", If_Match="x")
    assert status == 412
    assert b"<h1>Precondition Failed</h1>" in body


def test_answers_to_conditions_tell_of_the_object(swift: SwiftServer, base: str) -> None:
    etag = swift.ask("PUT", base + "/o", b"data")[1]["etag"]
    for status, headers, _ in (
        swift.ask("GET", base + "/o", If_None_Match=etag),
        swift.ask("GET", base + "/o", If_Match="other"),
    ):
        assert status in (304, 412)
        assert (headers["etag"], headers["accept-ranges"]) == (etag, "bytes")


def test_metadata_is_limited_with_what_there_is_already(swift: SwiftServer, base: str) -> None:
    for path, kind in ((base, "Container"), ("/v1/AUTH_a", "Account")):
        first = {f"X_{kind}_Meta_A{number}": "v" * 200 for number in range(15)}
        assert swift.ask("POST", path, **first)[0] == 204
        second = {f"X_{kind}_Meta_B{number}": "v" * 200 for number in range(10)}
        assert swift.ask("POST", path, **second)[0] == 400
        removed = {f"X_Remove_{kind}_Meta_A{number}": "x" for number in range(15)}
        assert swift.ask("POST", path, **removed, **second)[0] == 204


def test_headers_are_as_long_as_info_says(swift: SwiftServer) -> None:
    limit = json.loads(swift.ask("GET", "/info")[2])["swift"]["max_header_size"]
    assert swift.ask("HEAD", "/v1/AUTH_a", X_Anything="v" * (limit - 20))[0] == 204
    status, _, body = swift.ask("GET", "/v1/AUTH_a", X_Anything="v" * limit)
    assert status == 400
    assert b"x-anything" in body


def test_a_time_in_the_far_future(swift: SwiftServer, base: str) -> None:
    assert swift.ask("PUT", base + "/o", b"", X_Delete_At="1" * 100)[0] == 201
    assert swift.ask("HEAD", base + "/o")[1]["x-delete-at"] == "9999999999"
    assert swift.ask("POST", base + "/o", X_Delete_After="9" * 12)[0] == 202
    assert swift.ask("HEAD", base + "/o")[1]["x-delete-at"] == "9999999999"


def test_a_delete_of_what_is_due(swift: SwiftServer, base: str) -> None:
    due = str(int(time.time()) + 1000)
    assert swift.ask("PUT", base + "/o", b"", X_Delete_At=due)[0] == 201
    assert swift.ask("DELETE", base + "/o", X_If_Delete_At="bad")[0] == 400
    assert swift.ask("DELETE", base + "/o", X_If_Delete_At=str(int(due) - 1))[0] == 412
    assert swift.ask("DELETE", base + "/other", X_If_Delete_At=due)[0] == 404
    assert swift.ask("DELETE", base + "/o", X_If_Delete_At=due)[0] == 204


def test_a_bulk_delete_at_the_path_of_an_object(swift: SwiftServer, base: str) -> None:
    container = base.rpartition("/")[2]
    for name in ("o", "other"):
        assert swift.ask("PUT", f"{base}/{name}", b"")[0] == 201
    for method, path in (("DELETE", base + "/o"), ("POST", base)):
        status, _, body = swift.ask(method, path + "?bulk-delete", f"{container}/other".encode())
        assert status == 200
        assert b"Number " in body
    assert swift.ask("HEAD", base + "/o")[0] == 200
    assert swift.ask("HEAD", base + "/other")[0] == 404


def test_preflights(swift: SwiftServer, base: str) -> None:
    origin = {"Origin": "http://a.example"}
    get = {"Access_Control_Request_Method": "GET"}
    assert swift.ask("POST", base, X_Container_Meta_Access_Control_Allow_Origin="*")[0] == 204
    assert swift.ask("OPTIONS", base + "/o", token=None)[0] == 200
    assert swift.ask("OPTIONS", base + "/o", token=None, **origin)[0] == 401
    assert swift.ask("OPTIONS", base + "/o", token=None, **origin, **get)[0] == 200
    assert swift.ask("OPTIONS", "/v1/AUTH_a", token=None, **origin, **get)[0] == 200


def test_a_path_may_begin_with_a_slash(swift: SwiftServer, base: str) -> None:
    for name in ("/dir/file", "/dir/", "/file", "dir/file", "file"):
        assert swift.ask("PUT", f"{base}/{name}", b"")[0] == 201
    found = {path: swift.ask("GET", f"{base}?path={path}")[2].decode().split() for path in ("", "/", "/dir", "dir/")}
    assert found == {"": ["file"], "/": ["/dir/", "/file"], "/dir": ["/dir/file"], "dir/": ["dir/file"]}


def test_a_copy_of_nothing_is_not_found_wherever_it_goes(swift: SwiftServer, base: str) -> None:
    headers = {"Destination": "c/o", "Destination_Account": "AUTH_b"}
    assert swift.ask("COPY", base + "/absent", **headers)[0] == 404


def test_a_put_of_a_container_tells_its_time(swift: SwiftServer, base: str) -> None:
    times = list[float]()
    for method in ("HEAD", "PUT", "POST"):
        swift.ask(method, base)
        head = swift.run(swift.store.service.container("AUTH_a", base.rpartition("/")[2], fresh=True))
        times.append(max(seconds_of(stamp) for _, stamp in head.fields.values()))  # its Last-Modified, to the tick
    assert times == sorted(set(times))


def test_info_tells_what_may_be_asked_of_it(swift: SwiftServer) -> None:
    status, headers, _ = swift.ask("OPTIONS", "/info", token=None)
    assert (status, headers["allow"]) == (200, "HEAD, GET, OPTIONS")


def test_account_acls_are_announced(swift: SwiftServer) -> None:
    assert json.loads(swift.ask("GET", "/info")[2])["tempauth"] == {"account_acls": True}


def test_a_nul_is_no_name_but_may_be_a_marker(swift: SwiftServer, base: str) -> None:
    for path in ("/v1/AUTH_a/x%00", base + "/o%00"):
        assert swift.ask("PUT", path, b"")[::2] == (412, b"Invalid UTF8 or contains NULL")
    for name in ("a", "b", "c"):
        assert swift.ask("PUT", f"{base}/{name}", b"")[0] == 201
    assert swift.ask("GET", base + "?reverse=on&marker=b%00&end_marker=A")[2] == b"b\na\n"
    for query in ("prefix=%00", "marker=%00", "marker=%00&delimiter=%00", "end_marker=%00&reverse=1", "path=%00"):
        status, _, body = swift.ask("GET", f"/v1/AUTH_a?{query}")
        assert status in (200, 204)
        assert b"\0" not in body


def test_listings_of_accounts_name_policies(swift: SwiftServer, base: str) -> None:
    rows = json.loads(swift.ask("GET", "/v1/AUTH_a?format=json")[2])
    assert {row["storage_policy"] for row in rows} == {"replicated"}
    assert b"<storage_policy>replicated</storage_policy>" in swift.ask("GET", "/v1/AUTH_a?format=xml")[2]


def test_dates_of_conditions_are_rounded_as_last_modified_is(swift: SwiftServer, base: str) -> None:
    changed = swift.ask("PUT", base + "/o", b"")[1]["last-modified"]
    at_s = parsedate_to_datetime(changed).timestamp()
    before = formatdate(at_s - 1, usegmt=True)
    assert swift.ask("GET", base + "/o", If_Modified_Since=changed)[0] == 304
    assert swift.ask("GET", base + "/o", If_Modified_Since=before)[0] == 200
    assert swift.ask("GET", base + "/o", If_Unmodified_Since=changed)[0] == 200
    assert swift.ask("GET", base + "/o", If_Unmodified_Since=before)[0] == 412


def test_names_in_acls_are_those_of_the_default_domain(swift: SwiftServer, base: str) -> None:
    """Whoever may make a domain could otherwise make the names that an ACL lets in."""
    swift.ask("PUT", base + "/o", b"data")

    def statuses() -> tuple[int, int]:
        found = [swift.ask("GET", base + "/o", token=token)[0] for token in ("bob", "namesake")]
        return found[0], found[1]

    for acl in ("b:n-b", "b", "*:n-b"):
        assert swift.ask("POST", base, X_Container_Read=acl)[0] == 204
        assert statuses() == (200, 403)
    assert swift.ask("POST", base, X_Container_Read="x:u-x")[0] == 204
    assert statuses() == (403, 200)
    assert swift.ask("POST", base, X_Container_Read="")[0] == 204
    for access, expected in (('{"read-only":["b:n-b"]}', (200, 403)), ('{"read-only":["u-x"]}', (403, 200))):
        assert swift.ask("POST", "/v1/AUTH_a", X_Account_Access_Control=access)[0] == 204
        assert statuses() == expected
    assert swift.ask("POST", "/v1/AUTH_a", X_Account_Access_Control="{}")[0] == 204


def test_an_acl_of_another_domain_has_ids_alone(swift: SwiftServer) -> None:
    """Whom its owner means by a name is in his domain, and not who has that name in the default one."""
    account, owner = "/v1/AUTH_x", "namesake"
    assert swift.ask("PUT", account + "/c", token=owner, X_Container_Read="b:n-b")[0] == 201
    assert swift.ask("PUT", account + "/c/o", b"data", token=owner)[0] == 201
    assert swift.ask("GET", account + "/c/o", token="bob")[0] == 403
    for acl, expected in (("b:u-b", 200), ("b", 200), ("n-b,*:n-b", 403), ("*:*", 200)):
        assert swift.ask("POST", account + "/c", token=owner, X_Container_Read=acl)[0] == 204
        assert swift.ask("GET", account + "/c/o", token="bob")[0] == expected
    assert swift.ask("POST", account + "/c", token=owner, X_Container_Read="")[0] == 204
    for access, expected in (('{"read-only":["b:n-b"]}', 403), ('{"read-only":["u-b"]}', 200)):
        assert swift.ask("POST", account, token=owner, X_Account_Access_Control=access)[0] == 204
        assert swift.ask("GET", account + "/c/o", token="bob")[0] == expected
    assert swift.ask("HEAD", account, token=owner)[1]["x-account-project-domain-id"] == "d"
    assert swift.ask("HEAD", "/v1/AUTH_a")[1]["x-account-project-domain-id"] == "default"
