#!/usr/bin/env bash
# The library builds with the oldest versions that the manifest allows, those of dependencies'
# dependencies included: whoever has an old lock file gets what Cargo.toml promises.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}/minimal-versions
mkdir -p "$target/crate"
rm -rf "$target"/crate/*
cp -r src examples docs README.md "$target/crate"
# Without workspace and dev-dependencies, whose own demands would raise the versions.
sed -e '/^\[workspace\]/,/^$/d' -e '/^\[dev-dependencies\]/,$d' Cargo.toml >"$target/crate/Cargo.toml"
printf '[workspace]\n' >>"$target/crate/Cargo.toml"
cd "$target/crate"
# RUSTC_BOOTSTRAP: stable cargo then takes `-Z`; the build itself is a stable one.
RUSTC_BOOTSTRAP=1 cargo update --quiet -Z minimal-versions
# tracing-subscriber's sharded-slab allows 1.0, with which it does not compile for anyone.
cargo update --quiet lazy_static --precise 1.5.0
cargo tree --quiet --all-features -e normal --depth 1
for features in --no-default-features --all-features; do
    RUSTFLAGS="-D warnings" cargo check --quiet --lib --locked $features --target-dir "$target/build"
done
echo "the library builds with the oldest versions that Cargo.toml allows"
