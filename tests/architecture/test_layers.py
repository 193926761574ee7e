"""Who may import what, and who may read the environment."""

import ast
import subprocess
import sys
from pathlib import Path

import broker

PACKAGE = Path(broker.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Library -> where it may be imported.
HOMES = {
    "pyspark": ("spark/", "streaming/", "batch/"),
    "happybase": ("store/hbase.py",),
    "thriftpy2": ("store/hbase.py",),
    "kafka": ("topics/kafka",),
    "py4j": ("local/split.py", "spark/", "streaming/", "batch/"),
    "psutil": ("batch/", "local/", "science/", "streaming/", "spark/", "cli/", "ops/"),
    "fastapi": ("api/", "portal/"),
    "starlette": ("api/", "portal/"),
}


def imports(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def environment_reads(path):
    source = path.read_text(encoding="utf-8")
    if "environ" not in source and "getenv" not in source:
        return
    for node in ast.walk(ast.parse(source)):
        text = ast.unparse(node) if isinstance(node, ast.Call | ast.Subscript) else ""
        if text.startswith(("os.getenv(", "os.environ.get(", "getenv(", "environ.get(")):
            yield text
        if text.startswith("os.environ[") and isinstance(node.ctx, ast.Load):
            yield text


def test_packages_import_only_from_layers_below():
    lint = Path(sys.executable).parent / "lint-imports"

    done = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_library_is_imported_only_where_it_is_at_home():
    strangers = [
        (library, str(path.relative_to(PACKAGE)))
        for path in FILES
        for library in imports(path) & set(HOMES)
        if not str(path.relative_to(PACKAGE)).startswith(HOMES[library])
    ]

    assert not strangers


def test_only_the_configuration_reads_the_environment():
    reads = {
        str(path.relative_to(PACKAGE)): found
        for path in FILES
        if path != PACKAGE / "config.py" and (found := list(environment_reads(path)))
    }

    assert not reads


def test_help_loads_no_heavy_library():
    heavy = {"pyspark", "numba", "astropy", "matplotlib", "scipy", "kafka", "happybase"}
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from broker.cli.main import cli\n"
        "for name in cli.list_commands(None):\n"
        "    cli.get_command(None, name)\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
        f"print(*sorted({heavy!r} & set(sys.modules)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == ""
