#!/bin/bash
# The house in one command: ./x run, ./x test, ./x help. Installs what is missing first (Debian, Ubuntu), or says what is.
set -eEuo pipefail
called_from=$PWD
cd "$(dirname "$(readlink -f "$0")")"

help() {
    cat <<'END'
./x run [IMAGE...]   build frazil and mount a bcachefs volume read-only: the given image file or device (several for a
                     volume of several devices), or else a new one that it makes in a file
./x test             all tests, the quick ones first; ends with one line "N passed, N failed"
./x oracle IMAGE...  asks the real Linux 6.12 driver, in a virtual machine, what it thinks of bcachefs images (a volume of
                     several devices: joined by colons; more in oracle/README.md)
./x bench TABLE      what frazil costs beside its peers; TABLE is read, format or journal (bench/README.md)
./x help             this text

What is missing is installed with apt where there is apt; elsewhere you are told what to install.
END
}

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# ------------------------------------------------------------------------------------------------ what must be there

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else die "installing needs root: run as root:  $*"
    fi
}

# need COMMAND PACKAGE...: installs the Debian packages when the command is not there.
need() {
    local command=$1; shift
    command -v "$command" >/dev/null && return
    command -v apt-get >/dev/null || die "'$command' is missing: install it with your package manager (on Debian it is in: $*)"
    say "installing $* (for '$command')"
    apt_install "$@"
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null ||
        { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null; } ||
        die "apt could not install $*"
}

# Whether version $1 is at least version $2.
at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

need_rust() {
    local want have
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    if ! command -v cargo >/dev/null; then
        if ! command -v rustup >/dev/null && command -v apt-cache >/dev/null && ! apt-cache show rustup >/dev/null 2>&1; then
            as_root apt-get update -qq
            apt-cache show rustup >/dev/null 2>&1 || die "Rust is missing: install Rust $want or later from https://rustup.rs"
        fi
        command -v rustup >/dev/null || need rustup rustup
        rustup toolchain install stable --profile minimal --component clippy,rustfmt
        rustup default stable
    fi
    have=$(cargo --version | cut -d' ' -f2)
    at_least "$have" "$want" ||
        die "Rust $have is too old, $want or later is needed: with rustup run 'rustup update stable', or see https://rustup.rs"
}

need_build() {
    need cc gcc libc6-dev
    need_rust
}

need_fuse() {
    need fusermount3 fuse3
    [ -e /dev/fuse ] || as_root modprobe fuse || true
    [ -e /dev/fuse ] || die "there is no /dev/fuse: this kernel or container cannot mount with FUSE (in Docker: --device /dev/fuse --cap-add SYS_ADMIN)"
}

# What oracle/ boots its machines with. The kernel it downloads itself, the newest 6.12 that apt knows.
need_oracle() {
    PATH=$PATH:/usr/sbin:/sbin
    need qemu-system-x86_64 qemu-system-x86
    need setpriv util-linux
    need cpio cpio
    need modprobe kmod
    need xz xz-utils
    need busybox busybox-static
    # The package busybox has the same program with another linkage, which is of no use in an initramfs.
    ! ldd "$(command -v busybox)" 2>/dev/null | grep '=>' >/dev/null || apt_install busybox-static
    if [ -z "${FRAZIL_ORACLE_KERNEL:-}" ] && command -v apt-cache >/dev/null; then
        [ -n "$(apt-cache search --names-only '^linux-image-6[.]12[.].*-amd64')" ] || as_root apt-get update -qq
    fi
}

# ------------------------------------------------------------------------------------------------------------- run

run() {
    need_build
    need_fuse
    local device devices=()
    for device in "$@"; do
        [[ $device = /* ]] || device=$called_from/$device
        [ -e "$device" ] || die "$device does not exist"
        devices+=("$device")
    done
    cargo build --release --bin frazil >&2
    local bin=${CARGO_TARGET_DIR:-target}/release dir image
    dir=$(mktemp -d "${TMPDIR:-/tmp}/frazil.XXXXXX")
    trap 'rm -rf "$dir"' ERR
    if [ $# = 0 ]; then
        image=$dir/disk.img
        "$bin/frazil" format --size 1G "$image" >&2
    else
        image=$(IFS=:; printf '%s' "${devices[*]}")
    fi
    mkdir "$dir/mnt"
    "$bin/frazil" mount -o ro "$image" "$dir/mnt"
    trap - ERR
    cat <<END

$image
is mounted read-only at $dir/mnt. Try:

    ls -la $dir/mnt
    df -h $dir/mnt
    $bin/frazil show-super ${image%%:*}
    $bin/frazil stat --extents $image PATH      (this and other commands of its kind need no mount)

and when you are done:

    $bin/frazil umount $dir/mnt && rm -r $dir
END
}

# ------------------------------------------------------------------------------------------------------------ test

passed=0 failed=0 ignored=0

# stage NAME COMMAND...: runs tests and adds up what they report. A stage that fails without reporting a failed test
# (it did not build, a test process died) counts as one failure.
stage() {
    local name=$1 log status=0 sums p f i
    shift
    log=$(mktemp)
    say "== $name: $*"
    "$@" 2>&1 | tee "$log" >&2 || status=$?
    sums=$(sed 's/\x1b\[[0-9;]*m//g' "$log" | awk '
        # cargo test: "test result: ok. 3 passed; 0 failed; 1 ignored; ..."
        /^test result: / { for (n = 2; n <= NF; n++) { if ($n == "passed;") p += $(n-1); if ($n == "failed;") f += $(n-1); if ($n == "ignored;") i += $(n-1) } }
        # cargo nextest: "Summary [ 1.2s] 5 tests run: 4 passed (1 slow), 1 failed, 1 timed out, 2 skipped"
        /^ *Summary \[/ { for (n = 2; n <= NF; n++) { if ($n ~ /^passed/) p += $(n-1); if ($n ~ /^failed/ || $n == "timed") f += $(n-1); if ($n ~ /^skipped/) i += $(n-1) } }
        END { print p + 0, f + 0, i + 0 }')
    rm -f "$log"
    read -r p f i <<<"$sums"
    if [ "$status" != 0 ] && [ "$f" = 0 ]; then
        say "== $name: failed with exit status $status"
        f=1
    fi
    passed=$((passed + p)) failed=$((failed + f)) ignored=$((ignored + i))
}

# Tests mount volumes, loop devices and what the kernel itself mounts, so their programs run as root; building does not.
need_root_for_tests() {
    [ "$(id -u)" = 0 ] && return
    command -v sudo >/dev/null || die "the tests mount volumes, which needs root, and there is no sudo: run ./x test as root"
    local host
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=sudo -E"
}

tests() {
    PATH=$PATH:/usr/sbin:/sbin
    need_build
    need_fuse
    need mkfs.ext4 e2fsprogs
    need losetup mount
    need tar tar
    need_root_for_tests
    need_oracle
    local dirs=(crates/*/tests/*.rs)
    if cargo nextest --version >/dev/null 2>&1; then
        stage "unit tests" cargo nextest run --workspace --no-fail-fast --no-tests pass --lib --bins
        [ ! -e "${dirs[0]}" ] || stage "integration tests" cargo nextest run --workspace --exclude frazil-oracle --no-fail-fast --test '*'
    else
        stage "unit tests" cargo test --workspace --no-fail-fast --lib --bins
        [ ! -e "${dirs[0]}" ] || stage "integration tests" cargo test --workspace --exclude frazil-oracle --no-fail-fast --test '*'
    fi
    stage "examples in the documentation" cargo test --workspace --no-fail-fast --doc
    # Last, because they boot virtual machines; one at a time, because the machines are slow enough.
    stage "the real driver's opinion" cargo test -p frazil-oracle --no-fail-fast --test '*' -- --test-threads 1
    [ "$ignored" = 0 ] || say "$ignored tests were not run because they are marked to be ignored (cargo test -- --ignored runs them)"
    printf '%d passed, %d failed\n' "$passed" "$failed"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}

# ---------------------------------------------------------------------------------------------------------- oracle

oracle() {
    [ $# -gt 0 ] || die "which image? For one volume: ./x oracle IMAGE, or DEV0:DEV1 where it has several devices"
    need_build
    need_oracle
    exec cargo run --quiet -p frazil-oracle --bin oracle -- check "$@"
}

# ----------------------------------------------------------------------------------------------------------- bench

bench() {
    local what=${1:-}
    [ $# = 0 ] || shift
    need_build
    case $what in
        read)
            PATH=$PATH:/usr/sbin:/sbin
            need_fuse
            need mkfs.ext4 e2fsprogs
            need_oracle
            exec cargo run --quiet --release -p frazil-bench-read -- "$@" ;;
        format)
            PATH=$PATH:/usr/sbin:/sbin
            need mke2fs e2fsprogs
            need mkfs.btrfs btrfs-progs
            cargo build --quiet --release -p frazil
            exec cargo run --quiet --release -p frazil-bench-format -- "$@" ;;
        journal)
            [ -e /usr/include/rocksdb/c.h ] || need rocksdb-library librocksdb-dev libclang-dev
            export ROCKSDB_LIB_DIR ROCKSDB_INCLUDE_DIR=/usr/include
            ROCKSDB_LIB_DIR=$(dirname "$(ls /usr/lib/*/librocksdb.so)")
            exec cargo run --quiet --release --manifest-path bench/Cargo.toml -- journal "$@" ;;
        *) die "which table? ./x bench read, ./x bench format, or ./x bench journal (see bench/README.md)" ;;
    esac
}

case ${1:-help} in
    run) shift; run "$@" ;;
    test) shift; [ $# = 0 ] || die "./x test takes no arguments; for one crate: cargo test -p NAME"; tests ;;
    oracle) shift; oracle "$@" ;;
    bench) shift; bench "$@" ;;
    help | -h | --help) help ;;
    *) help >&2; exit 2 ;;
esac
