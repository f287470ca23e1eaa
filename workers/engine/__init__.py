"""The engine seam and what stands behind it."""
