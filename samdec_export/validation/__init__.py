"""Is the candidate the reference? Metrics, tolerances, comparison, report."""
