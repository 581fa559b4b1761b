"""`potstill models`: what jobs have left."""

from __future__ import annotations

from typing import Annotated, Any

import typer

app = typer.Typer(help="Models that jobs have left, with what their reports say.", no_args_is_help=True, rich_markup_mode=None)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_models(
    name: Annotated[str | None, typer.Option("--name", help="Only the versions of this model.")] = None, as_json: AsJson = False
) -> None:
    """All models, oldest first."""
    from potstill.cli.console import print_json, print_table
    from potstill.service.client import MLClient

    models = MLClient.from_config().models.list(name)
    if as_json:
        print_json([model.as_dict() for model in models])
    elif not models:
        print("no models yet; a job that completes leaves its student here")
    else:
        rows = [
            (model.name, str(model.version), model.role, model.task, _main(model.metrics), model.job, str(model.path or ""))
            for model in models
        ]
        print_table(("name", "version", "role", "task", "measured", "job", "file"), rows)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The model's name, as potstill models list shows it.")],
    version: Annotated[int | None, typer.Option("--version", help="The newest without it.")] = None,
    as_json: AsJson = False,
) -> None:
    """One model: where it lies, and every figure of its job's report."""
    from potstill.cli.console import print_json
    from potstill.service.client import MLClient

    model = MLClient.from_config().models.get(name, version)
    if as_json:
        print_json(model.as_dict())
        return
    for key, value in model.as_dict().items():
        if key != "metrics" and value is not None:
            print(f"{key + ':':<24}{value}")
    for key, value in model.metrics.items():
        if value is not None and key != "name":
            print(f"{key + ':':<24}{_figure(value)}")


def _main(metrics: Any) -> str:
    """The first metric of a report's entry that has an interval: the task's main one."""
    found = next(((key, value) for key, value in metrics.items() if isinstance(value, dict)), None)
    return "" if found is None else f"{found[0]} {found[1]['value']:.3f}"


def _figure(value: Any) -> str:
    if isinstance(value, dict):
        low, high = value["ci95"]
        return f"{value['value']:.4g} [{low:.4g}, {high:.4g}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
