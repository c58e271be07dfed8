"""The report of a gate run: one document of plain values, and what it is rendered as."""
