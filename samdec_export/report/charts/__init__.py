"""The geometry of the charts: places and texts in the units of an SVG; the templates draw them."""
