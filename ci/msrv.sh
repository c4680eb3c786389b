#!/usr/bin/env bash
# The library builds with the manifest's rust-version. Where that compiler cannot be had, clippy's
# table of when things became stable stands in for it.
set -euo pipefail
cd "$(dirname "$0")/.."
msrv=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
grep -q "Rust $msrv" README.md || { echo "README.md does not name Rust $msrv" >&2; exit 1; }
if timeout 120 rustup toolchain install "$msrv" --profile minimal >/dev/null 2>&1; then
    cargo "+$msrv" check --quiet --lib --all-features --target-dir "${CARGO_TARGET_DIR:-target}/msrv"
    echo "builds with $(rustc "+$msrv" --version)"
else
    cargo clippy --lib --all-features -- -A clippy::all -D clippy::incompatible_msrv
fi
# The resolver picks dependencies by rust-version: none may ask for more than we promise.
cargo metadata --format-version 1 --all-features --filter-platform x86_64-unknown-linux-gnu | python3 -c "
import json, sys
data = json.load(sys.stdin)
msrv = tuple(int(n) for n in '$msrv'.split('.'))
by_id = {p['id']: p for p in data['packages']}
nodes = {n['id']: n for n in data['resolve']['nodes']}
todo, seen = [data['resolve']['root']], set()
while todo:
    one = todo.pop()
    if one in seen: continue
    seen.add(one)
    todo += [d['pkg'] for d in nodes[one]['deps'] if any(k['kind'] is None for k in d['dep_kinds'])]
bad = [(by_id[i]['name'], by_id[i]['rust_version']) for i in seen
       if by_id[i]['rust_version'] and tuple(int(n) for n in by_id[i]['rust_version'].split('.'))[:2] > msrv]
print(f'{len(seen)} packages in the normal dependency tree, none asks for more than Rust $msrv' if not bad else bad)
sys.exit(bool(bad))
"
