"""The choices a user has about how a model is served, in one list for the flow, the stage and the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from samdec_export.core.errors import UsageError

__all__ = ["ServedKind", "ServedVersions", "ServingOptions", "check_name"]

ServedKind: TypeAlias = Literal["auto", "gpu", "cpu"]
ServedVersions: TypeAlias = Literal["latest", "all"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A folder's name on every system, and a URL's part without escapes: /v2/models/NAME/infer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """How the files are served.

    Args:
        name: The model's name, every file a version of it; None to name each by its record.
        kind: Where it runs. `auto` is a GPU where there is one.
        instances: Copies that run at the same time, on each GPU.
        queue_delay: The longest that a request waits for others to share its batch, in microseconds.
        versions: Which versions of a model are loaded: the latest alone, or all of them.

    Raises:
        UsageError: A number is out of its range, or the name is not one.
    """

    name: str | None = None
    kind: ServedKind = "auto"
    instances: int = 1
    queue_delay: int = 0
    versions: ServedVersions = "latest"

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name, "--name")
        if self.instances < 1:
            raise UsageError(f"--instances {self.instances} is below 1.", "1 is the usual number.")
        if self.queue_delay < 0:
            raise UsageError(f"--queue-delay {self.queue_delay} is below 0.", "Write microseconds, such as 500.")


def check_name(name: str, origin: str) -> None:
    """Do nothing if a model can be called that: it becomes a folder and a part of a URL.

    Args:
        name: The name.
        origin: Where it comes from, for the message.

    Raises:
        UsageError: It cannot.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{origin}: a model cannot be called {name!r}.",
            "Give --name letters, digits, dots, dashes and underscores, a letter or digit first.",
        )
