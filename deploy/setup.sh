#!/bin/sh
# Makes .venv with the locked packages and this project in it, and fetches the pinned jars.
# What is already there, by content, is left as it is: a second run takes a second, no network.
set -eu
cd "$(dirname "$0")/.."

stop() {
    echo "$1" >&2
    exit 1
}

# Java first: it is the one that a person must install by hand most often.
java_is="install a Java 17 runtime (Debian, Ubuntu: openjdk-17-jre-headless) and put it on PATH"
command -v java > /dev/null || stop "Java is not installed: $java_is"
java_version=$(java -version 2>&1 | sed -n 's/.*version "\(1\.\)\{0,1\}\([0-9]*\).*/\2/p' | head -n 1)
case "$java_version" in
    17 | 18 | 19 | 20 | 21) ;;
    *) stop "java on PATH is Java ${java_version:-of an unknown version}; 17 to 21 is needed: $java_is" ;;
esac

find_python() {
    fits='import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
    if [ -n "${PYTHON:-}" ]; then
        "$PYTHON" -c "$fits" 2> /dev/null && echo "$PYTHON" && return
        stop "PYTHON=$PYTHON is no Python 3.11 to 3.13 with venv: name another, or leave it out"
    fi
    for name in python3 python3.13 python3.12 python3.11; do
        if "$name" -c "$fits" > /dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    stop "Python 3.11 to 3.13 with venv is not installed: install it (Debian, Ubuntu: python3 and python3-venv) and put it on PATH"
}

mkdir -p .work
key=$(cat deploy/requirements.lock pyproject.toml deploy/setup.sh | cksum | tr ' ' -)
ready=.venv/ready-$key
# A venv cannot be moved: the one of a copied checkout would point to the old place.
here='import os, sys; sys.exit(not os.path.samefile(sys.prefix, ".venv"))'
if ! .venv/bin/python -c "$here" > /dev/null 2>&1; then
    python=$(find_python)
    "$python" -m venv --clear .venv
fi
if [ ! -e "$ready" ]; then
    echo "installing Python packages (a minute or two)" >&2
    pip=".venv/bin/python -m pip --disable-pip-version-check --quiet"
    # Byte code is made when a module is first used: of most it never is.
    $pip install --no-compile --require-hashes -r deploy/requirements.lock
    $pip install --no-deps --no-build-isolation -e .
    rm -f .venv/ready-*
    touch "$ready"
fi

.venv/bin/python -m broker.local.jars
