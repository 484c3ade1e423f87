"""The only code that prints: pages for people, JSON and YAML for programs.

`words` turns values into text, `output` writes it and escapes all that it
writes; the other modules decide what is written. Nothing here decides what
is true: that comes from `cprtools.inspector` and `cprformats`.
"""
