#!/usr/bin/env bash
# The tests. Installs what is missing, builds, runs, and ends with a line "N passed, N failed".
#   bash deploy/test.sh               all but what is long
#   bash deploy/test.sh long          the rest (xunit trait Category=Long)
#   bash deploy/test.sh goldens DIR   the reference cases found in DIR, one test each
set -euo pipefail
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$repository/deploy/requirements.sh"
cd "$repository"

usage() {
    sed -n '3,5s/^# *//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

mode="${1:-default}"
limit=30m # for one project's tests
case "$mode" in
    default)
        [ $# -eq 0 ] || usage
        projects=(tests/*.Tests)
        filter=(--filter-not-trait Category=Long)
        ;;
    long)
        [ $# -eq 1 ] || usage
        projects=(tests/*.Tests)
        filter=(--filter-trait Category=Long)
        limit=300m
        ;;
    goldens)
        [ $# -eq 2 ] || usage
        [ -d "$2" ] || die "There is no folder $2."
        PEFTSERVER_GOLDENS="$(cd "$2" && pwd)"
        export PEFTSERVER_GOLDENS
        projects=(tests/PeftServer.Goldens.Tests)
        filter=()
        limit=300m # curves of real models are among them where the folder has these
        ;;
    *) usage ;;
esac

export HOME="${HOME:-/root}"
need_icu
need_dotnet
if [ "$mode" != goldens ]; then
    need_postgres
    need_node
    npm ci --prefix tests/PeftServer.EndToEnd.Tests/node --no-audit --no-fund --silent </dev/null \
        || die "npm ci failed in tests/PeftServer.EndToEnd.Tests/node."
fi

# No build server stays behind, and no compiler waits for one.
export MSBUILDDISABLENODEREUSE=1 DOTNET_CLI_USE_MSBUILD_SERVER=0
if [ "$mode" = goldens ]; then
    dotnet build "${projects[0]}" -c Release -nologo -v quiet -p:UseSharedCompilation=false </dev/null
else
    dotnet build PeftServer.sln -c Release -nologo -v quiet -p:UseSharedCompilation=false </dev/null
fi

results="$(mktemp -d)"
trap 'rm -rf "$results"' EXIT
passed=0
failed=0
skipped=0
problems=()

# attribute NAME FILE: the sum of that attribute over the assemblies of an xunit report
attribute() {
    { grep -o '<assembly [^>]*>' "$2" || true; } | { grep -o " $1=\"[0-9]*\"" || true; } \
        | awk -F'"' '{ sum += $2 } END { print sum + 0 }'
}

for project in "${projects[@]}"; do
    name="$(basename "$project")"
    report="$results/$name.xml"
    say ""
    say "== $name"
    code=0
    "$project/bin/Release/net10.0/$name" "${filter[@]}" --no-ansi --progress off --timeout "$limit" \
        --report-xunit-xml --report-xunit-xml-filename "$name.xml" --results-directory "$results" </dev/null || code=$?
    if [ ! -s "$report" ]; then
        problems+=("$name ended with code $code and without a report")
        failed=$((failed + 1))
        continue
    fi
    project_passed="$(attribute passed "$report")"
    project_failed=$(($(attribute failed "$report") + $(attribute errors "$report")))
    passed=$((passed + project_passed))
    failed=$((failed + project_failed))
    skipped=$((skipped + $(attribute skipped "$report")))
    if [ "$project_failed" -gt 0 ]; then
        problems+=("$name: $project_failed failed")
        while IFS= read -r test; do
            problems+=("  $test")
        done < <(grep -o '<test [^>]*result="Fail"[^>]*>' "$report" | sed -E 's/.* name="([^"]*)".*/\1/' | head -200)
    elif [ "$code" -ne 0 ] && [ "$code" -ne 8 ]; then # 8: no test matched
        problems+=("$name ended with code $code")
        failed=$((failed + 1))
    elif [ "$project_passed" -eq 0 ] && [ "$mode" != long ]; then
        problems+=("$name ran no test")
        failed=$((failed + 1))
    fi
done

if [ $((passed + failed)) -eq 0 ]; then
    problems+=("no test ran")
    failed=1
fi

say ""
if [ ${#problems[@]} -gt 0 ]; then
    say "Failed:"
    printf '%s\n' "${problems[@]}"
fi
if [ "$skipped" -gt 0 ]; then
    say "$passed passed, $failed failed, $skipped skipped"
else
    say "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ]
