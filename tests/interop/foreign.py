"""Makes repositories of the kinds that other tools write and Tidegate does not.

usage: foreign.py FOLDER [takeover]

Writes FOLDER/KIND for each kind, with its first root as FOLDER/KIND.root.json and the root's private keys as FOLDER/KIND.pem (and
KIND.1.pem, KIND.2.pem). Each lists `app/1` and `app/2`. Where its tool goes on renewing it, FOLDER/KIND.later holds what it writes.
Prints, for each kind, the roles below the top-level ones.
"""

import json
import os
import sys
from datetime import datetime, timedelta, timezone
from hashlib import sha256

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, MetaFile, Root, Snapshot, SuccinctRoles, TargetFile, Targets, Timestamp

EXPIRES = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=30)
# What differs from a repository with consistent snapshots and one signer of ed25519 for each role.
KINDS = {
    "times": {"expires": EXPIRES.strftime("%Y-%m-%dT%H:%M:%S.123456789+02:00")},
    "unversioned": {"consistent": False, "listed": ""},
    "flat": {"flat": True, "listed": ""},
    "nested": {"delegations": "nested"},
    "hashed": {"delegations": "hashed", "consistent": False},
    "bins": {"delegations": "bins"},
    "p384": {"spare": True},
    "only-p384": {"p384": True},
    "hex": {"hex": True, "flat": True, "consistent": False},
    "old-root": {"old": True},
    # No longer that of another tool: it has a mark of Tidegate's.
    "marked-bins": {"delegations": "bins", "marked": True},
}
# Those that are taken over and published to at the same place.
TAKEOVER = {
    "plain": {"later": "timestamp"},
    "mixed": {"mixed": True, "consistent": False, "listed": ""},
    "nested": {"mixed": True, "delegations": "nested", "listed": "length"},
    "hashed": {"delegations": "hashed", "consistent": False, "listed": "hashes"},
    "bins": {"mixed": True, "delegations": "bins", "listed": "", "later": "snapshot timestamp"},
    "flat": {"flat": True, "consistent": False, "listed": ""},
}


def p384():
    return CryptoSigner(ec.generate_private_key(ec.SECP384R1()))


def make(folder, kind, expires=None, consistent=True, listed="length hashes", flat=False, delegations=None, **more):
    names = ("spare", "p384", "hex", "old", "mixed", "later", "marked")
    spare, p384_, hex_, old, mixed, later, marked = (more.get(name) for name in names)
    top = f"{folder}/{kind}"
    metadata, files = (top, top) if flat else (f"{top}/metadata", f"{top}/targets")
    for path in (metadata, f"{files}/app"):
        os.makedirs(path, exist_ok=True)
    root_signer = CryptoSigner.generate_ecdsa()
    signers = {"root": [root_signer], "targets": [p384() if p384_ else CryptoSigner.generate_ed25519()]}
    signers["snapshot"] = signers["timestamp"] = [CryptoSigner.generate_ed25519()]
    if spare:
        signers["targets"].append(p384())
    if mixed:
        signers["root"] += [CryptoSigner.generate_rsa(), CryptoSigner.generate_ed25519()]
        signers["targets"], signers["timestamp"] = signers["root"][1:2], [CryptoSigner.generate_ecdsa()]

    def write(name, signed, by):
        value = signed.to_dict()
        if expires and name != "root":
            value["expires"] = expires
        if marked:
            value["x-tidegate-issued"] = "2026-01-01T00:00:00Z"
        if hex_ and name == "root":
            # The bare point, as go-tuf wrote it.
            point = root_signer._private_key.public_key().public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
            )
            value["keys"][root_signer.public_key.keyid]["keyval"]["public"] = point.hex()
            value["keys"][root_signer.public_key.keyid]["keytype"] = "ecdsa-sha2-nistp256"
        message = encode_canonical(value).encode()
        signatures = [signer.sign(message).to_dict() for signer in by]
        data = json.dumps({"signatures": signatures, "signed": value}).encode()
        versioned = name == "root" or (consistent and name != "timestamp")
        with open(f"{metadata}/{signed.version}.{name}.json" if versioned else f"{metadata}/{name}.json", "wb") as file:
            file.write(data)
        hashes = {"sha256": sha256(data).hexdigest()} if "hashes" in listed else None
        return MetaFile(signed.version, len(data) if "length" in listed else None, hashes)

    def target(path, data):
        digest = sha256(data).hexdigest()
        with open(f"{files}/app/{digest}.{path[4:]}" if consistent else f"{files}/{path}", "wb") as file:
            file.write(data)
        return TargetFile.from_data(path, data, ["sha256"])

    root = Root(expires=EXPIRES, consistent_snapshot=consistent)
    for role, keys in signers.items():
        for signer in keys:
            root.add_key(signer.public_key, role)
    root.roles["root"].threshold = len(signers["root"])
    if old:
        # The first root's keys are of a scheme that is not supported; the second root hands over to another.
        first = p384()
        root.revoke_key(root_signer.public_key.keyid, "root")
        root.add_key(first.public_key, "root")
        write("root", root, [first])
        root.revoke_key(first.public_key.keyid, "root")
        root.add_key(root_signer.public_key, "root")
        root.version = 2
        write("root", root, [first, root_signer])
    else:
        write("root", root, signers["root"])
    with open(f"{metadata}/1.root.json", "rb") as file, open(f"{folder}/{kind}.root.json", "wb") as copy:
        copy.write(file.read())
    for number, signer in enumerate(signers["root"]):
        pem = signer._private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        name = f"{folder}/{kind}.{number}.pem" if number else f"{folder}/{kind}.pem"
        with open(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            file.write(pem)

    listed_files = {path: target(path, path.encode()) for path in ("app/1", "app/2")}
    targets = Targets(expires=EXPIRES)
    meta, below = {}, []
    if delegations is None:
        targets.targets = listed_files
    else:
        signer = CryptoSigner.generate_ed25519()
        keyid = signer.public_key.keyid
        keys = {keyid: signer.public_key}
        if delegations == "bins":
            bins = SuccinctRoles([keyid], 1, 3, "bin")
            targets.delegations = Delegations(keys, succinct_roles=bins)
            roles = {name: {} for name in bins.get_roles()}
            for path in listed_files:
                roles[bins.get_role_for_target(path)][path] = listed_files[path]
        elif delegations == "hashed":
            digits = {f"{digit:x}": f"hashed-{digit:x}" for digit in range(16)}
            named = [DelegatedRole(name, [keyid], 1, False, path_hash_prefixes=[digit]) for digit, name in digits.items()]
            targets.delegations = Delegations(keys, {role.name: role for role in named})
            roles = {name: {} for name in digits.values()}
            for path, file in listed_files.items():
                roles[digits[sha256(path.encode()).hexdigest()[0]]][path] = file
        else:
            roles = {"outer": {"app/1": listed_files["app/1"]}, "inner": {"app/2": listed_files["app/2"]}}
            targets.delegations = Delegations(keys, {"outer": DelegatedRole("outer", [keyid], 1, False, paths=["app/*"])})
        for name, files_ in roles.items():
            role = Targets(expires=EXPIRES, targets=files_)
            if name == "outer":
                inner = DelegatedRole("inner", [keyid], 1, False, paths=["app/2"])
                role.delegations = Delegations(keys, {"inner": inner})
            meta[f"{name}.json"] = write(name, role, [signer])
            below.append(name)
    meta["targets.json"] = write("targets", targets, signers["targets"])

    def online(version, snapshot):
        write("timestamp", Timestamp(version=version, expires=EXPIRES, snapshot_meta=snapshot), signers["timestamp"])

    snapshot = write("snapshot", Snapshot(expires=EXPIRES, meta=meta), signers["snapshot"])
    online(1, snapshot)
    if later:
        metadata = f"{folder}/{kind}.later"
        os.mkdir(metadata)
        if "snapshot" in later:
            snapshot = write("snapshot", Snapshot(version=2, expires=EXPIRES, meta=meta), signers["snapshot"])
        online(7, snapshot)
    return below


def main(folder, which=None):
    kinds = TAKEOVER if which == "takeover" else KINDS
    print(json.dumps({kind: make(folder, kind, **features) for kind, features in kinds.items()}))


main(*sys.argv[1:])
