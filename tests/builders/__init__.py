"""Input for tests, built from named arguments instead of captured."""
