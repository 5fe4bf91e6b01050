# Sourced by the scripts that install what they need: deploy/quickstart and integration/run.
# For bash on Debian, Ubuntu, and (best effort) macOS with Homebrew.

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# need WHAT DEBIAN-PACKAGE [HOMEBREW-FORMULA]: installs the package unless WHAT is there: a command
# that can be found or, if it has several words, one that succeeds.
need() {
    local what=$1 package=$2 formula=${3:-$2}
    ! has "$what" || return 0
    printf '%s is missing: installing %s\n' "$what" "$package" >&2
    if has apt-get; then
        # Whether the package's own service starts (in a container it may not, which apt-get
        # calls an error) is of no importance: only the program is wanted.
        apt_install "$package" || true
    elif has brew; then
        brew install "$formula" >&2 || true
    else
        fail "cannot install $package here: neither apt-get nor brew was found"
    fi
    hash -r
    has "$what" || fail "$what is still missing: install $package"
}

has() {
    case $1 in
    *' '*) $1 >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

apt_install() {
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        has sudo || fail "run as root: apt-get install $1"
        as_root=(sudo)
    fi
    # dpkg wants the system's own folders in PATH.
    as_root+=(env "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive)
    "${as_root[@]}" apt-get install -y --no-install-recommends "$1" >&2 && return
    # The lists may be missing or stale.
    "${as_root[@]}" apt-get update >&2
    "${as_root[@]}" apt-get install -y --no-install-recommends "$1" >&2
}

# Rust is the one thing that is not installed: how to is a choice of yours.
need_rust() {
    if ! has cargo && [ -x "${HOME:-}/.cargo/bin/cargo" ]; then
        export PATH="$HOME/.cargo/bin:$PATH"
    fi
    has cargo || fail "cargo is missing: install Rust, https://rustup.rs"
    # The linker.
    need cc build-essential llvm
}
