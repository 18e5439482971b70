"""Says which metadata python-tuf can read and verify.

usage: reads.py CASES

A case is {"steps": [{"delegator": FILE, "role": NAME, "file": FILE}, ...], "probes": [PATH, ...]}: every file must verify by what delegates
to it, and targets listed by the SHA-256 of "x" must accept "x". Prints a list: for each case {"error": TEXT or null, "covered": [BOOL, ...]}, the latter for each probe whether the last step's
delegator delegates the path.
"""

import hashlib
import json
import sys

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

X = hashlib.sha256(b"x").hexdigest()
TYPES = {"root": Root, "snapshot": Snapshot, "timestamp": Timestamp}


def read(role, text):
    metadata = Metadata.from_bytes(text.encode())
    expected = TYPES.get(role, Targets)
    if not isinstance(metadata.signed, expected):
        raise ValueError(f"not a {expected.type}")
    return metadata


def verify(case):
    for step in case["steps"]:
        delegator = read("root" if step["role"] in (*TYPES, "targets") else "targets", step["delegator"])
        file = read(step["role"], step["file"])
        delegator.signed.verify_delegate(step["role"], file.signed_bytes, file.signatures)
        for target in getattr(file.signed, "targets", {}).values():
            if target.hashes.get("sha256", "").lower() == X:
                target.verify_length_and_hashes(b"x")
    delegations = delegator.signed.delegations if case["probes"] else None
    covered = [any(delegations.get_roles_for_target(path)) for path in case["probes"]]
    return {"error": None, "covered": covered}


def attempt(case):
    try:
        return verify(case)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "covered": []}


print(json.dumps([attempt(case) for case in json.load(open(sys.argv[1]))]))
