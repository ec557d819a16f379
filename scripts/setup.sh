# Sourced by the other scripts: makes a virtual environment with what the project needs, and
# sees to it that RabbitMQ and Redis are installed. Usage: . scripts/setup.sh; setup_venv DIR PYTHON; ...
# shellcheck shell=bash

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Run a command as root, where that is possible without asking anybody.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 1
    fi
}

apt_install() {
    command -v apt-get >/dev/null || return 1
    say "Installing $* with apt-get"
    # Keep Debian from starting a server of its own for everybody.
    as_root apt-get update -qq >&2 &&
        as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$@" >&2
}

# A CPython that is supported: the one that BRIDGETASK_PYTHON names, or python3, or the newest.
find_python() {
    local candidate
    for candidate in "${BRIDGETASK_PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "Python 3.11 or newer is needed: install it, or name it in BRIDGETASK_PYTHON"
}

# setup_venv DIR PYTHON [PIP ARGUMENT ...]: a virtual environment with the project in it. It is
# made again when what it is made from has changed.
setup_venv() {
    local dir=$1 python=$2 stamp
    shift 2
    stamp=$("$python" -VV; cksum pyproject.toml; pwd; echo "$@")
    if [ -f "$dir/.stamp" ] && [ "$(cat "$dir/.stamp")" = "$stamp" ]; then return; fi
    say "Setting up $dir with $("$python" -V)"
    rm -rf "$dir"
    if ! "$python" -m venv "$dir" >/dev/null 2>&1; then
        rm -rf "$dir"
        apt_install python3-venv ||
            die "Python's venv module is missing: install it (Debian, Ubuntu: apt-get install python3-venv)"
        "$python" -m venv "$dir"
    fi
    # pip 25.1 is the first that knows dependency groups.
    "$dir/bin/python" -m pip install -q --disable-pip-version-check 'pip>=25.1'
    "$dir/bin/python" -m pip install -q --disable-pip-version-check "$@"
    printf '%s\n' "$stamp" > "$dir/.stamp"
}

# setup_rabbitmq: make sure that a RabbitMQ server can be started, or that one is named.
setup_rabbitmq() {
    [ -z "${BRIDGETASK_AMQP_URL:-}" ] || return 0
    if have_rabbitmq; then return 0; fi
    apt_install rabbitmq-server || true
    have_rabbitmq || die "RabbitMQ is missing. Install it (Debian, Ubuntu: apt-get install rabbitmq-server;
macOS: brew install rabbitmq), or name a running one in BRIDGETASK_AMQP_URL."
}

have_rabbitmq() {
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null ||
        [ -x /usr/sbin/rabbitmq-server ]
}

# setup_redis: make sure that a Redis server can be started. Tests start several of their own, even
# where BRIDGETASK_REDIS_URL names one.
setup_redis() {
    if have_redis; then return 0; fi
    apt_install redis-server || true
    have_redis || die "Redis is missing. Install it (Debian, Ubuntu: apt-get install redis-server;
macOS: brew install redis)."
}

have_redis() {
    command -v redis-server >/dev/null && command -v redis-cli >/dev/null
}
