"""Command lines: arguments and exit codes, no logic. All else is imported when it is used."""
