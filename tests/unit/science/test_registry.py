"""Contributions are found, ordered, and refused before any alert is touched."""

import pickle

import pytest

from broker.errors import ConfigError
from broker.science import find_contributions, load_module, sample_alerts
from broker.science.samples import run_module


def find(folder):
    return find_contributions(folder, catalogs={})


def test_modules_run_after_those_they_read_from(write_modules, module):
    body = "return pd.DataFrame({'%sValue': psf_flux})"
    folder = write_modules(
        alpha=module("alpha", body % "alpha", inputs="psf_flux, beta_value"),
        beta=module("beta", body % "beta", inputs="psf_flux, gamma_value"),
        gamma=module("gamma", body % "gamma"),
    )

    found = find(folder)

    assert [m.name for m in found.modules] == ["gamma", "beta", "alpha"]
    names = [column.name for column in found.output_columns]
    assert names == ["gammaValue", "betaValue", "alphaValue"]
    assert next(iter(found.qualified_columns)) == "gamma@1.0.0:gammaValue"
    assert [m.name for m in found.needed_by(found.module("alpha"))] == ["gamma", "beta"]


def test_a_circle_names_all_files_in_it(write_modules, module):
    folder = write_modules(
        alpha=module("alpha", "pass", inputs="beta_value"),
        beta=module("beta", "pass", inputs="alpha_value"),
        aside=module("aside", "pass", inputs="beta_value"),
    )

    with pytest.raises(ConfigError, match=r"circle.*alpha/module.py and .*beta/module.py") as error:
        find(folder)

    assert "aside/module.py" not in error.value.message


def test_an_input_that_no_one_provides_names_the_file(write_modules, module):
    folder = write_modules(alpha=module("alpha", "pass", inputs="psf_flux, no_such_thing"))

    with pytest.raises(ConfigError, match=r"alpha/module.py: no one provides.*no_such_thing"):
        find(folder)


def test_a_name_found_twice_names_both_files(write_modules, module):
    same = module("alpha", "pass")

    with pytest.raises(ConfigError, match=r"'alpha'.*first/module.py and in .*second/module.py"):
        find(write_modules(first=same, second=same))


def test_an_output_found_twice_names_both_files(write_modules, module):
    other = module("beta", "pass").replace("betaValue", "alphaValue")

    with pytest.raises(ConfigError, match=r"'alphaValue'.*a/module.py and in .*b/module.py"):
        find(write_modules(a=module("alpha", "pass"), b=other))


def test_an_output_may_not_have_the_name_of_a_canonical_column(write_modules, module):
    source = module("alpha", "pass").replace("alphaValue", "psfFlux")

    with pytest.raises(ConfigError, match="'psfFlux' is declared twice: in the broker itself"):
        find(write_modules(alpha=source))


def test_a_topic_found_twice_names_both_files(write_modules):
    source = """
    @topic_filter(topic="same", max_pass_fraction=0.1)
    def chosen(psf_flux):
        return psf_flux > 0
    """

    with pytest.raises(ConfigError, match=r"'same'.*a/module.py and in .*b/module.py"):
        find(write_modules(a=source, b=source))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise RuntimeError('oh no')", "broken/module.py cannot be imported: RuntimeError: oh no"),
        ("import no_such_package", "cannot be imported: ModuleNotFoundError"),
        ("x = 1", "declares no science module"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(write_modules, source, words):
    with pytest.raises(ConfigError, match=words):
        find(write_modules(broken=source))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere is no folder"):
        find(tmp_path / "nowhere")


def test_a_history_cannot_be_had_of_a_number(write_modules, module):
    source = module("alpha", "pass", inputs="psf_flux: LightCurves")

    with pytest.raises(ConfigError, match="psf_flux cannot be had as light-curves"):
        find(write_modules(alpha=source))


def test_a_contribution_imported_elsewhere_is_not_found_twice(write_modules, module):
    folder = write_modules(
        alpha=module("alpha", "return pd.DataFrame({'alphaValue': psf_flux})"),
        beta="from ..alpha.module import alpha\n"
        + module("beta", "return pd.DataFrame({'betaValue': alpha_value})", inputs="alpha_value"),
    )

    assert [m.name for m in find(folder).modules] == ["alpha", "beta"]


def test_contributions_cross_processes_with_their_words(write_modules, module):
    found = find(write_modules(alpha=module("alpha", "return psf_flux * 2.0")))

    copy = pickle.loads(pickle.dumps(found))

    assert copy.module("alpha").doc == "Return a value."
    assert copy.output_columns == found.output_columns
    assert copy.module("alpha")(21.0) == 42.0


def test_one_module_can_be_loaded_and_run_alone(write_modules, module):
    folder = write_modules(
        alpha=module("alpha", "return psf_flux * 2.0"),
        beta=module("beta", "return alpha_value + 1.0", inputs="alpha_value"),
        broken=module("broken", "raise ValueError('oh no')"),
    )
    alerts = sample_alerts(5, catalogs={}, cutouts=False)

    got = run_module("beta", alerts, path=str(folder), catalogs={})

    flux = alerts.column("psfFlux").to_numpy()
    assert got["betaValue"].tolist() == pytest.approx(2.0 * flux + 1.0)
    assert load_module(folder / "alpha")(4.0) == 8.0
    with pytest.raises(ConfigError, match="broken: ValueError: oh no"):
        run_module("broken", alerts, path=str(folder), catalogs={})
    with pytest.raises(
        ConfigError, match="no science module 'delta'; there are alpha, broken, beta"
    ):
        run_module("delta", alerts, path=str(folder), catalogs={})
