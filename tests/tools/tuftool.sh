#!/bin/sh
# Makes a repository with tuftool, at its second root: all keys RSA, two of root's, and a delegated role whose name is escaped in its file's.
#
# usage: tuftool.sh FOLDER
#
# Writes FOLDER/repository, FOLDER/1.root.json and the root's private keys, FOLDER/old-root-0.pem and old-root-1.pem. TUFTOOL names the program.
set -eu
tuftool=${TUFTOOL:-tuftool}
mkdir -p "$1/input/app"
cd "$1"
later='in 4000 weeks'
here="file://$(pwd)"

"$tuftool" root init root.json
"$tuftool" root expire root.json "$later"
for role in snapshot targets timestamp; do "$tuftool" root set-threshold root.json "$role" 1; done
"$tuftool" root set-threshold root.json root 2
for number in 0 1; do "$tuftool" root gen-rsa-key root.json "old-root-$number.pem" --role root; done
"$tuftool" root gen-rsa-key root.json online.pem --role snapshot --role targets --role timestamp
"$tuftool" root sign root.json --key old-root-0.pem --key old-root-1.pem
cp root.json 1.root.json
"$tuftool" root bump-version root.json
"$tuftool" root sign root.json --key old-root-0.pem --key old-root-1.pem

printf 'old firmware' >input/firmware.bin
"$tuftool" create --root root.json --key online.pem --add-targets input --outdir repository \
    --targets-version 1 --targets-expires "$later" --snapshot-version 1 --snapshot-expires "$later" \
    --timestamp-version 1 --timestamp-expires "$later"
cp 1.root.json repository/metadata/

openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out app.pem
"$tuftool" delegation --signing-role 'apps/a b' create-role --keys app.pem --version 1 --expires "$later" --outdir app
"$tuftool" delegation --signing-role targets add-role --delegated-role 'apps/a b' --incoming-metadata "$here/app/metadata" --paths 'app/*' \
    --threshold 1 --version 2 --expires "$later" --key online.pem --sign-all --root root.json --metadata-url "$here/repository/metadata" \
    --snapshot-version 2 --snapshot-expires "$later" --timestamp-version 2 --timestamp-expires "$later" --outdir repository
