"""Guest memory out of state files: open it, take it out, lay it out, compare it."""
