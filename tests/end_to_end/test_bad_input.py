"""Bad packets, bad images and a bad module, by the command line: each ends in one counted place."""

import dataclasses
import io
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import fastavro
import numpy as np
import pytest
import sim_packets

from broker.alerts.packet import decode_sim, encode_sim
from broker.imaging.message import decode_raw, encode_image
from broker.topics.publish import read_all

ROOT = Path(__file__).resolve().parents[2]
RUN = "bad-input"
N_GOOD = 20
MODULE = '''"""A module with a mistake."""

import pandas as pd

from broker.science import Column, science_module


@science_module(
    version="1.0.0",
    outputs=(Column("mistake", "float32", "nJy", "Nothing."),),
)
def raises(psf_flux: pd.Series) -> pd.DataFrame:
    """Always fail."""
    raise ValueError("the mistake of this module")
'''
NAN, BEYOND = float("nan"), -91.0


def ztf_packet(packet, **changes):
    reader = fastavro.reader(io.BytesIO(packet))
    (alert,) = list(reader)
    alert["candidate"] |= changes
    file = io.BytesIO()
    fastavro.writer(file, reader.writer_schema, [alert])
    return file.getvalue()


def lsst_packet(packet, **changes):
    version = int.from_bytes(packet[1:5], "big")
    path = ROOT / "schemas" / "lsst" / f"{version // 100}.{version % 100}.avsc"
    schema = fastavro.parse_schema(json.loads(path.read_text("utf-8")))
    alert = fastavro.schemaless_reader(io.BytesIO(packet[5:]), schema)
    alert["diaSource"] |= changes
    file = io.BytesIO(packet[:5])
    file.seek(5)
    fastavro.schemaless_writer(file, schema, alert)
    return file.getvalue()


def sim_packet(packet, **changes):
    alert = decode_sim(packet)
    alert["diaSource"] |= changes
    return encode_sim(alert)


def bad_packets(survey, good, changed):
    """Return bad packets and a word of the reason that is to be given for each."""
    bad = {
        b"": "the message is empty",
        random.Random(survey).randbytes(400): "begins with",
        good[: len(good) // 2]: "truncated",
        b"\x07" + good[1:]: "begins with",
        changed(good, ra=NAN): "ra is missing or NaN",
        changed(good, dec=BEYOND): "dec is -91.0, not between -90 and 90",
    }
    if survey != "ztf":  # a container brings its schema
        bad[b"\x00\x00\x00\x00\x01" + good[5:]] = f"schema id 1 is not known for survey {survey}"
    return bad


def changed_image(message, *, visit, **changes):
    raw = decode_raw(message)
    calibration = dataclasses.replace(raw.calibration, visit=raw.calibration.visit + visit)
    if "band" in changes:
        calibration = dataclasses.replace(calibration, band=changes.pop("band"))
    return encode_image(dataclasses.replace(raw, calibration=calibration, **changes))


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """The contributed modules, and one with a mistake."""
    folder = tmp_path_factory.mktemp("contributed") / "science_modules"
    shutil.copytree(ROOT / "science_modules", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "raises").mkdir()
    (folder / "raises" / "module.py").write_text(MODULE, encoding="utf-8")
    return folder


class Stream:
    """What was sent, and what became of it."""

    def __init__(self, broker, topics, folder, modules):
        self._broker, self.topics, self._folder, self._modules = broker, topics, folder, modules
        self.bad, self.repeats, self.without_template = {}, [], []
        self.sent = Counter()

    def broker(self, *arguments, code=0):
        settings = {
            "BROKER_SCIENCE__MODULES": str(self._modules),
            "BROKER_SCIENCE__FAILURES_TO_QUARANTINE": "1000",
            # Its simulated sky is not to replace the one of other runs.
            "BROKER_CATALOG__PATH": str(self._folder / "catalogs"),
        }
        return self._broker("--run", RUN, *arguments, code=code, **settings)

    def send(self, topic, packets):
        """Publish packets as files, by the command."""
        files = []
        for packet in packets:
            files.append(self._folder / f"{topic}-{self.sent[topic]}")
            files[-1].write_bytes(packet)
            self.sent[topic] += 1
        said = self.broker("replay", *files, "--to", topic, "--json").json
        assert said["packets"] == len(packets)

    def places(self, topic):
        """Return coordinates by packet, as the topic has them."""
        found = {}
        for message in read_all(self.topics, f"run.{RUN}.{topic}"):
            found.setdefault(message.value or b"", []).append(message.coordinate)
        return found

    def rows(self):
        said = self.broker("ledger", "--audit", "--json").json
        assert said["problems"] == []
        assert said["unread"] == 0
        assert said["total"]["missing"] == 0
        names = ("consumed", "stored", "duplicates", "deadLetters", "noTemplate")
        return {
            row["topic"].removeprefix(f"run.{RUN}."): tuple(row[name] for name in names)
            for row in said["rows"]
        }

    def letters(self):
        return {
            (row["topic"], row["partition"], row["offset"]): row
            for row in self.broker("dead-letter", "list", "--json").json
        }


def send_packets(stream, folder):
    surveys = {"ztf": ztf_packet, "lsst": lsst_packet, "sim": sim_packet}
    for survey, changed in surveys.items():
        if survey == "sim":
            good = [
                sim_packets.sim_packet(number, is_moving=True) for number in range(1, N_GOOD + 1)
            ]
        else:
            out = folder / survey
            stream.broker("simulate", "packets", "--survey", survey, "-n", N_GOOD, "--out", out)
            good = [file.read_bytes() for file in sorted(out.iterdir())]
        bad = bad_packets(survey, good[0], changed)
        stream.bad[f"alerts.{survey}"] = bad
        stream.send(f"alerts.{survey}", [*good[: N_GOOD // 2], *bad, good[3], *good[N_GOOD // 2 :]])


def send_images(stream):
    """Two simulated images with their templates; then what is wrong with others."""
    stream.broker("simulate", "night", "--preset", "test", "--seed", 5, "--json")
    good = sorted(stream.places("ccd-images"))
    stream.sent["ccd-images"] = len(good)
    damaged = bytearray(good[0])
    damaged[len(damaged) // 2] ^= 0xFF
    blank = np.zeros_like(decode_raw(good[0]).pixels)
    stream.bad["ccd-images"] = {
        b"": "empty",
        bytes(damaged): "damaged",
        changed_image(good[0], visit=500, pixels=blank): "100% of the image is masked",
    }
    stream.without_template = [changed_image(good[0], visit=600, band="z")]
    stream.send("ccd-images", [*stream.bad["ccd-images"], *stream.without_template, good[1]])


@pytest.fixture(scope="module")
def stream(broker, kafka_topics, modules, tmp_path_factory):
    """All queries, run over good and bad."""
    folder = tmp_path_factory.mktemp("files")
    stream = Stream(broker, kafka_topics, folder, modules)
    send_packets(stream, folder)
    send_images(stream)
    done = stream.broker("stream", "all", "--until-idle", "--json").json
    assert {query["restarts"] for query in done["queries"].values()} == {0}
    return stream


def test_each_message_ends_in_exactly_one_place(stream):
    rows = stream.rows()

    alerts = rows["alerts.sim"][0] - stream.sent["alerts.sim"]
    assert alerts > 0, "the images gave alerts"
    assert rows == {
        "ccd-images": (7, 2, 1, 3, 1),
        "alerts.ztf": (N_GOOD + 7, N_GOOD, 1, 6, 0),
        "alerts.lsst": (N_GOOD + 8, N_GOOD, 1, 7, 0),
        "alerts.sim": (N_GOOD + 8 + alerts, N_GOOD + alerts, 1, 7, 0),
    }


def test_each_bad_message_is_a_dead_letter_with_its_place_stage_and_reason(stream, tmp_path):
    letters = stream.letters()

    expected = {}
    for topic, bad in stream.bad.items():
        places = stream.places(topic)
        for packet, word in bad.items():
            (at,) = places[packet]
            expected[at.topic, at.partition, at.offset] = (packet, word, topic)
    assert set(letters) == set(expected)
    for at, (packet, word, topic) in expected.items():
        letter = letters[at]
        assert set(letter) == {"topic", "partition", "offset", "stage", "reason", "bytes"}
        assert letter["bytes"] == len(packet)
        assert letter["stage"] == ("images" if topic == "ccd-images" else "decode")
        assert word in letter["reason"]
        assert " at 0x" not in letter["reason"], "the same whenever the batch is repeated"


def test_a_dead_letter_keeps_the_bytes(stream, tmp_path):
    packet = next(p for p, word in stream.bad["alerts.lsst"].items() if word.startswith("ra is"))
    (at,) = stream.places("alerts.lsst")[packet]

    said = stream.broker("dead-letter", "show", at, "--raw", tmp_path / "bad", "--json").json

    assert (tmp_path / "bad").read_bytes() == packet
    assert "ra is" in said["reason"]
    text = stream.broker("dead-letter", "show", at).out
    assert said["reason"] in text


def test_the_table_of_dead_letters_can_be_read_by_a_person(stream):
    text = stream.broker("dead-letter", "list", "--stage", "images").out

    assert text.count("ccd-images") == 3
    assert "damaged" in text


def test_a_module_that_raises_costs_its_own_columns_only(stream):
    columns = {}
    for variant in ("slim", "full"):
        said = stream.broker(
            "topic", "read", "solar-system", "--json", *(["--full"] if variant == "full" else [])
        ).out.splitlines()
        alerts = [json.loads(line) for line in said]
        assert len(alerts) >= N_GOOD
        for alert in alerts:
            modules = alert["modules"]
            assert modules["raises"] == {"version": "1.0.0", "status": "failed", "mistake": None}
            assert {m["status"] for name, m in modules.items() if name != "raises"} == {"ok"}
        columns[variant] = alerts
    assert len(columns["slim"]) == len(columns["full"])

    stored = stream.broker("alert", "show", "7", "--survey", "sim", "--json").json
    assert "raises@1.0.0" not in stored["outputs"]
    assert "rise_rate@1.0.0" in stored["outputs"] or "context@1.0.0" in stored["outputs"]
    rows = stream.broker("module", "status", "--json").json
    status = {row["name"]: row for row in rows}
    assert {name for name, row in status.items() if row["failures"]} == {"raises"}
    assert (status["raises"]["version"], status["raises"]["quarantined"]) == ("1.0.0", False)
    assert "the mistake of this module" in status["raises"]["reason"]


def test_what_is_sent_again_and_still_bad_is_a_new_dead_letter(stream):
    before, letters = stream.rows(), stream.letters()
    chosen = [
        stream.places("alerts.ztf")[next(iter(stream.bad["alerts.ztf"]))][0],
        stream.places("ccd-images")[list(stream.bad["ccd-images"])[1]][0],
    ]

    sent = stream.broker("dead-letter", "reinject", *chosen, "--json").json
    assert sent == [
        {"topic": f"run.{RUN}.alerts.ztf", "sent": 1},
        {"topic": f"run.{RUN}.ccd-images", "sent": 1},
    ]
    stream.broker("stream", "all", "--until-idle")

    after = stream.rows()
    for topic, row in before.items():
        more = 1 if topic in ("alerts.ztf", "ccd-images") else 0
        consumed, stored, duplicates, dead, without = row
        assert after[topic] == (consumed + more, stored, duplicates, dead + more, without)
    again = stream.letters()
    assert len(again) == len(letters) + 2
    assert {at: again[at] for at in letters} == letters
