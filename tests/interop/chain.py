"""Verifies a folder of metadata with python-tuf, from the root of each given version on: every root, then all roles.

    chain.py FOLDER TIME FIRST...
"""

import datetime
import json
import pathlib
import sys

from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

folder = pathlib.Path(sys.argv[1])
now = datetime.datetime.fromisoformat(sys.argv[2].replace("Z", "+00:00"))


def verify(first):
    trusted = TrustedMetadataSet((folder / f"{first}.root.json").read_bytes(), EnvelopeType.METADATA)
    trusted.reference_time = now
    version = first
    while (newer := folder / f"{version + 1}.root.json").exists():
        trusted.update_root(newer.read_bytes())
        version += 1
    trusted.update_timestamp((folder / "timestamp.json").read_bytes())
    snapshot = trusted.timestamp.snapshot_meta.version
    trusted.update_snapshot((folder / f"{snapshot}.snapshot.json").read_bytes())
    queue = [("targets", "root")]
    roles = 0
    while queue:
        role, delegator = queue.pop()
        listed = trusted.snapshot.meta[f"{role}.json"].version
        trusted.update_delegated_targets((folder / f"{listed}.{role}.json").read_bytes(), role, delegator)
        roles += 1
        delegations = trusted[role].delegations
        queue += [(name, role) for name in (delegations.roles if delegations else {})]
    return {"from": first, "root": version, "roles": roles}


print(json.dumps([verify(int(first)) for first in sys.argv[3:]]))
