"""Makes a repository with python-tuf: all kinds of keys, delegations of all kinds, and a second state of everything.

usage: generate.py FOLDER

Writes FOLDER/1 and FOLDER/2, the repository before and after a change, each with metadata/ and targets/, and FOLDER/root.json, the
root to start from. Prints one JSON object: for each state, what each target path must resolve to (a SHA-256, or null).
"""

import hashlib
import json
import os
import shutil
import sys
from datetime import datetime, timedelta, timezone

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

EXPIRES = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=30)


class Repository:
    def __init__(self):
        self.keys = {
            "root": [CryptoSigner.generate_ed25519() for _ in range(3)],
            "timestamp": [CryptoSigner.generate_ecdsa()],
            "snapshot": [CryptoSigner.generate_ed25519()],
            "targets": [CryptoSigner.generate_rsa(), CryptoSigner.generate_ecdsa()],
            "fleet": [CryptoSigner.generate_rsa(scheme="rsassa-pss-sha256")],
            "fleet.a": [CryptoSigner.generate_ed25519()],
            "odd name?": [CryptoSigner.generate_ecdsa()],
            "hashed": [CryptoSigner.generate_ed25519()],
            "behind": [CryptoSigner.generate_ed25519()],
        }
        self.signed = {
            "root": Root(expires=EXPIRES),
            "timestamp": Timestamp(expires=EXPIRES),
            "snapshot": Snapshot(expires=EXPIRES),
        }
        for role in list(self.keys)[3:]:
            self.signed[role] = Targets(expires=EXPIRES)
        for role in ["root", "timestamp", "snapshot", "targets"]:
            for key in self.keys[role]:
                self.signed["root"].add_key(key.public_key, role)
        self.signed["root"].roles["root"].threshold = 2
        self.signed["root"].roles["targets"].threshold = 2
        self.contents, self.expected = {}, {}
        self.delegate(
            "targets",
            # A prefix of the hash of "hashed/...": see below.
            DelegatedRole("hashed", [], 1, False, path_hash_prefixes=self.hash_prefixes("hashed/file")),
            DelegatedRole("fleet", [], 1, True, paths=["fleet/*", "fleet/*/*"]),
            # Never reached for fleet/...: the delegation before it is terminating.
            DelegatedRole("behind", [], 1, False, paths=["fleet/*/*", "plain/*"]),
        )
        self.delegate(
            "fleet",
            DelegatedRole("fleet.a", [], 1, True, paths=["fleet/a/*"]),
            DelegatedRole("odd name?", [], 1, True, paths=["fleet/o?d/*"]),
        )

    @staticmethod
    def hash_prefixes(path):
        return [hashlib.sha256(path.encode()).hexdigest()[:2]]

    def delegate(self, delegator, *roles):
        self.signed[delegator].delegations = Delegations({}, {role.name: role for role in roles})
        for role in roles:
            for key in self.keys[role.name]:
                self.signed[delegator].add_key(key.public_key, role.name)

    def target(self, role, path, content, found=True):
        """Lists a file; `found` says whether it is what a client must find at that path."""
        self.contents[sha256(content)] = content
        self.signed[role].targets[path] = TargetFile.from_data(path, content, ["sha256", "sha512"])
        if found:
            self.expected[path] = sha256(content)

    def write(self, folder):
        os.makedirs(os.path.join(folder, "metadata"), exist_ok=True)
        meta = self.signed["snapshot"].meta
        for role in list(self.keys)[3:]:
            data = self.file(folder, role, f"{self.signed[role].version}.{role}.json")
            meta[f"{role}.json"] = MetaFile(self.signed[role].version, len(data), {"sha256": sha256(data)})
        # As python-tuf's own tests do: a snapshot may list versions alone.
        meta["fleet.a.json"] = MetaFile(self.signed["fleet.a"].version)
        version = self.signed["snapshot"].version
        data = self.file(folder, "snapshot", f"{version}.snapshot.json")
        self.signed["timestamp"].snapshot_meta = MetaFile(version, len(data), {"sha256": sha256(data)})
        self.file(folder, "timestamp", "timestamp.json")
        self.file(folder, "root", f"{self.signed['root'].version}.root.json")
        for role in list(self.keys)[3:]:
            for path, target in self.signed[role].targets.items():
                directory, _, name = path.rpartition("/")
                name = os.path.join(folder, "targets", directory, f"{target.hashes['sha256']}.{name}")
                os.makedirs(os.path.dirname(name), exist_ok=True)
                with open(name, "wb") as file:
                    file.write(self.contents[target.hashes["sha256"]])

    def file(self, folder, role, name):
        metadata = Metadata(self.signed[role])
        for key in self.keys[role]:
            metadata.sign(key, append=True)
        # Indented, as people write it: signatures are over the canonical form, whatever the file looks like.
        data = metadata.to_bytes(JSONSerializer(compact=False))
        with open(os.path.join(folder, "metadata", name), "wb") as file:
            file.write(data)
        return data


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def main(folder):
    repository = Repository()
    expected = []

    repository.target("targets", "top", b"top")
    repository.target("fleet", "fleet/file", b"fleet file")
    repository.target("fleet", "fleet/a/shared", b"the delegator goes before")
    repository.target("fleet.a", "fleet/a/shared", b"the delegated role comes after", found=False)
    repository.target("fleet.a", "fleet/a/file", b"file of a")
    repository.target("odd name?", "fleet/odd/file name+%", b"odd")
    repository.target("hashed", "hashed/file", b"by hash prefix")
    repository.target("behind", "fleet/b/file", b"behind a terminating delegation", found=False)
    repository.target("behind", "plain/file", b"plain")
    repository.write(os.path.join(folder, "1"))
    shutil.copy(os.path.join(folder, "1", "metadata", "1.root.json"), os.path.join(folder, "root.json"))

    missing = ["fleet/b/file", "nothing", "fleet/nothing", "fleet/a/nothing", "fleet/a/b/too/deep"]
    repository.expected.update(dict.fromkeys(missing))
    expected.append(dict(repository.expected))

    # The second state: new keys for root, timestamp and a delegated role, a target changed, one gone.
    old_root = repository.keys["root"]
    repository.keys["root"] = [old_root[0], old_root[1], CryptoSigner.generate_ed25519()]
    root = repository.signed["root"]
    root.revoke_key(old_root[2].public_key.keyid, "root")
    root.add_key(repository.keys["root"][2].public_key, "root")
    root.revoke_key(repository.keys["timestamp"][0].public_key.keyid, "timestamp")
    repository.keys["timestamp"] = [CryptoSigner.generate_ed25519()]
    root.add_key(repository.keys["timestamp"][0].public_key, "timestamp")
    fleet = repository.signed["fleet"]
    fleet.revoke_key(repository.keys["fleet.a"][0].public_key.keyid, "fleet.a")
    repository.keys["fleet.a"] = [CryptoSigner.generate_rsa()]
    fleet.add_key(repository.keys["fleet.a"][0].public_key, "fleet.a")
    repository.target("fleet.a", "fleet/a/file", b"file of a, second edition")
    repository.signed["targets"].targets.pop("top")
    repository.expected["top"] = None
    for role in ["root", "timestamp", "snapshot", "targets", "fleet", "fleet.a"]:
        repository.signed[role].version += 1
    shutil.copytree(os.path.join(folder, "1"), os.path.join(folder, "2"))
    repository.write(os.path.join(folder, "2"))
    expected.append(repository.expected)
    print(json.dumps(expected))


if __name__ == "__main__":
    main(*sys.argv[1:])
