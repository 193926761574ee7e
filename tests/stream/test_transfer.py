"""A transfer made by Spark: stopped, gone on with, equal to what one process makes."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from broker.archive import Archive
from broker.batch.transfer import Question
from broker.batch.transfer_folder import transfers_of
from broker.batch.transfer_job import make_part, make_transfer
from broker.batch.transfer_verify import verify_folder


@pytest.fixture
def config(stack_config, tmp_path):
    made = dataclasses.replace(stack_config, home=tmp_path, run="moved")
    folder = made.run_path("nights")
    folder.mkdir(parents=True)
    for seed, night in enumerate(("20251110", "20251111", "20251112")):
        rng = np.random.default_rng(seed)
        table = pa.table(
            {
                "survey": ["ztf"] * 300,
                "diaSourceId": [f"{seed}-{i}" for i in range(300)],
                "isPublic": rng.random(300) < 0.9,
                "ra": rng.uniform(0, 360, 300),
                "dec": rng.uniform(-80, 80, 300),
                "snr": pa.array(rng.uniform(0, 20, 300), pa.float32()),
                "topics": pa.array([["a"]] * 300),
            }
        )
        pq.write_table(table, folder / f"{night}.parquet", row_group_size=100)
    return made


def test_a_stopped_transfer_goes_on_and_equals_what_one_process_makes(spark, config):
    transfers = transfers_of(config)
    question = Question("20251110", "20251112", where="snr > 5", form="avro")
    name = transfers.add(question)
    transfer = transfers.open(name)
    transfer.stop()
    stopped = make_transfer(spark, config, name)
    plan, nights = transfer.opened()
    archive = Archive(config.archive_path, config.the_run)
    by_hand = [make_part(transfer, plan, archive, *task) for task in transfer.tasks(nights)]
    for part in (by_hand[0], by_hand[2]):  # what a machine that was lost had not made
        (transfer.folder / part.name).unlink()

    transfers.add(question)
    done = make_transfer(spark, config, name)

    assert (stopped["state"], stopped["partsDone"]) == ("stopped", 0)
    assert (done["state"], done["partsDone"]) == ("done", 3)
    assert transfer.manifest()["files"] == [part.as_json() for part in by_hand]
    assert [row["problem"] for row in verify_folder(transfer.folder)] == [""] * 4
