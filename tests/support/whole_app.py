"""What tests of access share: the whole application, and every address that it has."""

from types import SimpleNamespace

from broker.api import make_app
from broker.api.annotations import add_annotations
from broker.api.app import PREFIX
from broker.api.push import add_push
from broker.api.tap import add_tap
from broker.api.transfer import add_transfers
from broker.api.watchlists import add_watchlists
from broker.batch.transfer_folder import Transfers
from broker.ops.annotators import Intake
from broker.ops.push import PushBook
from broker.ops.tokens import ANNOTATE, WATCH, Tokens
from broker.ops.watchlists import Keeper
from broker.portal import add_portal
from broker.watchlists import WatchBook


def whole_app(sources, folder):
    """Return the application as `broker serve` makes it, with what it keeps under a folder."""
    run = sources.run
    app = make_app(sources, requests_per_s=1e6, burst=1_000_000)
    transfers = Transfers(folder / "transfers", folder / "nights", run.name)
    add_transfers(app, transfers, sources.archive, prefix=PREFIX)
    push = PushBook(folder / "push")
    add_push(app, push, prefix=PREFIX)
    annotators = Tokens(folder / "annotators", scopes=(ANNOTATE,))
    intake = Intake(sources.tables, sources.topics, run)
    add_annotations(app, annotators, intake, prefix=PREFIX)
    owners = Tokens(folder / "owners", scopes=(WATCH,))
    book = WatchBook(folder / "watchlists")
    keeper = Keeper(book, sources.topics, run, sources.contributions)
    add_watchlists(app, keeper, owners, prefix=PREFIX)
    add_tap(app)
    add_portal(app)
    return SimpleNamespace(
        app=app, annotators=annotators, owners=owners, keeper=keeper, push=push,
        transfers=transfers,
    )  # fmt: skip


def addresses(app):
    """Return method and path of everything that the application answers, sorted."""
    found = {(method, path) for path, methods in _flat(app.routes) for method in methods - {"HEAD"}}
    return sorted(found)


def _flat(routes, prefix=""):
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from _flat(inner.routes, prefix + route.include_context.prefix)
        elif getattr(route, "methods", None):
            yield prefix + route.path, route.methods
