"""A run: every stage from a checkpoint to the report, each left out where nothing that it depends on changed."""
