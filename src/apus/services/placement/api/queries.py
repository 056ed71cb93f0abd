"""What is asked in the query of GET /allocation_candidates and GET /resource_providers, each part since its version.

Source: https://docs.openstack.org/api-ref/placement/ , allocation candidates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from apus.kernel.errors import Invalid
from apus.kernel.ids import is_uuid
from apus.services.placement.logic.candidates import Ask, Group
from apus.wire.listing import whole_number
from apus.wire.route import ApiRequest
from apus.wire.versions import Version, text_of

_GROUPED: Final = re.compile(r"(resources|required|member_of|in_tree)([a-zA-Z0-9_-]{1,64})?")
_NUMBERED: Final = re.compile(r"[1-9][0-9]*")
_SINCE: Final[Mapping[str, Version]] = {"required": (1, 17), "member_of": (1, 21), "in_tree": (1, 31)}
_LISTED_SINCE: Final[Mapping[str, Version]] = {
    "name": (1, 0), "uuid": (1, 0), "member_of": (1, 3), "resources": (1, 4), "in_tree": (1, 14), "required": (1, 18),
}  # fmt: skip
Texts = Mapping[str, Sequence[str]]


def refused(field: str, why: str) -> Invalid:
    return Invalid("placement.query", f"{field}: {why}.", field=field)


def _since(request: ApiRequest, version: Version, field: str, what: str = "it") -> None:
    if request.version is not None and request.version < version:
        raise refused(field, f"{what} needs version {text_of(version)}")


def candidates_of(request: ApiRequest) -> tuple[Ask, int | None]:
    """The request, and how many answers are wanted.  Raise Invalid naming the parameter."""
    grouped: dict[str, dict[str, list[str]]] = {}
    other: dict[str, list[str]] = {}
    for key, value in request.queries:
        match = _GROUPED.fullmatch(key)
        if match is None:
            other.setdefault(key, []).append(value)
            continue
        name, suffix = match[1], match[2] or ""
        if name in _SINCE:
            _since(request, _SINCE[name], key)
        if suffix:
            _since(request, (1, 25) if _NUMBERED.fullmatch(suffix) else (1, 33), key)
        grouped.setdefault(suffix, {}).setdefault(name, []).append(value)
    groups = tuple(_group(request, suffix, grouped[suffix]) for suffix in sorted(grouped))
    for key in other:
        if key not in ("limit", "group_policy", "same_subtree", "root_required"):
            raise refused(key[:60], "there is no such parameter")
    ask = _whole(request, groups, other)
    if "limit" not in other:
        return ask, None
    _since(request, (1, 16), "limit")
    return ask, whole_number("limit", other["limit"][-1], minimum=1)


def _whole(request: ApiRequest, groups: tuple[Group, ...], other: Texts) -> Ask:
    if not any(group.resources for group in groups):
        shown = "resources: it is required, e.g. resources=VCPU:1,MEMORY_MB:64."
        raise Invalid("placement.resources", shown, field="resources")
    suffixes = {group.suffix for group in groups if group.suffix}
    subtrees = [_subtree(request, text, suffixes) for text in other.get("same_subtree", ())]
    for group in groups:
        if not group.resources and not any(group.suffix in subtree for subtree in subtrees):
            raise refused(f"resources{group.suffix}", "a group without resources must be part of same_subtree")
    policy = other["group_policy"][-1] if "group_policy" in other else None
    if policy is not None:
        _since(request, (1, 25), "group_policy")
        if policy not in ("none", "isolate"):
            raise refused("group_policy", "it is either none or isolate")
    elif len(suffixes) > 1:
        raise refused("group_policy", "it is required when there is more than one group with a suffix")
    root_required: list[frozenset[str]] = []
    root_forbidden: set[str] = set()
    for text in other.get("root_required", ()):
        _since(request, (1, 35), "root_required")
        _traits(request, "root_required", text, root_required, root_forbidden)
    return Ask(
        groups=groups,
        isolate=policy == "isolate",
        subtrees=tuple(subtrees),
        root_required=frozenset().union(*root_required),
        root_forbidden=frozenset(root_forbidden),
        nested=request.version is None or request.version >= (1, 29),
    )


def _subtree(request: ApiRequest, text: str, suffixes: set[str]) -> frozenset[str]:
    _since(request, (1, 36), "same_subtree")
    named = frozenset(text.split(","))
    unknown = sorted(named - suffixes)
    if unknown:
        raise refused("same_subtree", f"there is no group with the suffix {unknown[0][:64]!r}")
    return named


def _group(request: ApiRequest, suffix: str, given: Texts) -> Group:
    required: list[frozenset[str]] = []
    forbidden: set[str] = set()
    member_of: list[frozenset[str]] = []
    not_member_of: set[str] = set()
    resources = resources_of(f"resources{suffix}", given["resources"][-1]) if "resources" in given else {}
    if len(given.get("required", ())) > 1:
        _since(request, (1, 39), f"required{suffix}", "to repeat it")
    for text in given.get("required", ()):
        _traits(request, f"required{suffix}", text, required, forbidden)
    if len(given.get("member_of", ())) > 1:
        _since(request, (1, 24), f"member_of{suffix}", "to repeat it")
    for text in given.get("member_of", ()):
        _aggregates(request, f"member_of{suffix}", text, member_of, not_member_of)
    tree = given["in_tree"][-1] if "in_tree" in given else None
    if tree is not None and not is_uuid(tree):
        raise refused(f"in_tree{suffix}", f"{tree[:40]!r} is not the UUID of a provider")
    return Group(
        suffix=suffix,
        resources=resources,
        required=tuple(required),
        forbidden=frozenset(forbidden),
        member_of=tuple(member_of),
        not_member_of=frozenset(not_member_of),
        in_tree=tree,
    )


def resources_of(field: str, text: str) -> dict[str, int]:
    """`VCPU:1,MEMORY_MB:64`."""
    resources: dict[str, int] = {}
    for item in text.split(","):
        name, _, amount = item.partition(":")
        if not name.strip():
            shown = f"{field}: {item[:40]!r} names no resource class; e.g. VCPU:1."
            raise Invalid("placement.resources", shown, field=field)
        resources[name.strip()] = whole_number(f"{field}.{name.strip()}", amount, minimum=1)
    return resources


def _traits(request: ApiRequest, field: str, text: str, required: list[frozenset[str]], forbidden: set[str]) -> None:
    """`A,!B`, or `in:A,B` for one of them."""
    if text.startswith("in:") and field != "root_required":
        _since(request, (1, 39), field, "'in:'")
        required.append(frozenset(_names(field, text[3:])))
        return
    for name in _names(field, text):
        if name.startswith("!"):
            _since(request, (1, 22), field, "'!'")
            forbidden.add(name[1:])
        else:
            required.append(frozenset((name,)))


def _names(field: str, text: str) -> Sequence[str]:
    names = text.split(",")
    if not all(re.fullmatch(r"!?[A-Z0-9_]{1,255}", name) for name in names):
        raise refused(field, f"{text[:60]!r} is not a list of traits, e.g. HW_CPU_X86_AVX,!CUSTOM_OLD")
    return names


def _aggregates(
    request: ApiRequest, field: str, text: str, member_of: list[frozenset[str]], not_member_of: set[str]
) -> None:
    """`UUID`, `in:UUID,UUID` for one of them, `!UUID` and `!in:UUID,UUID` for none."""
    plain = text.removeprefix("!")
    ids = plain.removeprefix("in:").split(",")
    if not all(is_uuid(id) for id in ids) or (len(ids) > 1 and not plain.startswith("in:")):
        raise refused(field, f"{text[:60]!r} is neither the UUID of an aggregate nor in: and several")
    if text.startswith("!"):
        _since(request, (1, 32), field, "'!'")
        not_member_of.update(ids)
    else:
        member_of.append(frozenset(ids))


def provider_filters_of(request: ApiRequest) -> tuple[Group, Mapping[str, str]]:
    """Of a list of providers: what a provider itself must have, and its name and uuid."""
    given: dict[str, list[str]] = {}
    for key, value in request.queries:
        if key not in _LISTED_SINCE:
            raise refused(key[:60], "there is no such parameter")
        _since(request, _LISTED_SINCE[key], key)
        given.setdefault(key, []).append(value)
    exact = {key: values[-1] for key, values in given.items() if key in ("name", "uuid")}
    return _group(request, "", {key: values for key, values in given.items() if key not in exact}), exact
