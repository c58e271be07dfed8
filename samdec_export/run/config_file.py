"""A config from a YAML file, flags and settings `KEY=VALUE`: each mistake becomes one line that names the key."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, get_args

import yaml
from pydantic import BaseModel, ValidationError

from samdec_export.core.dtypes import PRECISIONS
from samdec_export.core.errors import UsageError
from samdec_export.core.spelling import as_flag, command_line
from samdec_export.run.config import RunConfig

__all__ = ["as_yaml", "command_for", "config_schema", "load_config", "parse_setting"]

SCHEMA_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

Setting: TypeAlias = tuple[str, Any]
"""A key such as `gate.fp16.iou`, and its value."""

WANTED: Final[dict[str, str]] = {
    "literal_error": "one of {expected}",
    "greater_than_equal": "a number from {ge:g} on",
    "greater_than": "a number above {gt:g}",
    "less_than_equal": "a number up to {le:g}",
    "less_than": "a number below {lt:g}",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "too_short": "a list of at least one",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "path_type": "text",
    "string_type": "text",
}
"""What pydantic's types of error call for; the names in braces are pydantic's."""

SCHEMA_ADVICE = "samdec-export config schema prints every key."


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses a key that is there twice: the first would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(None, None, "a key that is not text", key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f"{key.value} is there twice", key.start_mark)
            seen.add(key.value)
        return dict(super().construct_mapping(node, deep))


def load_config(path: Path | None, settings: Sequence[Setting] = ()) -> RunConfig:
    """Read a config from a YAML file, or the usual values, with the settings over it in their order.

    Raises:
        UsageError: The file cannot be read, or a key or a value is wrong; the message names it by its path.
    """
    values = _read(path) if path else {}
    for key, value in settings:
        _put(values, key, value)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise _complaint(error, path, [key for key, _ in settings]) from error


def parse_setting(text: str) -> Setting:
    """Read `KEY=VALUE`, such as `gate.fp16.iou=0.95`; the value is YAML.

    Raises:
        UsageError: It is not that.
    """
    key, equals, value = text.partition("=")
    try:
        if not equals or not all(key.split(".")):
            raise ValueError(text)
        return key, yaml.load(value, _Loader)  # noqa: S506  # derived from SafeLoader
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{{settings}} {text!r} is not KEY=VALUE.", "Write such as gate.fp16.iou=0.95.") from error


def command_for(path: Path | None, settings: Sequence[Setting]) -> str:
    """Return the command line that runs the same config again."""
    words = [str(path)] if path else []
    for key, value in settings:
        words += [as_flag("settings"), f"{key}={json.dumps(str(value) if isinstance(value, Path) else value)}"]
    return command_line("run", *words)


def as_yaml(config: RunConfig) -> str:
    """Return every key with its value, and the limits that each precision comes to."""
    values = config.model_dump(mode="json")
    for precision in PRECISIONS:
        values["gate"][precision] = config.gate.limits(precision)
    return yaml.safe_dump(values, sort_keys=False)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  # derived from SafeLoader
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", "Name a YAML file.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{where}: {error.problem}.", "Correct the YAML.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not YAML text.", "Name a YAML file.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{path} is not a mapping of keys to values.", "Write such as model: sam_b.")
    return values


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for number, name in enumerate(parents):
        if values.get(name) is None:
            values[name] = {}
        values = values[name]
        if not isinstance(values, dict):
            raise UsageError(f"{'.'.join(parents[: number + 1])} holds no keys, so {key} cannot be set.", SCHEMA_ADVICE)
    values[last] = value


def _complaint(error: ValidationError, path: Path | None, set_keys: Sequence[str]) -> UsageError:
    """Return the first mistake in words, and how many there are beside it."""
    details = error.errors(include_url=False)
    earliest = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    union = [detail for detail in details if _within(_key(detail["loc"]), _key(earliest["loc"]))]
    first = max(union, key=lambda detail: len(_key(detail["loc"]))) if len(union) > 1 else earliest
    same = [detail for detail in union if _key(detail["loc"]) == _key(first["loc"])]
    key = _key(first["loc"])
    flagged = any(key == name or key.startswith(f"{name}.") for name in set_keys)
    where = f"{path}: " if path and not flagged else ""
    more = len(details) - len(union)
    rest = f" ({more} more {'mistakes' if more > 1 else 'mistake'}.)" if more else ""
    if first["type"] == "extra_forbidden":
        return UsageError(f"{where}{key} is not a known key.{rest}", _suggestion(first["loc"]))
    if not key:
        return UsageError(f"{where}{_own_words(first)}{rest}".rstrip(), SCHEMA_ADVICE if more else "")
    wanted = " or ".join(dict.fromkeys(_wanted(detail) for detail in same))
    if first["type"] == "missing":
        return UsageError(f"{where}{key} is missing.{rest}", SCHEMA_ADVICE)
    if own := _own_words(first):
        return UsageError(f"{where}{key}: {first['input']!r} {own}{rest}")
    return UsageError(f"{where}{key}: {first['input']!r} is not {wanted}.{rest}", SCHEMA_ADVICE)


def _within(key: str, other: str) -> bool:
    """Return whether a key is the other one or inside it: each member of a union has its own complaint."""
    return key == other or key.startswith((f"{other}.", f"{other}["))


def _key(location: tuple[int | str, ...]) -> str:
    """Return a key such as `gate.fp16.iou` or `bench.prompts[1]`, without pydantic's names of a union's members."""
    text = ""
    section: Any = RunConfig
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif section is not None and part in section.model_fields:
            text += f".{part}" if text else part
            section = _section(section.model_fields[part].annotation)
        elif section is not None or (part.isidentifier() and part not in ("float", "int", "str", "bool")):
            # a name of the user's, such as an axis, and no mark of a validator
            text += f".{part}" if text else part
            section = None
    return text


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a key holds, if it holds one."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _suggestion(location: tuple[int | str, ...]) -> str:
    section: type[BaseModel] = RunConfig
    for part in location[:-1]:
        section = _section(section.model_fields[str(part)].annotation) or section
    near = difflib.get_close_matches(str(location[-1]), section.model_fields, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(section.model_fields)}."


def _own_words(detail: Mapping[str, Any]) -> str:
    """Return what a validator of this project's says; pydantic puts two words before it."""
    return detail["msg"].removeprefix("Value error, ") if detail["type"] == "value_error" else ""


def _wanted(detail: Mapping[str, Any]) -> str:
    """Return what would have been right, in a few words."""
    template = WANTED.get(detail["type"])
    return template.format(**detail.get("ctx", {})) if template else f"right: {detail['msg'].lower()}"


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of a config, as editors read it."""
    return {"$schema": SCHEMA_DIALECT, **RunConfig.model_json_schema(mode="validation")}
