"""What a contribution may not import or call, by name, and what each of these is."""

from collections.abc import Collection

_NETWORK, _FILE = "the network", "a file"
_PROCESS, _THREAD, _CODE = "a process", "a thread", "code that cannot be read before it runs"


def _all(reason: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), reason)


PURE = frozenset(("os.path", "urllib.parse", "concurrent.futures.Future"))
"""Names below a forbidden one that are harmless."""

OWN_PACKAGES = frozenset(
    ("broker.science", "broker.units", "broker.errors", "broker.types", "broker.alerts.columns")
)
"""What a contribution may import of the broker: no store, no topics, no settings."""

IMPORTS = {
    **_all(
        _NETWORK,
        "socket ssl http urllib requests aiohttp httpx urllib3 ftplib smtplib imaplib poplib "
        "telnetlib socketserver xmlrpc websocket websockets paramiko pycurl kafka confluent_kafka "
        "happybase astroquery pyvo boto3 fsspec s3fs asyncio select selectors grpc zmq "
        "astropy.utils.data",
    ),
    **_all(
        _FILE,
        "tempfile shutil glob fileinput mmap sqlite3 dbm shelve zipfile tarfile io.open io.FileIO "
        "h5py pyarrow.parquet pyarrow.fs pyarrow.dataset fitsio os pwd",
    ),
    **_all(_PROCESS, "subprocess multiprocessing pty signal resource posix psutil ray dask fork"),
    **_all(_THREAD, "threading _thread concurrent sched"),
    **_all(
        _CODE,
        "ctypes cffi importlib builtins runpy code codeop imp pkgutil zipimport gc inspect "
        "dill cloudpickle marshal",
    ),
}
"""Modules, and names in them, that may not be imported."""

NAMES = {
    "open": _FILE,
    "input": "a person at a keyboard",
    "breakpoint": "a person at a keyboard",
    **_all(_CODE, "exec eval compile __import__ __builtins__ __loader__"),
}
"""Built-in names that may not be used."""

CALLS = {
    **_all(
        _FILE,
        "numpy.load numpy.save numpy.savez numpy.savez_compressed numpy.savetxt numpy.loadtxt "
        "numpy.genfromtxt numpy.fromfile numpy.memmap numpy.DataSource joblib.load joblib.dump "
        "pickle.load pickle.dump json.dump json.load torch.load torch.save io.open io.FileIO "
        "gzip.open bz2.open lzma.open codecs.open astropy.io.fits.open astropy.io.fits.getdata "
        "astropy.table.Table.read onnxruntime.InferenceSession onnx.load scipy.io "
        "broker.science.load_onnx broker.science.load_sklearn broker.science.models "
        "pandas.read_csv pandas.read_parquet pandas.read_pickle pandas.read_json pandas.read_hdf "
        "pandas.read_table pandas.read_feather pandas.read_excel pandas.read_fwf pandas.read_sql "
        "pandas.HDFStore pandas.ExcelWriter",
    ),
    **_all(_PROCESS, "os"),
    **_all(_THREAD, "joblib.Parallel"),
    **_all(_CODE, "sys.modules sys.meta_path sys.path sys._getframe pickle.loads"),
    **_all(_NETWORK, "urllib.request numpy.DataSource.open pandas.read_html"),
    "numpy.random.seed": "a state that other modules share; use default_rng with a fixed seed",
}
"""Names of imported modules that may not be used."""

METHODS = {
    **_all(
        _FILE,
        "open read_text read_bytes write_text write_bytes mkdir rmdir unlink touch symlink_to "
        "iterdir rglob tofile to_csv to_parquet to_pickle to_hdf to_feather to_excel to_sql "
        "savefig hardlink_to",
    ),
    **_all(_NETWORK, "urlopen urlretrieve from_name of_site of_address"),
    **_all(_PROCESS, "Popen fork"),
    **_all(
        _CODE,
        "__globals__ __subclasses__ __builtins__ __import__ __loader__ __code__ __bases__ __mro__",
    ),
}
"""Names after a dot that may not be used, whatever is before it."""

FILE_READERS = frozenset(
    _all(
        _FILE,
        "open read_text read_bytes numpy.load numpy.loadtxt numpy.genfromtxt numpy.fromfile "
        "numpy.memmap joblib.load pickle.load json.load torch.load gzip.open bz2.open lzma.open "
        "astropy.io.fits.open astropy.io.fits.getdata astropy.table.Table.read onnx.load "
        "onnxruntime.InferenceSession scipy.io pandas.read_csv pandas.read_parquet "
        "pandas.read_json pandas.read_table pandas.read_feather broker.science.load_onnx "
        "broker.science.load_sklearn broker.science.models",
    )
)
"""Of these, what a function given as `setup=` may use on files that lie beside it."""


def longest_match(name: str, rules: Collection[str]) -> str:
    """Return the longest rule that a dotted name is or lies below; empty if there is none."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if (rule := ".".join(parts[:end])) in rules:
            return rule
    return ""
