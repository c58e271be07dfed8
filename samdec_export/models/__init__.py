"""The decoder in eager PyTorch: registry, checkpoints, modules and the graphs that are exported."""
