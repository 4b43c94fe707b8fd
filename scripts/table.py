"""Prints a list of JSON objects with the same members as a table: table.py FILE."""

import json
import sys


def text(value):
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return "-" if value is None else str(value)


with open(sys.argv[1], encoding="utf-8") as file:
    rows = json.load(file)
if rows:
    head = list(rows[0])
    table = [head] + [[text(row.get(name)) for name in head] for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(head))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
