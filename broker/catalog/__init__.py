"""Reference catalogues: which there are, rows on disk, cones and crossmatch."""

from broker.catalog.cone import cone_search
from broker.catalog.registry import Catalogs, definitions, install_catalog

__all__ = ["Catalogs", "cone_search", "definitions", "install_catalog"]
