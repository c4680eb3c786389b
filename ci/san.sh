#!/usr/bin/env bash
# ThreadSanitizer, and AddressSanitizer with LeakSanitizer, on the tests, in release, with no suppressions.
# ci/san.sh [thread|address]; both if none is named.
#
# ThreadSanitizer must see inside the standard library, or it takes the drop of an `Arc`, a `Mutex` or a
# channel for races. That needs the library's sources with the compiler that belongs to them, which rustup
# does not have everywhere. Debian has both; they are unpacked, not installed. It lacks the sanitizer's
# runtime, which nightly has.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${CARGO_TARGET_DIR:-$PWD/target}/san
debian=$work/debian
host=x86_64-unknown-linux-gnu

# Not `config`, `faults` and `worker_pool`, whose work is done by processes that they start, nor `traits`, whose
# work is done when it is compiled, nor `memory`, whose allocator counts what a sanitizer adds.
tests=$({ find tests -maxdepth 1 -name '*.rs' -printf '%f\n'; find tests -mindepth 2 -name main.rs -printf '%h\n'; } |
    sort | sed -e 's/\.rs$//' -e 's,.*/,,' -e '/^\(config\|examples\|faults\|memory\|traits\|worker_pool\)$/d' -e 's/^/--test /')

main() {
    package
    rustup run nightly rustc --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal
    runtime=$(rustup run nightly rustc --print sysroot)/lib/rustlib/$host/lib
    case ${1:-both} in
        thread) thread ;;
        address) address ;;
        both) thread; address ;;
        *) echo "usage: $0 [thread|address]" >&2 && exit 2 ;;
    esac
}

# The same package without what only the examples depend on, which would take most of the time to build.
package() {
    mkdir -p "$work/package"
    sed -e '/^members = /d' -e '/^exclude = /d' -e '/^\(clap\|indicatif\) = /d' \
        Cargo.toml >"$work/package/Cargo.toml"
    cp Cargo.lock "$work/package"
    ln -sfn "$PWD/src" "$PWD/tests" "$PWD/examples" "$PWD/docs" "$PWD/README.md" "$work/package"
}

thread() {
    unpack_debian
    cp "$runtime/librustc-nightly_rt.tsan.a" "$debian/usr/lib/rustlib/$host/lib/librustc-stable_rt.tsan.a"
    LD_LIBRARY_PATH="$debian/usr/lib/x86_64-linux-gnu" RUSTC="$debian/usr/bin/rustc" RUSTC_BOOTSTRAP=1 \
        RUSTFLAGS=-Zsanitizer=thread TSAN_OPTIONS=halt_on_error=1 CARGO_TARGET_DIR="$work/thread" \
        run ThreadSanitizer cargo test -Zbuild-std=std,panic_abort
}

address() {
    RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=1 CARGO_TARGET_DIR="$work/address" \
        run "AddressSanitizer, LeakSanitizer" cargo +nightly test
}

run() {
    local name=$1 began=$SECONDS ran log="$work/log"
    shift
    # shellcheck disable=SC2086
    set -- "$@" --manifest-path "$work/package/Cargo.toml" --release --all-features --target "$host" --lib $tests
    "$@" --no-run
    ran=$SECONDS
    if ! "$@" 2>&1 | tee "$log"; then
        echo "san: $name FAILED after $((SECONDS - ran)) s" >&2
        exit 1
    fi
    awk -v name="$name" -v build=$((ran - began)) -v took=$((SECONDS - ran)) '
        /^test result: ok/ { tests += $4; files++ }
        END {
            printf "san: %s: %d tests of %d binaries in %d s, built in %d s\n", name, tests, files, took, build
            exit tests < 100
        }
    ' "$log"
}

unpack_debian() {
    [ ! -e "$debian/complete" ] || return 0
    rm -rf "$debian"
    mkdir -p "$debian/packages"
    [ "$(id -u)" != 0 ] || apt-get update -qq
    local std llvm
    std=$(dependency libstd-rust-web-dev libstd-rust-web)
    llvm=$(dependency "$std" libllvm)
    (cd "$debian/packages" && apt-get download -qq -o APT::Sandbox::User=root \
        rust-web-src rustc-web libstd-rust-web-dev "$std" "$llvm")
    for package in "$debian"/packages/*.deb; do dpkg -x "$package" "$debian"; done
    rm -r "$debian/packages"
    touch "$debian/complete"
}

# The package called like $2 that $1 depends on.
dependency() {
    apt-cache depends "$1" | sed -n "s/^ *Depends: \($2.*\)/\1/p" | head -n 1
}

mkdir -p "$work"
main "$@"
