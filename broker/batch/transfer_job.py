"""The Spark job that makes a transfer: each task one file, each file once."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from broker.alerts.adapters import look_for_schemas
from broker.archive import Archive
from broker.batch.transfer import Plan
from broker.batch.transfer_files import Part, write_part
from broker.batch.transfer_folder import Transfer, transfers_of, write_json
from broker.batch.transfer_packets import packet_columns
from broker.config import Config


def make_transfer(spark: SparkSession, config: Config, name: str) -> dict[str, Any]:
    """Make what a transfer lacks, and its list of files when it has all; return its state.

    Parts that are there are not made again, whichever machine made them; a stop is seen before
    each part.

    Parameters
    ----------
    spark : SparkSession
    config : Config
        Names the run.
    name : str
        The transfer's id.

    Raises
    ------
    ConfigError
        If there is no such transfer, or its tables have changed.
    """
    transfer = transfers_of(config).open(name)
    if transfer.manifest() is not None:
        return transfer.state()
    plan, nights = transfer.opened()
    tasks = transfer.tasks(nights)
    done = transfer.parts()
    lacking = [(i, *task) for i, task in enumerate(tasks) if task[0] not in done]
    if lacking:
        rows = spark.createDataFrame(
            lacking, "number int, name string, file string, groups array<int>"
        )
        # One partition a part: what is lost with a machine is one part.
        parts = rows.repartitionByRange(len(lacking), "number")
        parts.mapInArrow(_worker(config, name), "name string, rows long").collect()
    if set(transfer.parts()) >= {task[0] for task in tasks}:
        transfer.finish(plan, tasks)
    return transfer.state()


def _worker(config: Config, name: str) -> Any:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        look_for_schemas(config.home)
        transfer = transfers_of(config).open(name)
        plan, _ = transfer.opened()
        archive = Archive(config.archive_path, config.the_run)
        for batch in batches:
            for row in batch.to_pylist():
                if transfer.is_stopped:
                    return
                part = make_part(transfer, plan, archive, row["name"], row["file"], row["groups"])
                yield pa.RecordBatch.from_pydict({"name": [part.name], "rows": [part.rows]})

    return work


def make_part(
    transfer: Transfer, plan: Plan, archive: Archive, name: str, path: str, groups: list[int]
) -> Part:
    """Make one file of a transfer; what says that it is whole is written last."""
    tables, absent = [], 0
    with pq.ParquetFile(path) as file:
        for group in groups:
            found = plan.read(file, group)
            more, missed = packet_columns(archive, found, plan.packet_columns)
            absent += missed
            tables.append(plan.shaped(found, more))
    table = pa.concat_tables(tables) if tables else plan.schema.empty_table()
    part = write_part(table, transfer.folder / name, without_packet=absent)
    write_json(transfer.folder / f"{name.partition('.')[0]}.json", part.as_json())
    return part
