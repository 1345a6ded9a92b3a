"""`hlvae doctor`: report what is installed, what is available, and where files are."""

import json

import click


@click.command(short_help="Report versions, devices, directories and missing parts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Report versions, devices, directories, data sets and missing optional parts. Please add it to bug reports.

    \b
    Examples:
      hlvae doctor
      hlvae doctor --json
    """
    from hierarchical_lvae.presentation.environment import inspect_environment, lines

    report = inspect_environment()
    for line in [json.dumps(report, indent=2, ensure_ascii=False)] if as_json else lines(report):
        click.echo(line)
