#!/bin/sh
# Writes deploy/requirements.lock anew: the newest packages that fit pyproject.toml and each other,
# with the hashes of all their files, so that one lock serves several systems and Pythons.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python -m venv "$work/venv"
"$work/venv/bin/python" -m pip --disable-pip-version-check --quiet install uv
"$work/venv/bin/uv" pip compile --quiet --no-cache --universal --python-version 3.11 --upgrade \
    --generate-hashes --extra test --no-header --no-annotate --no-emit-package nightjar-broker \
    --output-file "$work/requirements.lock" pyproject.toml
cp "$work/requirements.lock" deploy/requirements.lock
