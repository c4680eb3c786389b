#!/usr/bin/env bash
# What we depend on: licences, sources and bans (deny.toml), known vulnerabilities and yanked
# versions if the list of them can be had, nothing unused, nothing twice, the oldest versions that we
# allow, and that the public interface keeps what the last release promised.
#
# Needs minutes on a bare machine, to build its tools. Where a tool is there already, half a minute.
# SEMVER_BASELINE=commit compares the interface with that instead of the newest tag `v*`.
set -euo pipefail
cd "$(dirname "$0")/.."

tool() {
    cargo "$1" --version >/dev/null 2>&1 || cargo install --quiet --locked "cargo-$1"
}

tool deny
cargo deny --workspace check licenses bans sources
beside=({loom-tests,shuttle-tests,fuzz}/Cargo.toml)
# The workspaces beside it use fewer licences than deny.toml allows.
for manifest in "${beside[@]}"; do
    cargo deny --manifest-path "$manifest" --workspace --config deny.toml \
        check -A license-not-encountered -A license-exception-not-encountered licenses bans sources
done

# The database is a git repository, not in any package registry: not every machine can fetch it.
if cargo deny fetch db 2>/dev/null; then
    for manifest in Cargo.toml "${beside[@]}"; do
        cargo deny --manifest-path "$manifest" --workspace --config deny.toml check advisories
    done
else
    printf '\n%s\n%s\n\n' \
        "!!! NOT CHECKED: known vulnerabilities. The RustSec advisory database cannot be fetched here" \
        "!!! (its host is not reachable). Run this script where it is before a release." >&2
fi

# The exceptions of deny.toml are for what no user builds.
excepted=$(sed -n 's/.*crate = "\([^"]*\)", allow.*/\1/p' deny.toml)
built=$(cargo tree --quiet --package batchlink --edges normal,build --all-features --prefix none | cut -d ' ' -f 1)
if grep -Fx "$excepted" <<<"$built"; then
    echo "its licence is allowed in deny.toml only because no user of batchlink builds it" >&2
    exit 1
fi

# Users build each dependency once.
twice=$(cargo tree --quiet -e normal --all-features --duplicates --depth 0 2>/dev/null)
[ -z "$twice" ] || { printf 'two versions in what users build:\n%s\n' "$twice" >&2; exit 1; }

tool machete
cargo machete

bash ci/minimal-versions.sh

baseline=${SEMVER_BASELINE:-$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true)}
if [ -n "$baseline" ]; then
    tool semver-checks
    cargo semver-checks --package batchlink --all-features --baseline-rev "$baseline"
else
    echo "interface: not compared, since nothing was released (no tag v*) that could be broken"
fi
