"""Goes on with a repository whose root has been handed back to the keys that `takeover.py` made, as its old tool would.

usage: go_back.py FOLDER

FOLDER/old is the repository, FOLDER/old-root-N.pem are the keys. Makes the next root, with other keys for the roles below it, and lists
`firmware.bin` again. Prints {}.
"""

import json
import os
import sys
from datetime import datetime, timedelta, timezone

from cryptography.hazmat.primitives import serialization
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

EXPIRES = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=30)


def main(folder):
    metadata = f"{folder}/old/metadata"
    holders = []
    for number in (0, 1):
        with open(f"{folder}/old-root-{number}.pem", "rb") as file:
            holders.append(CryptoSigner(serialization.load_pem_private_key(file.read(), None)))

    def write(name, signed, signers):
        md = Metadata(signed)
        for signer in signers:
            md.sign(signer, append=True)
        md.to_file(f"{metadata}/{signed.version}.{name}.json" if name != "timestamp" else f"{metadata}/timestamp.json")

    newest = max(int(name.split(".")[0]) for name in os.listdir(metadata) if name.endswith(".root.json"))
    root = Metadata.from_file(f"{metadata}/{newest}.root.json").signed
    assert isinstance(root, Root)
    root.version += 1
    online = CryptoSigner.generate_ed25519()
    for role in ("targets", "snapshot", "timestamp"):
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        root.add_key(online.public_key, role)
        root.roles[role].threshold = 1
    write("root", root, holders)

    with open(f"{metadata}/timestamp.json", encoding="utf-8") as file:
        live = json.load(file)["signed"]
    snapshot = Metadata.from_file(f"{metadata}/{live['meta']['snapshot.json']['version']}.snapshot.json").signed
    assert isinstance(snapshot, Snapshot)
    targets = Targets(version=snapshot.meta["targets.json"].version + 1, expires=EXPIRES)
    targets.targets["firmware.bin"] = TargetFile.from_data("firmware.bin", b"old firmware", ["sha256"])
    write("targets", targets, [online])
    snapshot.meta["targets.json"] = MetaFile(targets.version)
    snapshot.version += 1
    snapshot.expires = EXPIRES
    write("snapshot", snapshot, [online])
    timestamp = Timestamp(version=live["version"] + 1, expires=EXPIRES, snapshot_meta=MetaFile(snapshot.version))
    write("timestamp", timestamp, [online])


main(*sys.argv[1:])
print("{}")
