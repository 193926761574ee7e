"""The contributions that the settings name: what runs in the stream, and what commands speak of."""

from pathlib import Path

from broker.catalog.registry import provided_matches
from broker.config import Config
from broker.science.registry import Contributions, find_contributions


def installed(config: Config, path: str | Path = "") -> Contributions:
    """Return modules and filters, with the columns of every catalogue that is defined here.

    Parameters
    ----------
    config : Config
        Names the folder of modules, that of filters given as one expression, and the catalogues.
    path : str or Path
        Another folder of modules; the users' filters are then left out.

    Raises
    ------
    ConfigError
        See `find_contributions`.
    """
    return find_contributions(
        path or config.science.modules,
        catalogs=provided_matches(config.catalog_path),
        filters="" if str(path) else config.filters_path,
    )
