"""What a Python worker keeps from batch to batch: connections, catalogues, contributed code."""

import atexit

from broker.alerts.adapters import find_adapters, look_for_schemas
from broker.alerts.outgoing import packet_format
from broker.catalog.registry import Catalogs, provided_matches
from broker.config import Config
from broker.notices import Window
from broker.science import Runner
from broker.science.installed import installed
from broker.spark.daemon import keep_what_is_loaded
from broker.spark.enrich import Enricher
from broker.spark.notice_board import NoticeBoard
from broker.store.alerts import AlertStore
from broker.store.hbase import HBaseTables
from broker.store.notices import NoticeStore
from broker.store.quarantine import Quarantine
from broker.watchlists import WatchBoard, WatchBook

_enrichers: dict[Config, Enricher] = {}
_refillers: dict[tuple[Config, tuple[str, ...]], Enricher] = {}


def enricher_for(config: Config) -> Enricher:
    """Return this process's enricher for some settings, made with the first batch."""
    if config not in _enrichers:
        _enrichers[config] = make_enricher(config)
        atexit.register(_enrichers[config].close)
        keep_what_is_loaded()
    _enrichers[config].adapters = find_adapters()  # new schemas come between two batches
    return _enrichers[config]


def refiller_for(config: Config, names: tuple[str, ...]) -> Enricher:
    """Return this process's enricher that runs some modules only, made with the first batch."""
    if (config, names) not in _refillers:
        made = _refillers[config, names] = make_enricher(config, names)
        atexit.register(made.close)
    return _refillers[config, names]


def notice_window(config: Config) -> Window:
    """Return what the settings call near a notice."""
    at = config.notices
    return Window(at.credible_level, at.days_before, at.days_after)


def make_enricher(config: Config, names: tuple[str, ...] = ()) -> Enricher:
    """Return an enricher on the servers that the settings name.

    Parameters
    ----------
    config : Config
        The settings.
    names : tuple of str
        Run these modules only, and what they read from, without filters; empty means all.

    Raises
    ------
    ConfigError
        If contributions or catalogues cannot be used.
    """
    run = config.the_run
    look_for_schemas(config.home)
    tables = HBaseTables(
        config.hbase.host, config.hbase.thrift_port, timeout_s=config.hbase.timeout_s
    )
    catalogs = provided_matches(config.catalog_path)
    contributions = installed(config)
    if names:
        contributions = contributions.only(names)
    science = config.science
    runner = Runner(
        contributions,
        catalogs=catalogs,
        isolate=science.isolate,
        ms_per_alert=science.ms_per_alert,
        min_batch_s=science.min_batch_s,
        memory_mb=science.memory_mb,
    )
    return Enricher(
        run=run,
        adapters=find_adapters(),
        catalogs=Catalogs(config.catalog_path),
        contributions=contributions,
        runner=runner,
        store=AlertStore(tables, run),
        packets=packet_format(contributions.qualified_columns, catalogs),
        quarantine=Quarantine(tables, run, failures_to_quarantine=science.failures_to_quarantine),
        notices=NoticeBoard(NoticeStore(tables, run), run, notice_window(config)),
        watchlists=WatchBoard(WatchBook(config.run_path("watchlists")).index, contributions),
    )
