#!/usr/bin/env bash
# Installs what is missing (PostgreSQL's server programs, the .NET 10 SDK), builds, and runs `peftserver demo`:
# fine-tunes the sample model on this machine and chats with it. Arguments go to the demo: --data DIR, --port N, --once.
set -euo pipefail
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repository/deploy/requirements.sh"

need_postgres
need_icu
need_dotnet

say "Building (the first time downloads libtorch) …"
program="$repository/src/PeftServer.Cli"
log="$(mktemp)"
if ! dotnet build "$program" -c Release -nologo -v quiet >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    die "The build failed; see above."
fi
rm -f "$log"

exec "$program/bin/Release/net10.0/peftserver" demo "$@"
