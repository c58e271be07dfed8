"""Engines: one module each, all of them Runners."""
