"""The same alert has the same bytes live, replayed in other batches, and reprocessed by batch."""

import dataclasses

import pytest

from broker.archive import Archive
from broker.batch.reprocess import reprocess
from broker.config import ArchiveConfig, ScienceConfig, StreamConfig
from broker.replay.player import from_archive, replay
from broker.simulation.packets import simulate_packets
from broker.store.layouts import STAMP
from broker.streaming.query import run_queries
from broker.topics.topic import Message, TopicSettings

N_EACH = 120
SURVEYS = ("ztf", "lsst")
MODULES = ("rise_rate", "decline", "flare", "early_supernova", "agn_variability", "context")
OWN = """
from broker.science import Column, LightCurves, science_module
import pandas as pd

@science_module(version="{version}", outputs=(Column("epochCount", "int32", "", "Epochs."),))
def epochs(history: LightCurves) -> pd.DataFrame:
    '''Count epochs.'''
    return pd.DataFrame({{"epochCount": history.count * {factor}}})
"""


def cells(tables, run):
    """Return the modules' cells of every alert, as the bytes they are."""
    found = tables.table(run.table("alert")).scan(columns=[b"m"])
    return {key: row for key, row in found if row}


@pytest.fixture(scope="module")
def live(stack, kafka_topics, hbase_tables, tmp_path_factory):
    config = dataclasses.replace(
        stack,
        home=tmp_path_factory.mktemp("live"),
        run="t-once",
        stream=StreamConfig(idle_s=0.0, max_alerts_per_trigger=90),
        archive=ArchiveConfig(str(tmp_path_factory.mktemp("archive"))),
    )
    for survey in SURVEYS:
        topic = config.the_run.alerts_topic(survey)
        kafka_topics.create(topic, TopicSettings(partitions=2))
        kafka_topics.send(topic, [Message(p) for p in simulate_packets(survey, N_EACH, 7)])
    run_queries(config, ["archive", "alerts"], until_idle=True)
    return config


@pytest.fixture(scope="module")
def night(live):
    (found,) = Archive(live.archive_path, live.the_run).nights()
    return found


def test_a_replay_in_other_batches_gives_the_same_bytes(
    live, night, kafka_topics, hbase_tables, tmp_path
):
    again = dataclasses.replace(
        live,
        home=tmp_path,
        run="t-again",
        stream=StreamConfig(idle_s=0.0, max_alerts_per_trigger=1000),
    )
    archive = Archive(live.archive_path, live.the_run)
    for survey in SURVEYS:
        topic = again.the_run.alerts_topic(survey)
        kafka_topics.create(topic, TopicSettings(partitions=3))
        replay(kafka_topics, from_archive(archive, survey=survey, night=night), to=topic)
    run_queries(again, ["alerts"], until_idle=True)

    first, second = (cells(hbase_tables, c.the_run) for c in (live, again))
    assert len(first) == len(SURVEYS) * N_EACH
    assert first == second


def test_a_batch_over_the_archive_gives_the_same_bytes_again(live, night, hbase_tables, spark):
    before = cells(hbase_tables, live.the_run)
    table = hbase_tables.table(live.the_run.table("alert"))
    mine = {
        key: {column: b"none" for column in row if column[2:].decode().split("@")[0] in MODULES}
        for key, row in before.items()
    }
    table.put([(key, row) for key, row in mine.items() if row], STAMP)
    assert cells(hbase_tables, live.the_run) != before

    done = reprocess(spark, live, nights=[night], modules=MODULES)

    total = len(SURVEYS) * N_EACH
    assert (done.packets, done.stored, done.not_stored) == (total, total, 0)
    assert done.failures == {}
    assert cells(hbase_tables, live.the_run) == before
    assert reprocess(spark, live, nights=[night], modules=MODULES).stored == total
    assert cells(hbase_tables, live.the_run) == before


def test_a_version_beside_is_filled_in_for_an_old_night(live, night, hbase_tables, spark, tmp_path):
    for name, version, factor in (("epochs", "1.0.0", 1), ("epochs@next", "1.1.0", 2)):
        (tmp_path / name).mkdir()
        text = OWN.format(version=version, factor=factor)
        (tmp_path / name / "module.py").write_text(text, encoding="utf-8")
    config = dataclasses.replace(live, science=ScienceConfig(modules=str(tmp_path)))
    before = cells(hbase_tables, live.the_run)

    done = reprocess(spark, config, nights=[night], modules=["epochs@next"])

    after = cells(hbase_tables, live.the_run)
    assert done.modules == ("epochs@1.1.0",)
    for key, row in after.items():
        added = row.keys() - before[key].keys()
        assert added == {b"m:epochs@1.1.0"}
        assert {c: v for c, v in row.items() if c not in added} == before[key]
