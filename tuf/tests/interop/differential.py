"""Generates metadata, sound and mutated, with the verdict that python-tuf gives on each: one JSON object a line.

    differential.py SEED COUNT

A line is {"kind", "name", "input" (base64), "delegator" (base64, for kind "signed"), "verdict", "canonical" (base64)}.
`name` says what was done to the case, so that a disagreement can be listed with its reason.
"""

import base64
import copy
import datetime
import json
import random
import re
import sys

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner, Signature
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

EXPIRES = datetime.datetime(2030, 1, 1, tzinfo=datetime.timezone.utc)


def b64(data):
    return base64.b64encode(data).decode()


def traits(data):
    """What in the bytes themselves makes implementations differ."""
    found = set()

    def pairs(items):
        if len({key for key, _ in items}) != len(items):
            found.add("has: duplicate key")
        return dict(items)

    def whole(text):
        number = int(text)
        if text == "-0":
            found.add("has: negative zero")
        if not -(2**63) <= number < 2**64:
            found.add("has: number beyond 64 bits")
        return number

    def depth(v):
        inner = v.values() if isinstance(v, dict) else v if isinstance(v, list) else ()
        return 1 + max(map(depth, inner), default=0)

    try:
        whole_value = json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_int=whole)
        if depth(whole_value) > 128:
            found.add("has: nesting beyond 128")
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", whole_value["signed"]["expires"]):
            found.add("has: expiry in another spelling")
    except Exception:
        pass
    return sorted(found)


# --- canonical JSON -------------------------------------------------------------------------------------------------

TEXTS = ["", "a", "b", "signed", 'q"', "back\\slash", "\n", "\x7f", "\u00e9", "\u4e2d", "\U0001f600", "a/b", "\u2028", "\ud7ff"]
ODD_TEXTS = {"not-nfc": ["e\u0301", "\u212b"], "surrogate": ["\ud800"]}


def value(rng, depth):
    kind = rng.randrange(9 if depth else 6)
    if kind == 0:
        return rng.choice([0, 1, -1, 2**63 - 1, -(2**63), 2**64 - 1, rng.randrange(10**6)])
    if kind == 1:
        return rng.choice([True, False, None])
    if kind < 6:
        return rng.choice(TEXTS) + rng.choice(TEXTS)
    if kind == 6:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice(TEXTS) + rng.choice(TEXTS): value(rng, depth - 1) for _ in range(rng.randrange(4))}


def render(rng, v):
    return json.dumps(
        v,
        ensure_ascii=rng.random() < 0.5,
        indent=rng.choice([None, 1, 2]),
        separators=rng.choice([(",", ":"), (" , ", " : ")]),
    )


def canonical_case(rng):
    v = value(rng, 4)
    text = render(rng, v)
    name = rng.choice(
        ["plain"] * 8
        + ["float", "exponent", "big-int", "negative-zero", "duplicate-key", "trailing", "cut", "byte-flip", "byte-drop"]
        + ["nan", "deep", "not-nfc", "surrogate", "bom", "leading-zero", "single-quotes", "comment", "plus"]
    )
    wrap = {
        "float": "1.5", "exponent": "1e2", "big-int": str(2**64 + rng.randrange(99)), "negative-zero": "-0", "nan": "NaN",
        "deep": "[" * 150 + "]" * 150, "leading-zero": "01", "plus": "+1", "single-quotes": "'a'", "comment": "1 /* one */",
    }
    if name in wrap:
        text = f'{{"x": {wrap[name]}, "y": {text}}}'
    elif name == "duplicate-key":
        text = f'{{"x": 1, "y": {text}, "x": 2}}'
    elif name in ODD_TEXTS:
        text = json.dumps({rng.choice(ODD_TEXTS[name]): 1, "y": rng.choice(ODD_TEXTS[name])}, ensure_ascii=True)
    elif name == "trailing":
        text += rng.choice(["}", "x", "1", " []"])
    elif name == "bom":
        text = "\ufeff" + text
    data = text.encode("utf-8", "surrogatepass")
    if name == "cut":
        data = data[: rng.randrange(len(data))] if data else data
    elif name in ("byte-flip", "byte-drop") and data:
        at = rng.randrange(len(data))
        flipped = bytes([data[at] ^ (1 << rng.randrange(8))]) if name == "byte-flip" else b""
        data = data[:at] + flipped + data[at + 1 :]
    try:
        canonical = encode_canonical(json.loads(data.decode("utf-8"))).encode("utf-8")
    except Exception:
        canonical = None
    return {
        "kind": "canonical", "name": "; ".join([name, *traits(data)]), "input": b64(data), "verdict": canonical is not None,
        "canonical": b64(canonical) if canonical is not None else None,
    }


# --- signatures and typed reading -----------------------------------------------------------------------------------


def keyring():
    ring = {"ed25519": [], "ecdsa": [], "rsa": [], "rsa-small": []}
    for _ in range(4):
        ring["ed25519"].append(CryptoSigner(ed25519.Ed25519PrivateKey.generate()))
        ring["ecdsa"].append(CryptoSigner(ec.generate_private_key(ec.SECP256R1())))
    for _ in range(2):
        ring["rsa"].append(CryptoSigner(rsa.generate_private_key(65537, 2048)))
    ring["rsa-small"].append(CryptoSigner(rsa.generate_private_key(65537, 1024)))
    return ring


def sound(rng, role):
    if role == "timestamp":
        return Timestamp(rng.randrange(1, 99), None, EXPIRES, MetaFile(3, rng.choice([None, 100]), rng.choice([None, {"sha256": "ab" * 32}])))
    if role == "snapshot":
        return Snapshot(rng.randrange(1, 99), None, EXPIRES, {"targets.json": MetaFile(1), "a.json": MetaFile(2)})
    if role == "root":
        return Root(rng.randrange(1, 99), None, EXPIRES, consistent_snapshot=rng.random() < 0.5)
    signed = Targets(rng.randrange(1, 99), None, EXPIRES)
    for n in range(rng.randrange(3)):
        signed.targets[f"f{n}"] = TargetFile(n, {"sha256": "cd" * 32}, f"f{n}", {"custom": {"a": n}} if n else None)
    if rng.random() < 0.5:
        key = CryptoSigner(ed25519.Ed25519PrivateKey.generate()).public_key
        paths = {"paths": ["a/*"]} if rng.random() < 0.5 else {"path_hash_prefixes": ["0f"]}
        delegated = DelegatedRole("a", [key.keyid], 1, rng.random() < 0.5, **paths)
        signed.delegations = Delegations({key.keyid: key}, {"a": delegated})
    return signed


# Changes to the signed part, made before signing: (name, the kinds of role it fits, change).
def field(path, new):
    def change(signed):
        at = signed
        for step in path[:-1]:
            at = at[step]
        if new is KeyError:
            del at[path[-1]]
        else:
            at[path[-1]] = new

    return change


ANY = ("root", "timestamp", "snapshot", "targets")
EDITS = [
    *[(f"version {v!r}", ANY, field(["version"], v)) for v in (0, -1, "1", None, True, [], 2**63, 2**64)],
    *[
        (f"expires {v!r}", ANY, field(["expires"], v))
        for v in ("2030-01-01", "2030-01-01T00:00:00", "2030-01-01T00:00:00+00:00", "2030-01-01T00:00:00.0Z", "2030-02-30T00:00:00Z",
                  "2030-1-01T00:00:00Z", "2030-01-01 00:00:00Z", "", 1, None, "2030-01-01T24:00:00Z")
    ],
    *[(f"spec_version {v!r}", ANY, field(["spec_version"], v)) for v in ("1.0", "1.0.99", "1.9.9", "2.0.0", "0.9.0", "1", "", 1, None, "1.x")],
    *[(f"_type {v!r}", ANY, field(["_type"], v)) for v in ("root", "timestamp", "snapshot", "targets", "Root", "", None, 1)],
    *[(f"no {f}", ANY, field([f], KeyError)) for f in ("_type", "version", "expires", "spec_version")],
    ("unknown field", ANY, field(["x-unknown"], {"a": [1, {"b": None}]})),
    ("no meta", ("timestamp", "snapshot"), field(["meta"], KeyError)),
    ("meta is a list", ("timestamp", "snapshot"), field(["meta"], [])),
    ("meta is empty", ("timestamp", "snapshot"), field(["meta"], {})),
    ("meta version 0", ("timestamp",), field(["meta", "snapshot.json", "version"], 0)),
    ("meta version text", ("timestamp",), field(["meta", "snapshot.json", "version"], "1")),
    ("meta length negative", ("timestamp",), field(["meta", "snapshot.json", "length"], -1)),
    ("meta length zero", ("timestamp",), field(["meta", "snapshot.json", "length"], 0)),
    ("meta length text", ("timestamp",), field(["meta", "snapshot.json", "length"], "1")),
    ("meta hashes empty", ("timestamp",), field(["meta", "snapshot.json", "hashes"], {})),
    ("meta hashes unknown", ("timestamp",), field(["meta", "snapshot.json", "hashes"], {"md5": "00"})),
    ("meta hash not text", ("timestamp",), field(["meta", "snapshot.json", "hashes"], {"sha256": 1})),
    ("meta hash short", ("timestamp",), field(["meta", "snapshot.json", "hashes"], {"sha256": "00"})),
    ("meta more than snapshot", ("timestamp",), field(["meta", "other.json"], {"version": 1})),
    ("no targets", ("targets",), field(["targets"], KeyError)),
    ("targets is a list", ("targets",), field(["targets"], [])),
    ("target without length", ("targets",), field(["targets", "g"], {"hashes": {"sha256": "cd" * 32}})),
    ("target without hashes", ("targets",), field(["targets", "g"], {"length": 1})),
    ("target hashes empty", ("targets",), field(["targets", "g"], {"length": 1, "hashes": {}})),
    ("target hashes unknown", ("targets",), field(["targets", "g"], {"length": 1, "hashes": {"md5": "00"}})),
    ("target length negative", ("targets",), field(["targets", "g"], {"length": -1, "hashes": {"sha256": "cd" * 32}})),
    ("target length text", ("targets",), field(["targets", "g"], {"length": "1", "hashes": {"sha256": "cd" * 32}})),
    ("target custom is text", ("targets",), field(["targets", "g"], {"length": 1, "hashes": {"sha256": "cd" * 32}, "custom": "x"})),
    ("delegations is null", ("targets",), field(["delegations"], None)),
    ("delegations is empty", ("targets",), field(["delegations"], {})),
    *[
        (f"delegation {name}", ("targets",), field(["delegations"], {"keys": {}, "roles": roles}))
        for name, roles in {
            "none": [],
            "to root": [{"name": "root", "keyids": [], "threshold": 1, "terminating": False, "paths": []}],
            "to nobody": [{"name": "", "keyids": [], "threshold": 1, "terminating": False, "paths": []}],
            "threshold 0": [{"name": "a", "keyids": [], "threshold": 0, "terminating": False, "paths": []}],
            "keyids twice": [{"name": "a", "keyids": ["x", "x"], "threshold": 1, "terminating": False, "paths": []}],
            "twice": [{"name": "a", "keyids": [], "threshold": 1, "terminating": False, "paths": []}] * 2,
            "both kinds of path": [{"name": "a", "keyids": [], "threshold": 1, "terminating": False, "paths": [], "path_hash_prefixes": []}],
            "neither kind of path": [{"name": "a", "keyids": [], "threshold": 1, "terminating": False}],
            "no terminating": [{"name": "a", "keyids": [], "threshold": 1, "paths": []}],
            "paths not text": [{"name": "a", "keyids": [], "threshold": 1, "terminating": False, "paths": [1]}],
            "terminating text": [{"name": "a", "keyids": [], "threshold": 1, "terminating": "no", "paths": []}],
        }.items()
    ],
    ("root without keys", ("root",), field(["keys"], KeyError)),
    ("root without roles", ("root",), field(["roles"], KeyError)),
    ("root without a role", ("root",), field(["roles", "snapshot"], KeyError)),
    ("root with a role more", ("root",), field(["roles", "other"], {"keyids": [], "threshold": 1})),
    ("root with mirrors", ("root",), field(["roles", "mirrors"], {"keyids": [], "threshold": 1})),
    ("root threshold 0", ("root",), field(["roles", "snapshot", "threshold"], 0)),
    ("root threshold text", ("root",), field(["roles", "snapshot", "threshold"], "1")),
    ("root keyids twice", ("root",), field(["roles", "snapshot", "keyids"], ["x", "x"])),
    ("root key of unknown type", ("root",), field(["keys", "x"], {"keytype": "x", "scheme": "x", "keyval": {"public": "x"}})),
    ("root key without keyval", ("root",), field(["keys", "x"], {"keytype": "ed25519", "scheme": "ed25519"})),
    ("root key without scheme", ("root",), field(["keys", "x"], {"keytype": "ed25519", "keyval": {"public": "x"}})),
    ("root key public not text", ("root",), field(["keys", "x"], {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": 1}})),
    ("root key keyval extra", ("root",), field(["keys", "x"], {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "aa", "z": "z"}})),
    ("consistent_snapshot text", ("root",), field(["consistent_snapshot"], "yes")),
    ("no consistent_snapshot", ("root",), field(["consistent_snapshot"], KeyError)),
]


def sign(signer, signed_bytes):
    return signer.sign(signed_bytes)


def signed_case(rng, ring):
    role = rng.choice(["timestamp", "timestamp", "snapshot", "targets", "root"])
    kinds = [rng.choice(["ed25519", "ed25519", "ecdsa", "rsa"]) for _ in range(rng.randrange(1, 4))]
    names = []
    if rng.random() < 0.03:
        kinds.append("rsa-small")
        names.append("has: RSA below 2048 bits")
    pool = {kind: rng.sample(signers, len(signers)) for kind, signers in ring.items()}
    signers = [pool[kind].pop() for kind in kinds if pool[kind]]
    declared = [copy.deepcopy(s.public_key) for s in signers]
    threshold = rng.randrange(1, len(signers) + 1) if rng.random() < 0.9 else len(signers) + 1
    delegator = Root(1, None, EXPIRES)
    for key in declared:
        delegator.add_key(key, role)
    delegator.roles[role].threshold = threshold

    # What is declared of the keys.
    delegator_dict = delegator.to_dict()
    kind = rng.choice(["none"] * 6 + ["alias", "bad-public", "scheme", "undeclared", "other-key", "keytype-legacy", "upper-hex"])
    keys, entry = delegator_dict["keys"], delegator_dict["roles"][role]
    if entry["keyids"]:
        victim = rng.choice(entry["keyids"])
        if kind == "alias":
            keys["alias"] = copy.deepcopy(keys[victim])
            entry["keyids"].append("alias")
        elif kind == "bad-public":
            keys[victim]["keyval"]["public"] = rng.choice(["", "00", "zz" * 32, "ab" * 32, "-----BEGIN PUBLIC KEY-----"])
        elif kind == "scheme":
            keys[victim]["scheme"] = rng.choice(["ed25519", "ecdsa-sha2-nistp256", "rsassa-pss-sha256", "unknown"])
        elif kind == "undeclared":
            del keys[victim]
        elif kind == "other-key":
            other = CryptoSigner(ed25519.Ed25519PrivateKey.generate()).public_key
            keys[victim] = other.to_dict()
        elif kind == "keytype-legacy" and keys[victim]["keytype"] == "ecdsa":
            keys[victim]["keytype"] = "ecdsa-sha2-nistp256"
        elif kind == "upper-hex" and keys[victim]["keytype"] == "ed25519":
            keys[victim]["keyval"]["public"] = keys[victim]["keyval"]["public"].upper()
        if kind != "none":
            names.append(f"key {kind}")

    # What is signed.
    signed = sound(rng, role).to_dict()
    if rng.random() < 0.4:
        name, _, edit = rng.choice([e for e in EDITS if role in e[1]])
        try:
            edit(signed)
            names.append(name)
        except (KeyError, TypeError):
            pass
    try:
        signed_bytes = encode_canonical(signed).encode()
    except Exception:
        signed_bytes = b"?"

    # Who signs.
    signing = [s for s in signers if rng.random() < 0.93]
    signatures = [sign(s, signed_bytes).to_dict() for s in signing]
    if kind == "alias" and signatures and rng.random() < 0.8:
        twin = next((s for s in signatures if s["keyid"] == victim), None)
        if twin:
            signatures.append({**twin, "keyid": "alias"})
            names.append("has: two ids of one key")
    change = rng.choice(["none"] * 5 + ["flip", "twice", "empty", "not-hex", "odd-hex", "upper", "stranger", "swap", "no-sig", "no-keyid", "extra", "short", "long"])
    if signatures and change != "none":
        s = rng.choice(signatures)
        if change == "flip":
            raw = bytearray.fromhex(s["sig"])
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
            s["sig"] = raw.hex()
        elif change == "twice":
            signatures.append(dict(s))
        elif change == "empty":
            s["sig"] = ""
        elif change == "not-hex":
            s["sig"] = "zz" + s["sig"][2:]
        elif change == "odd-hex":
            s["sig"] = s["sig"][:-1]
        elif change == "upper":
            s["sig"] = s["sig"].upper()
        elif change == "stranger":
            signatures.append(sign(CryptoSigner(ed25519.Ed25519PrivateKey.generate()), signed_bytes).to_dict())
        elif change == "swap" and len(signatures) > 1:
            signatures[0]["keyid"], signatures[1]["keyid"] = signatures[1]["keyid"], signatures[0]["keyid"]
        elif change == "no-sig":
            del s["sig"]
        elif change == "no-keyid":
            del s["keyid"]
        elif change == "extra":
            s["x-extra"] = [1]
        elif change == "short":
            s["sig"] = s["sig"][:-2]
        elif change == "long":
            s["sig"] += "00"
        names.append(f"signature {change}")
    rng.shuffle(signatures)
    envelope = {"signatures": signatures, "signed": signed}
    outer = rng.random()
    if outer < 0.02:
        envelope["x-extra"] = 1
        names.append("envelope extra")
    elif outer < 0.04:
        del envelope[rng.choice(["signatures", "signed"])]
        names.append("envelope lacks a part")
    data = render(rng, envelope).encode()
    if rng.random() < 0.08:
        at = rng.randrange(len(data))
        data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        names.append("byte-flip")

    names.extend(traits(data))
    try:
        root = Root.from_dict(copy.deepcopy(delegator_dict))
        md = Metadata.from_bytes(data)
        if md.signed.type != role:
            raise ValueError("type")
        root.verify_delegate(role, md.signed_bytes, md.signatures)
        verdict = True
    except Exception:
        verdict = False
    return {
        "kind": "signed", "name": "; ".join(names) or "sound", "role": role, "input": b64(data),
        "delegator": b64(json.dumps({"signatures": [], "signed": delegator_dict}).encode()), "verdict": verdict,
    }


def main():
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    rng = random.Random(seed)
    ring = keyring()
    for n in range(count):
        case = canonical_case(rng) if n % 2 else signed_case(rng, ring)
        print(json.dumps(case))


main()
