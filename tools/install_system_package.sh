#!/bin/sh
# install_system_package.sh APT_PACKAGE BREW_PACKAGE
# Installs one package with the system's package manager; says what to install, and fails,
# where there is none that we know or no right to use it.
set -eu

apt_package=$1
brew_package=$2

give_up() {
    echo "$1" >&2
    echo "Install it yourself and try again: apt install $apt_package (Debian, Ubuntu)," >&2
    echo "brew install $brew_package (macOS), or what your system calls it." >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

may_be_root() {
    [ "$(id -u)" -eq 0 ] && return 0
    command -v sudo >/dev/null 2>&1 || return 1
    # Nobody could type a password without a terminal.
    [ -t 0 ] || sudo -n true 2>/dev/null
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 \
        install --yes --no-install-recommends "$apt_package"
}

if [ "$(uname -s)" = Darwin ]; then
    command -v brew >/dev/null 2>&1 || give_up "$brew_package is missing, and so is Homebrew."
    echo "installing $brew_package with Homebrew"
    brew install "$brew_package" || give_up "Homebrew could not install $brew_package."
elif command -v apt-get >/dev/null 2>&1; then
    may_be_root || give_up "$apt_package is missing, and only root may install it."
    echo "installing $apt_package with apt-get"
    # The lists of a fresh machine are empty or old; asking for new ones takes long.
    apt_install || { as_root apt-get update && apt_install; } ||
        give_up "apt-get could not install $apt_package."
else
    give_up "$apt_package is missing, and this system's package manager is not known here."
fi
