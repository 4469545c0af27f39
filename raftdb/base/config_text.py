"""The configuration as TOML, for `raftdb start --print-config` and for `raftdb init`."""

from __future__ import annotations

import os
from typing import Any

from raftdb.base.config import SECTION_DOCS, SETTINGS, NodeConfig
from raftdb.base.settings import MEMBER_KEYS, Setting


def render_toml(
    config: NodeConfig, *, relative_to: str | None = None, only_changed: bool = False
) -> str:
    """The whole configuration, each key with a sentence; `load_config` reads it back the same.

    `relative_to`: write paths below that directory relative to it (for a file that will lie
    there). `only_changed`: keys that have their default are there, but commented out.
    """
    lines = ["# Configuration of a raftdb node. docs/configuration.md says more."]
    members: list[str] = []
    section = ""
    for key, setting in SETTINGS.items():
        prefix, _, name = key.rpartition(".")
        if prefix == "tls" and config.tls is None:
            continue
        if prefix != section:
            section = prefix
            lines += ["", f"# {SECTION_DOCS[section]}", f"[{section}]"]
        value = _value(config, key)
        if key == "members":
            # Arrays of tables come last, or what follows would belong to them.
            members = ["", f"# {setting.doc}", *_member_comments(), setting.kind.to_toml(value)]
            continue
        text = setting.kind.to_toml(_relative(setting, value, relative_to))
        mark = "# " if only_changed and _is_default(config, setting, value, relative_to) else ""
        lines += ["", f"# {setting.doc}", f"{mark}{name} = {text}"]
    return "\n".join([*lines, *members]) + "\n"


def _value(config: NodeConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _relative(setting: Setting, value: Any, relative_to: str | None) -> Any:
    if not setting.kind.is_path or relative_to is None or not value:
        return value
    relative = os.path.relpath(value, relative_to)
    return value if relative.startswith("..") else relative


def _is_default(config: NodeConfig, setting: Setting, value: Any, relative_to: str | None) -> bool:
    if setting.key == "peer_listen":
        return bool(value == config.member.peer_address)
    if setting.key == "client_listen":
        return bool(value == config.member.client_address)
    return bool(_relative(setting, value, relative_to) == setting.default)


def _member_comments() -> list[str]:
    return [f"#   {key}: {doc}" for key, doc in MEMBER_KEYS.items()]
