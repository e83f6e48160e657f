#!/bin/sh
# Prints the path of a Python that can make the virtual environment: 3.11 or newer, with
# venv and ensurepip. PYTHON names one to be used instead of those that are looked for.
# Debian and Ubuntu ship ensurepip apart; where only that is missing, it is installed.
set -eu

here=$(dirname "$0")
can_make_environments='import ensurepip, venv'

# A shim of a version manager may be on the path without an interpreter behind it, so each
# candidate is run rather than looked up.
new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# The interpreter itself, for what a shim runs depends on the folder it is called in.
print_path() {
    "$1" -c 'import sys; print(sys.executable)'
}

incomplete=""
for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
    new_enough "$candidate" || continue
    if "$candidate" -c "$can_make_environments" >/dev/null 2>&1; then
        print_path "$candidate"
        exit 0
    fi
    [ -n "$incomplete" ] || incomplete=$candidate
done

if [ -z "$incomplete" ]; then
    echo "Python 3.11 or newer is needed, but ${PYTHON:-none on the path} is not it." >&2
    echo "Install it (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install" >&2
    echo "python@3.13), or name one: make PYTHON=/path/to/python3.12" >&2
    exit 1
fi

version=$("$incomplete" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
sh "$here/install_system_package.sh" "python$version-venv" "python@$version" >&2
"$incomplete" -c "$can_make_environments"
print_path "$incomplete"
