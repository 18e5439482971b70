#!/bin/sh
# Makes a repository with the command of go-tuf 0.7, at its second root: keys of Ed25519, P-256 and RSA for root, metadata in one
# flat folder, files listed by SHA-512 alone.
#
# usage: go-tuf.sh FOLDER
#
# Writes FOLDER/repository, FOLDER/1.root.json and the root's private keys, FOLDER/old-root-0.pem to old-root-2.pem. TUF names the
# program.
set -eu
tuf=${TUF:-tuf}
mkdir -p "$1/staged/targets/app"
cd "$1"
days=28000
go() { "$tuf" --insecure-plaintext "$@"; }

go init
for scheme in ed25519 ecdsa-sha2-nistp256 rsassa-pss-sha256; do go gen-key --expires="$days" --scheme="$scheme" root; done
for role in targets snapshot timestamp; do go gen-key --expires="$days" "$role"; done
go set-threshold root 3
printf 'old firmware' >staged/targets/firmware.bin
printf 'app/1' >staged/targets/app/1
go add --expires="$days" firmware.bin app/1
go snapshot --expires="$days"
go timestamp --expires="$days"
go commit
cp repository/1.root.json .

# The next root renews the first.
go gen-key --expires="$days" targets
go sign root.json
go snapshot --expires="$days"
go timestamp --expires="$days"
go commit

# For tests without go-tuf: its private keys are a seed before the public key, or PEM.
python3 - <<'END'
import json
import os
import subprocess

with open("keys/root.json", encoding="utf-8") as file:
    keys = json.load(file)["data"]
for number, key in enumerate(keys):
    private = key["keyval"]["private"]
    form, key = "PEM", private.encode()
    if not private.startswith("-----"):
        form, key = "DER", bytes.fromhex("302e020100300506032b657004220420" + private[:64])
    openssl = ["openssl", "pkcs8", "-topk8", "-nocrypt", "-inform", form]
    pem = subprocess.run(openssl, input=key, check=True, capture_output=True).stdout
    with open(os.open(f"old-root-{number}.pem", os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
        file.write(pem)
END
