"""What a contribution's source may not do is found, with its line, before it is loaded."""

from pathlib import Path

import pytest

import science_modules
from broker.errors import ConfigError
from broker.science import find_contributions
from broker.science.checks import check_module
from broker.science.static_check import check_source, harmful_folders

HARMFUL = {
    "import socket": "imports socket, which is the network",
    "from urllib.request import urlopen": "urllib.request.urlopen, which is the network",
    "import requests as r": "imports requests",
    "import subprocess": "a process",
    "import os": "imports os",
    "from os import system": "imports os.system",
    "from threading import Thread": "a thread",
    "from concurrent.futures import ThreadPoolExecutor": "a thread",
    "import ctypes": "cannot be read before it runs",
    "from broker.store.hbase import HBaseTables": "is none of broker.",
    "X = open('/etc/passwd')": "uses open, which is a file",
    "X = eval('1')": "uses eval",
    "X = __import__('socket')": "uses __import__",
    "X = np.load('x.npy')": "uses numpy.load, which is a file",
    "from numpy import loadtxt as text\nX = text('x')": "uses numpy.loadtxt",
    "X = pd.read_csv('x.csv')": "uses pandas.read_csv",
    "from pathlib import Path\nX = Path('x').read_text()": "uses .read_text",
    "X = pd.DataFrame().to_parquet('x')": "uses .to_parquet",
    "X = ().__class__.__base__.__subclasses__()": "uses .__subclasses__",
    "import sys\nX = sys.modules['os']": "uses sys.modules",
}
HARMLESS = (
    "import math, json, io, sys\nfrom urllib.parse import quote\nfrom os.path import join",
    "from scipy.special import log_ndtr\nfrom astropy.timeseries import LombScargle",
    "from broker.units import BANDS\nfrom broker.science.cuts import all_of",
    "X = pd.DataFrame({'a': [1]}).rename(columns={'a': 'b'}).to_numpy()",
    "def open(x): return x",
)
SETUP = """
from pathlib import Path
HERE = Path(__file__).parent
{before}

def weights():
    {body}

@science_module(version="1.0.0", outputs=(Column("aValue", "float64", "", "A."),), setup=weights)
def a(psf_flux, *, model):
    '''Return a value.'''
    return psf_flux * model
"""


def findings(tmp_path, text):
    file = tmp_path / "module.py"
    file.write_text("import numpy as np\nimport pandas as pd\n" + text, encoding="utf-8")
    return check_source(file)


@pytest.mark.parametrize("text", HARMFUL)
def test_what_is_harmful_is_found_with_its_line(tmp_path, text):
    found = findings(tmp_path, text)

    assert found
    assert HARMFUL[text] in str(found[-1])
    assert found[-1].line == 2 + len(text.splitlines())


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_harmless_is_not(tmp_path, text):
    found = findings(tmp_path, text)

    assert [f for f in found if "def open" not in text] == []


@pytest.mark.parametrize(
    ("before", "body", "words"),
    [
        ("", "return float((HERE / 'w.txt').read_text())", None),
        ("import json", "return json.loads((HERE / 'w').read_text(encoding='utf-8'))['w']", None),
        ("import numpy as np", "return np.load(Path(__file__).with_name('w.npy'))", None),
        ("", "with open(HERE / 'w.txt') as f:\n        return float(f.read())", None),
        ("def read():\n    return (HERE / 'w').read_text()", "return float(read())", None),
        ("", "return Path('/etc/w').read_text()", "uses .read_text"),
        ("", "return (HERE / '..' / 'w.txt').read_text()", "uses .read_text"),
        ("", "return open(HERE / 'w.txt', 'w')", "uses open"),
        ("", "return (HERE / 'w.txt').write_text('1')", "uses .write_text"),
        ("X = (HERE / 'w').read_text()", "return 1.0", "uses .read_text"),
    ],
)
def test_a_set_up_reads_files_beside_it_and_nothing_else(tmp_path, before, body, words):
    found = findings(tmp_path, SETUP.format(before=before, body=body))

    assert len(found) == (words is not None)
    assert all(words in str(finding) for finding in found)


def test_a_file_that_the_module_imports_is_read_too(tmp_path):
    (tmp_path / "helper.py").write_text("import socket\n", encoding="utf-8")
    (tmp_path / "train.py").write_text("import os\n", encoding="utf-8")

    (found,) = findings(tmp_path, "from .helper import fit\n")

    assert Path(found.file).name == "helper.py"


def test_a_harmful_folder_is_not_loaded(write_modules, module):
    folder = write_modules(bad="raise RuntimeError('loaded')\nimport socket")

    with pytest.raises(ConfigError, match=r"bad/module.py, line 6: it imports socket"):
        find_contributions(folder, catalogs={})
    with pytest.raises(ConfigError, match="RuntimeError: loaded"):
        find_contributions(folder, catalogs={}, check_source=False)


def test_the_check_of_a_module_names_every_line_and_does_not_load_it(write_modules):
    folder = write_modules(bad="import socket\nimport subprocess\nraise RuntimeError('loaded')")

    results = check_module("bad", str(folder))

    assert [r.ok for r in results] == [False, False]
    assert "imports socket" in results[0].message
    assert "imports subprocess" in results[1].message


def test_all_that_is_installed_is_harmless():
    assert harmful_folders() == {}
    extra = Path(next(iter(science_modules.__path__))) / "extra"
    assert harmful_folders(extra) == {}
