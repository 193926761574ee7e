"""A module reads no secret: its process is told none, and its source may not reach for one."""

import pytest

from broker.errors import ConfigError
from broker.science import Runner, find_contributions
from broker.science.samples import sample_alerts
from broker.science.static_check import check_source

SETUP = """
from pathlib import Path
HERE = Path(__file__).parent

def weights():
    {body}

@science_module(version="1.0.0", outputs=(Column("aValue", "float64", "", "A."),), setup=weights)
def a(psf_flux, *, model):
    return psf_flux * model
"""
FILE = "kafka-users/broker.properties"
REACHES = {
    "by the settings": "from broker.config import load_config",
    "by the reader of users' files": "from broker.topics.kafka_access import read_user",
    "by the keeper of tokens": "from broker.ops.tokens import Tokens",
    "by the certificates": "from broker.local.secure import prepare",
    "by the environment": "import os\nX = os.environ",
    "by a name of the environment": "from os import environ",
    "by a file": f"X = open('/home/x/{FILE}').read()",
    "by a path": f"from pathlib import Path\nX = Path('/home/x/{FILE}').read_bytes()",
    "by numbers": f"X = np.fromfile('/home/x/{FILE}')",
    "by a table": f"X = pd.read_csv('/home/x/{FILE}')",
    "by its parent": "X = open('/proc/self/environ').read()",
    "by memory": f"X = np.memmap('/home/x/{FILE}')",
    "by a link": f"from pathlib import Path\nPath('w').symlink_to('/home/x/{FILE}')",
    "by a set-up": SETUP.format(body=f"return open('/home/x/{FILE}').read()"),
    "by a set-up, upwards": SETUP.format(body=f"return (HERE / '..' / '{FILE}').read_text()"),
    "by a set-up, at home": SETUP.format(body="return (Path.home() / 'w').read_text()"),
    "by a set-up, from the top": SETUP.format(body=f"return (HERE / '/home/{FILE}').read_text()"),
}

LOOKS = """
def found():
    with open("/proc/self/environ", "rb") as file:
        said = file.read()
    words = b" ".join(open(f"/proc/self/{name}", "rb").read() for name in ("cmdline", "environ"))
    return float(b"BROKER_" in words or b"swordfish" in said + words)

@science_module(version="1.0.0", outputs=(Column("looksValue", "float64", "", "A."),))
def looks(psf_flux: pd.Series) -> pd.DataFrame:
    '''Say whether a secret is in sight.'''
    import os
    links = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if n.isdigit()
             and os.path.exists(f"/proc/self/fd/{n}")]
    value = found() or float(any("properties" in link for link in links))
    return pd.DataFrame({"looksValue": np.full(len(psf_flux), value)})
"""


@pytest.mark.parametrize("way", REACHES)
def test_a_source_that_reaches_for_a_secret_is_not_loaded(tmp_path, way):
    file = tmp_path / "module.py"
    file.write_text("import numpy as np\nimport pandas as pd\n" + REACHES[way], encoding="utf-8")
    assert check_source(file)


def test_no_secret_is_in_sight_of_a_running_module(write_modules, tmp_path, monkeypatch):
    secret = tmp_path / "broker.properties"
    secret.write_text("swordfish")
    secret.chmod(0o600)
    monkeypatch.setenv("BROKER_KAFKA__USER_FILE", str(secret))
    monkeypatch.setenv("BROKER_HOME", str(tmp_path))
    monkeypatch.setenv("SOME_TOKEN", "swordfish")
    folder = write_modules(looks=LOOKS)
    with pytest.raises(ConfigError, match="which is a file"):
        find_contributions(folder, catalogs={})
    trusted = find_contributions(folder, catalogs={}, check_source=False)
    with secret.open(), Runner(trusted) as runner:  # even where the parent has it open
        outcome = runner.run(sample_alerts(5, seed=1))
    assert outcome.status == {"looks": "ok"}, outcome.reasons
    assert set(outcome.outputs.column(0).to_pylist()) == {0.0}
