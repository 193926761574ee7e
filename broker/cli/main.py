"""The command `broker`: finds its sub-commands and turns errors into exit codes.

A sub-command is a file beside this one that defines `command`; to add one, add a file.
"""

import dataclasses
import importlib
import pkgutil
import sys
from pathlib import Path

import click

import broker.cli
from broker import __version__
from broker.config import Config, load_config
from broker.errors import BrokerError, ConfigError
from broker.log import set_up_logging

_NOT_COMMANDS = {
    "__main__",
    "assemble",
    "batch_images",
    "batch_parts",
    "batch_science",
    "batch_tracklets",
    "bench_catalog",
    "bench_client",
    "bench_faults",
    "bench_science",
    "bench_serve",
    "bench_sizing",
    "demo_report",
    "image_quality",
    "image_recreate",
    "image_work",
    "main",
    "module_alerts",
    "module_live",
    "module_training",
    "object_tns",
    "output",
    "reliability",
    "topic_notes",
    "topic_packets",
    "topic_share",
}

_EXTRAS = {
    "client": {"kafka"},
    "science": {
        "astropy",
        "cdshealpix",
        "isal",
        "light_curve",
        "matplotlib",
        "mocpy",
        "numba",
        "onnxruntime",
        "scipy",
        "sklearn",
    },
    "serve": {"fastapi", "jinja2", "uvicorn"},
    "stream": {"happybase", "psutil", "py4j", "pyspark", "thriftpy2", "zstandard"},
    "test": {
        "astroscrappy",
        "ccdproc",
        "galsim",
        "joblib",
        "lsdb",
        "photutils",
        "reproject",
        "sep",
    },
}
"""What an installation without all extras may lack, by the extra that brings it."""


class _Commands(click.Group):
    """The files beside this one, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        names = (module.name for module in pkgutil.iter_modules(broker.cli.__path__))
        return sorted(name.replace("_", "-") for name in names if name not in _NOT_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"broker.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="broker")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings file.")
@click.option("--run", "run_name", help="Name of the run; default live.")
@click.option("-v", "--verbose", is_flag=True, help="Log what is done.")
@click.pass_context
def cli(ctx: click.Context, config_path: Path | None, run_name: str | None, verbose: bool) -> None:
    """Make, receive, judge and pass on astronomical alerts.

    Example: broker demo
    """
    ctx.obj = Settings(config_path, run_name, verbose)


class Settings:
    """The configuration, read when a command first asks for it: help needs none."""

    def __init__(self, path: Path | None, run: str | None, verbose: bool) -> None:
        self._path, self._run, self._verbose = path, run, verbose
        self._config: Config | None = None

    def load(self) -> Config:
        """Read and check the settings, and set up logging."""
        if self._config is None:
            config = load_config(self._path)
            if self._run:
                config = dataclasses.replace(config, run=self._run)
            set_up_logging("INFO" if self._verbose else config.log.level)
            self._config = config
        return self._config


def load(ctx: click.Context) -> Config:
    """Return the configuration of this call of the command."""
    settings: Settings = ctx.find_root().obj
    return settings.load()


def main() -> None:
    """Run the command; a `BrokerError` becomes one line and its exit code.

    So does a library that an extra brings and that is not installed.
    """
    try:
        cli(standalone_mode=True)
    except BrokerError as error:
        click.echo(f"broker: {error.message}", err=True)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        extra = next((name for name, holds in _EXTRAS.items() if library in holds), None)
        if extra is None:
            raise
        click.echo(
            f"broker: this needs {library}, which is not installed: "
            f"pip install 'nightjar-broker[{extra}]'",
            err=True,
        )
        sys.exit(ConfigError.exit_code)
    except BrokenPipeError:  # the reader of our output has gone: `broker … | head`
        sys.stderr.close()
        sys.exit(0)
