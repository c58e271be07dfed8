"""Is the candidate the reference? Cases, metrics, tolerances, comparisons, goldens."""
