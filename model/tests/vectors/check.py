#!/usr/bin/env python3
"""Recomputes the frozen vectors from the definitions, independently of the Rust code.

Covered: positions and hashed ids, boundaries of shares, the cohort of a position, the position in ramps, exposure of ramps and its
inverse, canonical bytes and hashes of manifests, canonical bytes, keys and names of receipts, what is signed for gates. Python's integers are unbounded, so nothing here is rounded but where
a definition says floor. Only the standard library is used.

    python3 check.py            checks every file beside this script; exit code 1 if any value differs
"""

import calendar
import hashlib
import json
import pathlib
import re
import sys
import time

SPACE = 2**64
PPM = 10**6
HERE = pathlib.Path(__file__).resolve().parent


def digest(purpose, salt, device):
    """SHA-256(purpose 00 salt 00 device-id)"""
    return hashlib.sha256(purpose.encode() + b"\0" + bytes.fromhex(salt) + b"\0" + device.encode())


def position(salt, device):
    """The first 8 bytes, big-endian."""
    return int.from_bytes(digest("tidegate/cohort/1", salt, device).digest()[:8], "big")


def device_hash(salt, device):
    return digest("tidegate/device/1", salt, device).hexdigest()


def intervals(shares):
    """Share k owns [floor(cum_k * 2^64 / 10^6), floor(cum_(k+1) * 2^64 / 10^6))."""
    total = 0
    for share in shares:
        yield total * SPACE // PPM, (total + share) * SPACE // PPM
        total += share
    assert total == PPM, f"shares add up to {total}"


def ramp_position(salt, device, sequence):
    """The first 8 bytes, big-endian, of SHA-256 over the device's order in ramps and the sequence as 8 bytes."""
    order = digest("tidegate/ramp/1", salt, device).digest()
    return int.from_bytes(hashlib.sha256(order + sequence.to_bytes(8, "big")).digest()[:8], "big")


def instant(text):
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


def exposure(ramp, now):
    """Nobody before the start; floor((from * d + (to - from) * x) * 2^64 / (10^6 * d)) until the end; then as at the end."""
    start, end = instant(ramp["start"]), instant(ramp["end"])
    if now < start:
        return 0
    duration = end - start
    elapsed = min(now - start, duration)
    return (ramp["from"] * duration + (ramp["to"] - ramp["from"]) * elapsed) * SPACE // (PPM * duration)


def exposed_at(ramp, at):
    """The first second at which the exposure exceeds the position: found by bisection, since exposure never falls."""
    low, high = instant(ramp["start"]), instant(ramp["end"])
    if exposure(ramp, high) <= at:
        return None
    while low < high:
        middle = (low + high) // 2
        if exposure(ramp, middle) > at:
            high = middle
        else:
            low = middle + 1
    return low


def canonical(value):
    """Canonical JSON of ASCII values without control characters, for which it is what Python writes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


class Checker:
    def __init__(self):
        self.checked = 0
        self.wrong = 0

    def equal(self, what, frozen, computed):
        self.checked += 1
        if frozen != computed:
            self.wrong += 1
            print(f"{what}: the file says {frozen}, the definition gives {computed}", file=sys.stderr)


def load(name):
    return json.loads((HERE / name).read_text(encoding="ascii"))


def check_positions(check):
    for case in load("positions.json"):
        salt, device = case["salt"], case["device"]
        check.equal(f"position of {device}", case["position"], position(salt, device))
        check.equal(f"hash of {device}", case["device_hash"], device_hash(salt, device))
        for sequence, frozen in case["ramp_positions"].items():
            computed = ramp_position(salt, device, int(sequence))
            check.equal(f"position of {device} in the ramp of {sequence}", frozen, computed)


def check_cohorts(check):
    for case in load("cohorts.json"):
        bounds = list(intervals(case["shares"]))
        frozen = [(int(low), int(high)) for low, high in case["intervals"]]
        check.equal(f"intervals of {case['shares']}", frozen, bounds)
        for sample in case["samples"]:
            at = sample["position"]
            cohort = next(k for k, (low, high) in enumerate(bounds) if low <= at < high)
            check.equal(f"cohort of {at} in {case['shares']}", sample["cohort"], cohort)


def check_ramps(check):
    for case in load("ramps.json"):
        ramp = case["ramp"]
        for sample in case["exposure"]:
            check.equal(f"exposure of {ramp} at {sample['at']}", int(sample["bound"]), exposure(ramp, instant(sample["at"])))
        for sample in case["exposed_at"]:
            frozen = sample["at"] and instant(sample["at"])
            check.equal(f"{ramp} reaches {sample['position']}", frozen, exposed_at(ramp, sample["position"]))


def check_manifests(check):
    for case in load("manifests.json"):
        text = canonical(case["manifest"])
        check.equal(f"bytes of {case['name']}", case["canonical"], text)
        check.equal(f"hash of {case['name']}", case["sha256"], hashlib.sha256(text.encode()).hexdigest())


def check_decisions(check):
    """The offers list the manifests by length and hash, and each decision counts by the order of outcomes."""
    order = {"install": 0, "bridge": 0, "wait": 1, "refuse": 2, "up-to-date": 3, "not-eligible": 4, "no-offer": 4}
    for case in load("decisions.json"):
        offers = case["offers"]["offers"] if case["offers"] else []
        for offer, manifest in zip(offers, case["manifests"]):
            if isinstance(manifest, str):
                continue
            text = canonical(manifest).encode()
            what = f"manifest of {offer['release']} in {case['name']}"
            check.equal(what, (offer["length"], offer["sha256"]), (len(text), hashlib.sha256(text).hexdigest()))
        kinds = [each["kind"] for each in case["outcomes"]]
        chosen = min(kinds, key=order.get) if kinds else "no-offer"
        check.equal(f"outcome of {case['name']}", case["outcome"]["kind"], chosen)
        for offer, verdicts in zip(offers, case["verdicts"]):
            ramp, paused = offer.get("ramp"), offer.get("paused", False)
            check.equal(f"pause in {case['name']}", verdicts["D-PAUSE"], "fail" if paused else "pass")
            if ramp:
                salt = case["cohorts"]["salt"]
                own = ramp_position(salt, case["device"]["id"], offer["sequence"])
                reached = own < exposure(ramp, instant(case["now"]))
                check.equal(f"ramp in {case['name']}", verdicts["D-RAMP"], "pass" if reached else "fail")
            if "until" in offer:
                ended = instant(offer["until"]) <= instant(case["now"])
                check.equal(f"end in {case['name']}", verdicts["D-UNTIL"], "fail" if ended else "pass")


def check_listings(check):
    """What is in a listing, its objects in order, and nothing else."""
    for case in load("listings.json"):
        if "canonical" in case:
            objects = sorted(set(case["objects"]))
            text = canonical({"schema": 1, "cohort": case["cohort"], "objects": objects})
            check.equal(f"bytes of {case['name']}", case["canonical"], text)
            check.equal(f"hash of {case['name']}", case["sha256"], hashlib.sha256(text.encode()).hexdigest())


def check_protected(check):
    for case in load("protected.json"):
        if "canonical" in case:
            text = canonical(case["map"])
            check.equal(f"bytes of {case['name']}", case["canonical"], text)
            check.equal(f"hash of {case['name']}", case["sha256"], hashlib.sha256(text.encode()).hexdigest())
            gates = {c["name"]: c["protected"]["gate"] for c in case["map"]["cohorts"] if "protected" in c}
            check.equal(f"gates of {case['name']}", case["protected"], gates)


def check_receipts(check):
    for case in load("signed-receipts.json"):
        receipt = case["receipt"]
        text = canonical(receipt["signed"])
        keyid = hashlib.sha256(key_text(case["key"]).encode()).hexdigest()
        check.equal(f"bytes of {case['name']}", case["canonical"], text)
        check.equal(f"key of {case['name']}", receipt["signature"]["keyid"], keyid)
        signed = receipt["signed"]
        name = hashlib.sha256(f"{text}\n{keyid}".encode()).hexdigest()
        path = f"receipts/{signed['channel']}/{signed['product']}/{signed['sequence']}/{name}.json"
        check.equal(f"name of {case['name']}", case["object"], path)


def check_gate(check):
    """What devices sign for a gate, which they name by the host of its URL, and what its quotes are bound to."""
    for case in load("gate.json"):
        host = re.fullmatch(r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:\d+)?(/.*)?", case["gate"])[1]
        if "message" in case:
            body, token = (hashlib.sha256(case[part].encode()).hexdigest() for part in ("body", "token"))
            parts = ["tidegate/gate/2", host, case["method"], case["path"], body, token, str(case["seconds"]), case["random"]]
            check.equal(f"what is signed: {case['name']}", case["message"], "".join(f"{part}\n" for part in parts))
        else:
            text = f"tidegate/gate/quote/2\n{host}\n".encode() + bytes.fromhex(case["nonce"]) + f"\n{case['device']}\n".encode()
            check.equal(f"quote {case['name']}", case["sha256"], hashlib.sha256(text).hexdigest())


def key_text(key):
    """Canonical JSON writes control characters as they are, such as the line breaks of a key in PEM."""
    return canonical(key).replace("\\n", "\n")


def main():
    check = Checker()
    for each in (
        check_positions,
        check_cohorts,
        check_ramps,
        check_manifests,
        check_decisions,
        check_listings,
        check_protected,
        check_receipts,
        check_gate,
    ):
        each(check)
    print(f"{check.checked} values checked, {check.wrong} wrong")
    return 1 if check.wrong or not check.checked else 0


if __name__ == "__main__":
    sys.exit(main())
