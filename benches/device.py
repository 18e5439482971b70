#!/usr/bin/env python3
"""What a device pays: size of the program, memory, time, requests. Beside python-tuf, where it is to be had.

usage: benches/device.py [--mib 1024] [--checks 30] [--keep FOLDER]

Builds the device's program in its size profile, lets `tidegate demo` make a repository around a file of that many MiB, serves it over
HTTP on this machine, and measures real processes by what the kernel says of them. TIDEGATE_PYTHON names a Python with python-tuf.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

# What is promised, and what no change may undo.
LIMITS = {
    "program, stripped, with TLS": (2_000_000, "bytes"),
    "peak memory, download": (12 * 1024, "KiB"),
    "CPU, unchanged check": (5.0, "ms"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024, help="size of the file to download (default: %(default)s)")
    parser.add_argument("--keep", type=pathlib.Path, help="work in this folder and leave it")
    parser.add_argument("--checks", type=int, default=30, help="unchanged checks, the median of which counts (default: %(default)s)")
    options = parser.parse_args()
    build("--release", "-p", "tidegate")
    subprocess.run([ROOT / "device/size/build"], cwd=ROOT, check=True)
    folder = options.keep or pathlib.Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        measure(folder, options.mib, options.checks)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def measure(folder, mib, repeat):
    tidegate, device = TARGET / "release/tidegate", TARGET / "size/tidegate-device"
    image, demo = folder / "image", folder / "demo"
    with open(image, "wb") as file:
        for _ in range(mib):
            file.write(os.urandom(1 << 20))
    subprocess.run([tidegate, "demo", demo, "--image", image, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    results = {"program, stripped, with TLS": (device.stat().st_size, "bytes")}

    server = subprocess.Popen(
        [tidegate, "serve", demo / "site", "--port", "0", "--quiet"], stdout=subprocess.PIPE, text=True
    )
    try:
        url = server.stdout.readline().strip()
        late = demo / "devices/late"
        config = json.loads((late / "device.json").read_text())
        config |= {"repository": url, "state_dir": str(folder / "state"), "slot": str(folder / "slot")}
        config["root"] = str(late / "root.json")
        settings = folder / "device.json"
        settings.write_text(json.dumps(config))

        def run(*command):
            return timed([device, "--config", settings, *command])

        download = run("download")
        results["peak memory, download"] = (download["rss"], "KiB")
        results["rate, download"] = (mib * 1.048576 / download["wall"], "MB/s")
        results["CPU, download"] = (download["cpu"] * 1000, "ms")
        checks = [run("check") for _ in range(repeat)]
        results["CPU, unchanged check"] = (statistics.median(check["cpu"] for check in checks) * 1000, "ms")
        results["time, unchanged check"] = (statistics.median(check["wall"] for check in checks) * 1000, "ms")
        results["peak memory, check"] = (max(check["rss"] for check in checks), "KiB")
        peers = python_tuf(folder, url, late / "root.json", image, mib, max(repeat // 3, 3))
    finally:
        server.terminate()
        server.wait()
    results |= verification(min(mib, 512))
    table(results, peers)
    over = [name for name, (limit, _) in LIMITS.items() if results[name][0] > limit]
    if results["verification beside sha2 alone"][0] < 0.9:
        over.append("verification beside sha2 alone")
    if over:
        sys.exit(f"over the limit: {', '.join(over)}")


def build(*arguments):
    subprocess.run(["cargo", "build", "-q", "--locked", *arguments], cwd=ROOT, check=True)


def timed(command):
    """Runs a program to its end: wall and CPU seconds, and peak resident memory in KiB, of it and nothing else."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        # Not ru_maxrss: the kernel carries that over from this interpreter, from which the program was started.
        peak = 0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, high_water(process.pid))
            time.sleep(0.002)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{command}: {errors.read().decode()}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": peak}


def high_water(pid):
    """The most memory that a running program has had resident, in KiB; it only rises, so the last look counts."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) if found else 0


def verification(mib):
    """Our checker beside the hash alone, in one process: see client/benches/verify.rs."""
    command = ["cargo", "bench", "-q", "--locked", "-p", "tidegate-client", "--bench", "verify", "--", str(mib)]
    out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    number = {line[:18].strip(): float(line[18:].split()[0]) for line in out.splitlines() if re.match(r"\w", line)}
    return {
        "sha2 alone": (number["sha2 alone"], "MB/s"),
        "verification": (number["verified"], "MB/s"),
        "verification beside sha2 alone": (number["ratio"], ""),
    }


def python_tuf(folder, url, root, image, mib, repeat):
    """The same with python-tuf's client; nothing where there is none."""
    python = os.environ.get("TIDEGATE_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import tuf"], capture_output=True).returncode:
        print(f"{python} has no python-tuf: its figures are left out", file=sys.stderr)
        return {}
    script, state = ROOT / "tests/interop/update.py", folder / "python"
    releases = "stable/releases/os/1.1.0"
    roles = (folder / "demo/site/targets" / releases).iterdir()
    artifact = next(path.name.split(".", 1)[1] for path in roles if path.stat().st_size == image.stat().st_size)
    command = [python, script, url, root, state]
    download = timed([*command, f"{releases}/{artifact}"])
    assignment = "stable/cohorts/general/os.json"
    timed([*command, assignment])
    checks = [timed([*command, assignment]) for _ in range(repeat)]
    return {
        "peak memory, download": download["rss"],
        "rate, download": mib * 1.048576 / download["wall"],
        "CPU, download": download["cpu"] * 1000,
        "CPU, unchanged check": statistics.median(check["cpu"] for check in checks) * 1000,
        "time, unchanged check": statistics.median(check["wall"] for check in checks) * 1000,
        "peak memory, check": max(check["rss"] for check in checks),
    }


def table(results, peers):
    print(f"{'':32}{'tidegate':>12}{'python-tuf':>12}  unit")
    for name, (value, unit) in results.items():
        peer = f"{peers[name]:,.2f}" if name in peers else "-"
        limit = f"at most {LIMITS[name][0]:,}" if name in LIMITS else ""
        print(f"{name:32}{value:>12,.2f}{peer:>12}  {unit:6} {limit}".rstrip())


if __name__ == "__main__":
    main()
