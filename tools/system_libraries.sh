#!/bin/sh
# system_libraries.sh PYTHON
# Sees to it that the package, run by that Python, finds libopus and libopusfile.
set -eu

python=$1
here=$(dirname "$0")
find_libraries='from xiaozhi_trio.audio import libopus; libopus.bindings()'

if ! "$python" -c "$find_libraries" 2>/dev/null; then
    sh "$here/install_system_package.sh" libopusfile0 opusfile
    "$python" -c "$find_libraries"
fi
