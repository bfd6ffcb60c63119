"""Find the changes that a changed configuration needs in an existing index, if rows allow it. Pure.

Fields can be added, dynamic settings and `_meta` can be changed under the documents that are there. Which
settings are dynamic, and which fields may be added, is the server's answer: it refuses the others as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pillows.transports.common.search.encoder import DELETED_AT, MARKED_AT
from pillows.transports.common.search.index.spec import IndexSpec

#: The keys of a mapping that hold fields by name; nothing else may be added to a field that exists.
_HOLDERS = frozenset({"properties", "fields"})


class IndexChange(Struct, frozen=True, kw_only=True):
    """The changes to an index.

    Attributes:
        properties: the fields of the root, if some are new; else empty.
        added: the paths of the new fields, sorted.
        settings: setting -> its new value; None for one that the configuration does not name any more.
    """

    properties: Mapping[str, Any]
    added: tuple[str, ...]
    settings: Mapping[str, Any]

    def __str__(self) -> str:
        """Describe the changes, for the operator."""
        parts = [f"fields added: {', '.join(self.added)}"] if self.added else []
        if self.settings:
            parts.append(f"settings changed: {', '.join(sorted(self.settings))}")
        return "; ".join(parts)


def describe_spec(spec: IndexSpec) -> dict[str, Any]:
    """Return the part of a spec that `find_change` compares, as the index keeps it in `_meta`."""
    described: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode({"mapping": spec.mapping, "settings": spec.settings})
    )
    return described


def find_change(applied: Mapping[str, Any], wanted: IndexSpec) -> IndexChange | None:
    """Return the changes to an index; None if its present rows can't follow.

    Args:
        applied: what `describe_spec` returned for the configuration that the index was last opened with.
        wanted: the present configuration.
    """
    new = describe_spec(wanted)
    before = {key: each for key, each in applied["mapping"].items() if key != "_meta"}
    after = {key: each for key, each in new["mapping"].items() if key != "_meta"}
    added: list[str] = []
    if _get_deleted_fields(before) != _get_deleted_fields(after) or not _only_adds(before, after, "", added):
        return None
    return IndexChange(
        properties=after["properties"] if added else {},
        added=tuple(sorted(added)),
        settings=_compare_settings(applied["settings"], new["settings"]),
    )


def find_settings_change(applied: Mapping[str, Any], wanted: IndexSpec) -> IndexChange:
    """Return the settings that change in an index that was created with the wanted mapping.

    Fields that were added since stay.

    Args:
        applied: as for `find_change`.
        wanted: as for `find_change`.
    """
    settings = _compare_settings(applied["settings"], describe_spec(wanted)["settings"])
    return IndexChange(properties={}, added=(), settings=settings)


def choose_index(
    wanted: IndexSpec, owners: Mapping[str, Mapping[str, Any]], shown: Collection[str]
) -> tuple[IndexSpec, IndexChange | None]:
    """Return the index to use, and the changes to it; it may have to be created.

    Args:
        wanted: the configured index.
        owners: index -> `_meta.pillowd`, of indices that are the tail's own.
        shown: the indices that the alias points to.
    """
    builds = {build: name for name in owners if (build := wanted.get_build(name))}
    named = [build for build, name in builds.items() if name in shown] or builds.keys() & {wanted.build}
    if named:
        spec = replace(wanted, build=max(named))
        applied = owners[spec.name].get("spec")
        return spec, find_settings_change(applied, spec) if applied else None
    # Of several indices written under one epoch, use the one that is searched; otherwise the last by name.
    written: dict[tuple[int, bool, str], tuple[IndexSpec, Mapping[str, Any]]] = {}
    for name, owner in owners.items():
        if "spec" in owner:
            spec = replace(wanted, digest=owner["digest"])
            build = spec.get_build(name)
            if build and (name in shown or build == wanted.build):
                rank = (owner.get("epoch", 0), name in shown, name)
                written[rank] = (replace(spec, build=build), owner["spec"])
    if written:
        spec, applied = written[max(written)]
        change = find_change(applied, wanted)
        if change is not None:
            return spec, change
    return wanted, None


def _compare_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    names = sorted(old.keys() | new.keys())
    return {name: new.get(name) for name in names if name not in new or old.get(name) != new[name]}


def _get_deleted_fields(mapping: Mapping[str, Any]) -> set[str]:
    """Return the field of deleted documents, if they stay: hidden tombstones, or marked ones."""
    return {DELETED_AT, MARKED_AT}.intersection(mapping.get("properties", {}))


def _only_adds(before: Mapping[str, Any], after: Mapping[str, Any], path: str, added: list[str]) -> bool:
    """Return whether a field, or the root, differs by new fields below it only; append their paths."""
    for key in before.keys() | after.keys():
        if key not in _HOLDERS:
            if key not in before or key not in after or before[key] != after[key]:
                return False
            continue
        old, new = before.get(key, {}), after.get(key, {})
        if old.keys() - new.keys():
            return False
        added += [f"{path}{name}" for name in new.keys() - old.keys()]
        if not all(_only_adds(old[name], new[name], f"{path}{name}.", added) for name in old):
            return False
    return True
