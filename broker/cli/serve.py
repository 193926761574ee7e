"""`broker serve`: API and portal on one port, without Spark."""

import contextlib
import dataclasses
import importlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.cli.assemble import make_tables, make_topics
from broker.cli.main import load
from broker.config import Config
from broker.errors import ConfigError
from broker.types import Run

if TYPE_CHECKING:
    from broker.portal.openid import Provider

_PATIENCE_S = 10.0
"""A person does not wait longer for a store that does not answer. [s]"""

CONNECTIONS = 8
"""Calls to HBase that may be on their way at once; of more, each waits its turn."""


@click.command()
@click.option("--host", help="Address to listen on; default serve.host, 127.0.0.1.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default serve.port, 8800.")
@click.pass_context
def command(ctx: click.Context, host: str | None, port: int | None) -> None:
    """Serve the API and the portal until it is interrupted.

    Reads HBase, Kafka, the archive and the catalogues; writes what people ask for: transfers that
    wait, annotations and watchlists of those who have a token, the end of a subscription.

    serve.openid_file names a JSON file, mode 600, with issuer, client_id and client_secret (and a
    name) of an OpenID provider; it sends people back to push.url, at /account/openid/back.

    Example: broker serve --port 8800
    """
    config = load(ctx)
    host, port = host or config.serve.host, port or config.serve.port
    listening = _listen(host, port)
    os.nice(config.serve.nice)
    import uvicorn

    from broker.api import Sources, make_app
    from broker.api.annotations import add_annotations
    from broker.api.app import PREFIX
    from broker.api.push import add_push
    from broker.api.tap import add_tap
    from broker.api.transfer import add_transfers
    from broker.api.watchlists import add_watchlists
    from broker.archive import Archive
    from broker.batch.transfer_folder import transfers_of
    from broker.catalog.registry import Catalogs
    from broker.ops.annotators import Intake
    from broker.ops.push import PushBook
    from broker.ops.tokens import tokens_of
    from broker.ops.watchlists import keeper_of
    from broker.portal import add_portal
    from broker.science.installed import installed

    hbase = dataclasses.replace(config.hbase, timeout_s=min(config.hbase.timeout_s, _PATIENCE_S))
    topics = make_topics(config)
    tables = make_tables(dataclasses.replace(config, hbase=hbase), connections=CONNECTIONS)
    try:
        sources = Sources(
            config.the_run,
            tables=tables,
            topics=topics,
            archive=Archive(config.archive_path, config.the_run),
            catalogs=Catalogs(config.catalog_path),
            contributions=installed(config),
        )
        sources.deprecations = config.home / "deprecations"
        _check_run(config.the_run, tables.names())
        app = make_app(
            sources, requests_per_s=config.serve.requests_per_s, burst=config.serve.burst
        )
        tokens = app.state.tokens = tokens_of(config)
        starters = None if config.serve.guest_transfers else tokens
        add_transfers(app, transfers_of(config), sources.archive, prefix=PREFIX, tokens=starters)
        add_push(app, PushBook(config.run_path("push")), prefix=PREFIX)
        add_annotations(app, tokens, Intake(tables, topics, config.the_run), prefix=PREFIX)
        keeper = keeper_of(config, topics, sources.contributions)
        add_watchlists(app, keeper, tokens, prefix=PREFIX)
        add_portal(app, _provider(config))
        importlib.import_module("matplotlib.image")  # the first picture does not wait for it
        click.echo(f"Run {config.run} is served at http://{_shown(host)}:{port}/", err=True)
        level = config.log.level.lower()
        server = uvicorn.Server(
            uvicorn.Config(app, log_level=level, access_log=False, server_header=False)
        )
        with contextlib.closing(add_tap(app)):
            server.run(sockets=[listening])
    finally:
        listening.close()
        topics.close()
        tables.close()


def _provider(config: Config) -> "Provider | None":
    """Return with whom people may sign in; ConfigError if that is not said well."""
    if not config.serve.openid_file:
        return None
    from broker.portal.account import BACK
    from broker.portal.openid import Provider, read_registration

    ours = read_registration(Path(config.serve.openid_file))
    return Provider(ours, config.push.url.rstrip("/") + BACK)


def _check_run(run: Run, names: Sequence[str]) -> None:
    """Raise ConfigError if a run has no tables: nothing was ever written."""
    if run.table("alert") not in names:
        suffix = ".alert"
        runs = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
        there = f"runs with alerts: {', '.join(runs)}" if runs else "no run has any"
        raise ConfigError(
            f"run {run.name} has no alerts to serve ({there}); choose one with --run, or make "
            "some: broker demo",
            run=run.name,
        )


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything is loaded.

    Raises
    ------
    ConfigError
        If it is taken, or the address is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, the server sends without Nagle's wait, which costs 40 ms an answer.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port or "
            "BROKER_SERVE__PORT",
            port=port,
        ) from error
    return listening


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
