#!/usr/bin/env bash
# Compares a push and a drain with another commit, in one process: bench/compare/run.sh COMMIT
# Both versions are linked into one program, which runs them in turn, batch by batch. What the
# machine does meanwhile, and where a process happens to lie in memory, falls on both alike: a
# difference of 2 % shows, where separate processes differ by 30 %. Takes about a minute.
set -euo pipefail
cd "$(dirname "$0")/../.."
commit=$(git rev-parse --short "${1:?a commit to compare with}")
out=$PWD/target/compare
rm -rf "$out/base" "$out/src"
mkdir -p "$out/base" "$out/src"
git archive "$commit" | tar -x -C "$out/base"
# Cargo tells two packages of one name apart by their versions.
sed -i '0,/^version = .*/s//version = "0.0.1-base"/' "$out/base/Cargo.toml"
cp bench/compare/main.rs "$out/src/main.rs"
cat >"$out/Cargo.toml" <<TOML
[package]
name = "compare"
edition = "2024"

[workspace]
exclude = ["base"]

[dependencies]
base = { path = "base", package = "batchlink" }
this = { path = "../..", package = "batchlink" }
opentelemetry = { version = "0.33", default-features = false, features = ["trace"] }
TOML
cargo build --quiet --release --manifest-path "$out/Cargo.toml" --target-dir "$out/target"
echo "base: $commit; this: the working tree"
"$out/target/release/compare" "${@:2}"
