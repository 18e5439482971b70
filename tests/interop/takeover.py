"""Makes a repository with python-tuf that is to be taken over, at its second root.

usage: takeover.py FOLDER CONSISTENT DELEGATIONS    (0 or 1 each)

Writes FOLDER/repository (metadata/ and targets/), its roots as FOLDER/1.root.json and 2.root.json, and the root's private keys as
FOLDER/old-root-N.pem. Prints {}.
"""

import os
import sys
from datetime import datetime, timedelta, timezone
from hashlib import sha256

from cryptography.hazmat.primitives import serialization
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

EXPIRES = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=30)
PRETTY = JSONSerializer(compact=False)


def main(folder, consistent, delegations):
    consistent, delegations = consistent == "1", delegations == "1"
    roots = [CryptoSigner.generate_ed25519() for _ in range(3)]
    for number, signer in enumerate(roots):
        pem = signer._private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with open(os.open(f"{folder}/old-root-{number}.pem", os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            file.write(pem)
    online = {"targets": CryptoSigner.generate_rsa(), "snapshot": CryptoSigner.generate_ecdsa(), "timestamp": CryptoSigner.generate_ed25519()}

    metadata, targets = f"{folder}/repository/metadata", f"{folder}/repository/targets"
    os.makedirs(metadata)
    os.makedirs(targets)

    def write(name, version, md, signers):
        md.signatures.clear()
        for signer in signers:
            md.sign(signer, append=True)
        versioned = name == "root" or (consistent and name != "timestamp")
        md.to_file(f"{metadata}/{version}.{name}.json" if versioned else f"{metadata}/{name}.json", PRETTY)

    def listed(name, data):
        digest = sha256(data).hexdigest()
        with open(f"{targets}/{digest}.{name}" if consistent else f"{targets}/{name}", "wb") as file:
            file.write(data)
        return TargetFile.from_data(name, data, ["sha256"])

    root = Root(expires=EXPIRES, consistent_snapshot=consistent)
    for signer in roots:
        root.add_key(signer.public_key, "root")
    root.roles["root"].threshold = 2
    # What tuf-on-ci adds to keys, under the ids that they have without it, and to roles; signed, and without meaning to anyone else.
    for key in root.keys.values():
        key.unrecognized_fields["x-tuf-on-ci-keyowner"] = "@holder"
    root.unrecognized_fields["x-tuf-on-ci-expiry-period"] = 365
    root.unrecognized_fields["x-tuf-on-ci-signing-period"] = 60
    for role, signer in online.items():
        root.add_key(signer.public_key, role)
    md = Metadata(root)
    write("root", 1, md, roots[:2])
    root.version = 2
    write("root", 2, md, roots[:2])
    for version in (1, 2):
        with open(f"{metadata}/{version}.root.json", "rb") as file, open(f"{folder}/{version}.root.json", "wb") as copy:
            copy.write(file.read())

    top = Targets(expires=EXPIRES)
    top.version = 4
    top.targets["firmware.bin"] = listed("firmware.bin", b"old firmware")
    meta = {"targets.json": MetaFile(4)}
    if delegations:
        signer = CryptoSigner.generate_ed25519()
        role = DelegatedRole("fleet", [signer.public_key.keyid], 1, True, paths=["fleet-*"])
        top.delegations = Delegations({signer.public_key.keyid: signer.public_key}, {"fleet": role})
        fleet = Targets(expires=EXPIRES)
        fleet.version = 2
        fleet.targets["fleet-map"] = listed("fleet-map", b"map")
        write("fleet", 2, Metadata(fleet), [signer])
        meta["fleet.json"] = MetaFile(2)
    write("targets", 4, Metadata(top), [online["targets"]])
    write("snapshot", 7, Metadata(Snapshot(version=7, expires=EXPIRES, meta=meta)), [online["snapshot"]])
    write("timestamp", 9, Metadata(Timestamp(version=9, expires=EXPIRES, snapshot_meta=MetaFile(7))), [online["timestamp"]])


main(*sys.argv[1:])
print("{}")
