"""What a golden holds."""

from __future__ import annotations

from samdec_export.core.files import FilePath, as_path, optional_path
from samdec_export.parity.golden import open_golden
from samdec_export.parity.record import Recorded, write_polygraphy

__all__ = ["golden"]


def golden(
    file: FilePath, *, polygraphy_inputs: FilePath | None = None, polygraphy_outputs: FilePath | None = None
) -> Recorded:
    """Return what a golden holds, and write it as Polygraphy's files where they are named.

    Args:
        file: What `record` wrote.
        polygraphy_inputs: The file to write for `polygraphy run --load-inputs`.
        polygraphy_outputs: The file to write for `polygraphy run --load-outputs`.

    Raises:
        UsageError: The golden is missing, damaged or of another schema, or a file cannot be written.
        DependencyError: Polygraphy is not installed.
    """
    found = Recorded(golden=open_golden(as_path(file)))
    write_polygraphy(found, optional_path(polygraphy_inputs), optional_path(polygraphy_outputs))
    return found
