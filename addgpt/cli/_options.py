"""Options that several commands have."""

import click

DIGITS = click.option("--digits", type=int, help="Longest operand; short for --set digits=N.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, nothing else.")
