"""The choices a user has about how a model is served."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from annotated_types import Ge

from samdec_export.core.choices import Count, Help, check
from samdec_export.core.errors import UsageError

__all__ = ["ServedKind", "ServedVersions", "ServingOptions", "check_name"]

ServedKind: TypeAlias = Literal["auto", "gpu", "cpu"]
ServedVersions: TypeAlias = Literal["latest", "all"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A folder's name on every system, and a URL's part without escapes: /v2/models/NAME/infer."""


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """How the files are served.

    Raises:
        UsageError: A number is out of its bounds, or the name is not one.
    """

    name: Annotated[str | None, Help("The model's name, each file a version of it.", usual="by the records")] = None
    kind: Annotated[ServedKind, Help("Where ONNX files run; auto: a GPU where there is one.")] = "auto"
    instances: Annotated[Count, Help("Copies that run at the same time, on each GPU.")] = 1
    queue_delay: Annotated[int, Ge(0), Help("Microseconds a request waits for others to share a batch.")] = 0
    versions: Annotated[ServedVersions, Help("Versions of a model that are loaded.")] = "latest"

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name, "{name}")
        check(self)


def check_name(name: str, origin: str) -> None:
    """Raise a UsageError unless a model can be called that: it becomes a folder and a part of a URL.

    `origin` is where the name comes from, for the message.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{origin}: a model cannot be called {name!r}.",
            "Give {name} letters, digits, dots, dashes and underscores, a letter or digit first.",
        )
