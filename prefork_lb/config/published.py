"""A configuration as one version of the program publishes it and another may read it.

During an upgrade or a downgrade, a process may find the configuration of a newer version. It uses the keys that it knows: the
newer version has checked the file, and a part of the configuration is better than no health checks at all.
"""
from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect

from prefork_lb.config.model import Config


def encode_published(config: Config) -> bytes:
    """The configuration as it is published."""
    return msgspec.json.encode(config)


def decode_published(data: bytes) -> tuple[Config, list[str]]:
    """The configuration, and the keys that were left out because this version does not know them, such as "proxy.new".

    Raises msgspec.MsgspecError when the rest is no configuration, either.
    """
    try:
        return msgspec.json.decode(data, type=Config), []
    except msgspec.ValidationError:
        left_out: list[str] = []
        return msgspec.convert(_known(msgspec.json.decode(data), inspect.type_info(Config), "", left_out), Config), left_out


def _known(value: Any, kind: inspect.Type, path: str, left_out: list[str]) -> Any:
    """`value` without the keys that no field of `kind` has; their paths go to `left_out`."""
    if isinstance(kind, inspect.Metadata):
        return _known(value, kind.type, path, left_out)
    if isinstance(kind, inspect.UnionType):
        sections = [each for each in kind.types if isinstance(each, inspect.StructType)]
        return _known(value, sections[0], path, left_out) if sections else value
    if isinstance(kind, inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in kind.fields}
        left_out += [f"{path}{name}" for name in value if name not in fields]
        return {name: _known(each, fields[name], f"{path}{name}.", left_out) for name, each in value.items() if name in fields}
    if isinstance(kind, inspect.DictType) and isinstance(value, dict):
        return {name: _known(each, kind.value_type, f"{path}{name}.", left_out) for name, each in value.items()}
    if isinstance(kind, inspect.VarTupleType) and isinstance(value, list):
        return [_known(each, kind.item_type, f"{path}{number}.", left_out) for number, each in enumerate(value)]
    return value
