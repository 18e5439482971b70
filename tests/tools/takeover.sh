#!/bin/bash
# Takes over a repository of a real tool as docs/migrate.md has it, publishes at its place, and has real clients follow from its first root:
# with the state that they had of it, and without.
#
# usage: takeover.sh MAKER FOLDER    (MAKER: tuftool or go-tuf; FOLDER must not exist)
#
# The programs: TIDEGATE; TUFTOOL; TUF of go-tuf 0.7. Other clients are left out unless they are named: TUF_CLIENT of go-tuf 0.7; FOLLOW, built from
# follow.go with go-tuf 2; TIDEGATE_PYTHON with python-tuf.
set -euo pipefail
tools=$(cd "$(dirname "$0")" && pwd)
tidegate=${TIDEGATE:-tidegate}
export TUFTOOL=${TUFTOOL:-tuftool} TUF=${TUF:-tuf}
maker=$1
"$tools/$maker.sh" "$2"
cd "$2"
export TIDEGATE_ACTOR=holder

rm -f port
python3 "$tools/serve.py" "$PWD/repository" port &
trap 'kill $!' EXIT
until [ -f port ]; do sleep 0.1; done
url=http://127.0.0.1:$(cat port)
# Where the old tool has its metadata and its targets.
case $maker in
    go-tuf) metadata=$url targets=$url/targets ;;
    *) metadata=$url/metadata targets=$url/targets ;;
esac

# Each prints the file that it downloads: with the state in the folder $1, the target $2.
with_tuftool() {
    rm -rf "tuftool.$1"
    "$TUFTOOL" download --root 1.root.json -m "$metadata/" -t "$targets/" --target-name "$2" "tuftool.$1" >&2
    cat "tuftool.$1/$2"
}
with_go_tuf() {
    [ -d "$1" ] || "$TUF_CLIENT" init -s "$1" "$url" 1.root.json
    "$TUF_CLIENT" get -s "$1" "$url" "$2"
}
with_go_tuf_2() {
    mkdir -p "$1"
    "$FOLLOW" "$metadata" "$targets" 1.root.json "$1" "$2"
}
with_python_tuf() {
    printf '[["%s/", "%s/", "1.root.json", "%s", "%s"]]' "$metadata" "$targets" "$1" "$2" >clients.json
    "$TIDEGATE_PYTHON" "$tools/../interop/update.py" --all clients.json >&2
    cat "$1/targets/"*"${2##*/}"
}
clients=()
if [ "$maker" = tuftool ]; then clients+=(with_tuftool); fi
# go-tuf 0.7 asks for metadata in the top folder.
if [ "$maker" = go-tuf ] && [ -n "${TUF_CLIENT:-}" ]; then clients+=(with_go_tuf); fi
if [ -n "${FOLLOW:-}" ]; then clients+=(with_go_tuf_2); fi
if [ -n "${TIDEGATE_PYTHON:-}" ]; then clients+=(with_python_tuf); fi
if [ ${#clients[@]} = 0 ]; then
    echo 'no client is named' >&2
    exit 2
fi
# tuftool writes times with fractions of a second into all but root. python-tuf reads none, go-tuf 2 none that end in 0.
before=("${clients[@]}")
if [ "$maker" = tuftool ]; then before=(with_tuftool); fi

for client in "${before[@]}"; do
    "$client" "old.$client" firmware.bin | grep -q 'old firmware$'
    echo "passed: $client before"
done

"$tidegate" import repository --root 1.root.json --dry-run
"$tidegate" import repository fleet --root 1.root.json --example-keys
digits=$("$tidegate" -C fleet ceremony status --json | sed -n 's/.*"digest": "\([0-9a-f]\{16\}\).*/\1/p')
keys=(root-1 root-2 targets-1 targets-2 release-1 release-2)
if [ "$maker" = go-tuf ]; then
    # The tool signs with its own keys.
    "$tidegate" -C fleet ceremony show --signed-bytes root --out root.bytes
    "$TUF" sign-payload --role=root root.bytes >root.sigs
    for pair in $(sed 's/},{/}\n{/g' root.sigs | sed -n 's/.*"keyid":"\([0-9a-f]*\)","sig":"\([0-9a-f]*\)".*/\1=\2/p'); do
        printf '%s' "${pair#*=}" >root.sig
        "$tidegate" -C fleet ceremony combine --signature "root:${pair%=*}=root.sig"
    done
else
    # tuftool lets others read them, with which Tidegate does not sign.
    chmod 600 old-root-*.pem
    keys+=("file:$PWD/old-root-0.pem" "file:$PWD/old-root-1.pem")
fi
"$tidegate" -C fleet ceremony sign --confirm "$digits" "${keys[@]/#/--key=}" >/dev/null
"$tidegate" -C fleet ceremony finish
printf 'new firmware' >image
"$tidegate" -C fleet release create 1.0.0 image --name rootfs.img --hardware board-a
"$tidegate" -C fleet release sign 1.0.0 >/dev/null
"$tidegate" -C fleet release register 1.0.0
"$tidegate" -C fleet publish --rebase repository
"$tidegate" verify repository --root 1.root.json

for client in "${clients[@]}"; do
    for state in old new; do
        "$client" "$state.$client" stable/releases/os/1.0.0/rootfs.img | grep -q 'new firmware$'
        echo "passed: $client after, with $state state"
    done
done
echo "${#clients[@]} clients passed, 0 failed"
