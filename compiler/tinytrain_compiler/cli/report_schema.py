"""`tinytrain report-schema`: what report.json holds, for other programs."""

from __future__ import annotations

import click

from .printing import print_json


@click.command("report-schema")
def report_schema() -> None:
    """Print the JSON schema of report.json, with the meaning of every key."""
    from ..report.schema import json_schema

    print_json(json_schema())
