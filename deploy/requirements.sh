# Sourced by quickstart.sh and test.sh: installs what this machine lacks, or says what to install.
# Debian and Ubuntu are known; elsewhere each function names the package to bring.

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 3; }

# as_root COMMAND…: runs it as root, by sudo where we are not
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        die "This needs root, and there is no sudo. Run as root: $*"
    fi
}

# apt_install PACKAGE…
apt_install() {
    command -v apt-get >/dev/null 2>&1 || die "This machine has no apt-get. Install what matches the Debian package(s): $*"
    say "Installing $* …"
    as_root apt-get update -qq </dev/null || say "apt-get update failed; going on with the package lists at hand."
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null \
        || die "apt-get could not install $*. Install it by hand and run this again."
}

has_postgres() {
    command -v initdb >/dev/null 2>&1 && return
    for initdb in /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb; do
        [ -x "$initdb" ] && return
    done
    return 1
}

# The server's binaries alone: no cluster of the distribution's is created or started.
need_postgres() {
    has_postgres && return
    say "PostgreSQL is missing. Its server programs are installed; no database of the distribution's is made or started."
    apt_install postgresql-common
    # Left so afterwards: an upgrade of the package would create the cluster after all.
    as_root sed -i -E 's/^#?\s*create_main_cluster\s*=.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    apt_install postgresql
    has_postgres || die "postgresql is installed, and there is still no initdb under /usr/lib/postgresql. Set Postgres__BinPath to its folder."
}

has_dotnet() {
    command -v dotnet >/dev/null 2>&1 && dotnet --list-sdks 2>/dev/null | grep -q '^10\.'
}

need_dotnet() {
    export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
    has_dotnet && return
    export DOTNET_ROOT="$HOME/.dotnet"
    export PATH="$DOTNET_ROOT:$PATH"
    has_dotnet && return
    say "The .NET 10 SDK is missing. It is installed into $DOTNET_ROOT by Microsoft's dotnet-install script."
    command -v curl >/dev/null 2>&1 || apt_install curl ca-certificates
    install_script="$(mktemp)"
    curl -fsSL https://dot.net/v1/dotnet-install.sh -o "$install_script" \
        || die "The script could not be downloaded. Install the .NET 10 SDK (https://dot.net/download) and run this again."
    bash "$install_script" --channel 10.0 --install-dir "$DOTNET_ROOT" || die "The .NET 10 SDK could not be installed (https://dot.net/download)."
    rm -f "$install_script"
    has_dotnet || die "The SDK in $DOTNET_ROOT does not answer to dotnet --list-sdks."
}

# .NET reads Unicode data from ICU; minimal images lack it. Any version will do.
need_icu() {
    ldconfig -p 2>/dev/null | grep -q 'libicuuc\.so' && return
    command -v apt-cache >/dev/null 2>&1 || die "The ICU library (libicu) is missing. Install it and run this again."
    as_root apt-get update -qq </dev/null || true
    icu="$(apt-cache search --names-only '^libicu[0-9]+$' | cut -d' ' -f1 | sort -V | tail -1)"
    [ -n "$icu" ] || die "The ICU library (libicu) is missing. Install it and run this again."
    apt_install "$icu"
}

need_node() {
    if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
        say "Node.js is missing; tests use it to run OpenAI's own client."
        apt_install nodejs npm
    fi
}
