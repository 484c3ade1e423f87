"""The exec launcher: rebuilds an inherited-descriptor environment (not yet here)."""
