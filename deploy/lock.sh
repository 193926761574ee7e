#!/bin/sh
# Writes deploy/requirements.lock anew: the newest packages that fit pyproject.toml and each other,
# with the hashes of all their files, so that one lock serves several systems and Pythons.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python -m venv "$work/venv"
"$work/venv/bin/python" -m pip --disable-pip-version-check --quiet install --upgrade pip pip-tools
"$work/venv/bin/pip-compile" --quiet --upgrade --generate-hashes --extra test --strip-extras \
    --allow-unsafe --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
    --no-emit-trusted-host --output-file "$work/requirements.lock" pyproject.toml
cp "$work/requirements.lock" deploy/requirements.lock
