#!/usr/bin/env python3
"""What the device's program costs, beside python-tuf where it is installed: benches/device.py [--mib N] [--checks N]

Builds both programs, makes a repository with one artifact of N MiB, serves it on this machine, and prints size, peak
memory, CPU and requests. Everything happens in a temporary folder. Needs nothing but Rust and Python; python-tuf (`pip install tuf`) is the
peer, measured in the same run.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent.parent
PEER = """
import resource, sys, time
from tuf.ngclient import Updater, UpdaterConfig
url, state, root, path, out = sys.argv[1:]
config = UpdaterConfig(targets_max_length=2**40) if path == "-" else UpdaterConfig()
updater = Updater(state, url + "/metadata/", out, url + "/targets/", config=config, bootstrap=open(root, "rb").read())
updater.refresh()
if path != "-":
    updater.download_target(updater.get_targetinfo(path), out + "/file")
"""


def run(command, **options):
    return subprocess.run([str(part) for part in command], check=True, **options)


def measured(command):
    """Runs a command; returns its CPU seconds and its peak resident memory in bytes."""
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{command}: exit {status}: {errors.decode()}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="size of the artifact")
    parser.add_argument("--checks", type=int, default=40, help="how many unchanged checks to average over")
    options = parser.parse_args()

    cargo = ["cargo", "build", "-q", "--manifest-path", HERE / "Cargo.toml"]
    run([*cargo, "--profile", "size", "-p", "tidegate-client", "--features", "cli"])
    run([*cargo, "--release", "-p", "tidegate"])
    metadata = json.loads(
        run(["cargo", "metadata", "--format-version", "1", "--no-deps", "--manifest-path", HERE / "Cargo.toml"], stdout=subprocess.PIPE).stdout
    )
    target = pathlib.Path(metadata["target_directory"])
    device, tidegate = target / "size" / "tidegate-device", target / "release" / "tidegate"

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        image, workspace, public = folder / "image.bin", folder / "workspace", folder / "public"
        with open(image, "wb") as file:
            for _ in range(options.mib):
                file.write(os.urandom(1 << 20))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        run([tidegate, "init", workspace, "--keys", HERE / "keys-example"], **quiet)
        for step in [
            ["release", "new", "1.0.0"],
            ["release", "add", "1.0.0", image, "--hardware", "board-a"],
            ["release", "manifest", "1.0.0"],
            ["release", "sign", "1.0.0", "--key", "release-1"],
            ["release", "sign", "1.0.0", "--key", "release-2"],
            ["release", "register", "1.0.0"],
            ["release", "validate", "1.0.0"],
            ["rollout", "start", "1.0.0"],
            ["publish", public],
        ]:
            run([tidegate, "-C", workspace, *step], **quiet)

        server = subprocess.Popen([str(tidegate), "serve", str(public), "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            url = None
            for line in server.stdout:
                if found := re.search(r"http://[0-9.]+:[0-9]+", line):
                    url = found[0]
                    break
            # The server must not wait for someone to read its log.
            subprocess.Popen(["cat"], stdin=server.stdout, stdout=subprocess.DEVNULL)
            report(options, folder, url, device, workspace / "metadata" / "1.root.json", image)
        finally:
            server.terminate()


def report(options, folder, url, device, root, image):
    def ours(command, state):
        settings = ["--root", root, "--repository", url, "--state-dir", folder / state, "--device-id", "dev-1", "--channel", "stable"]
        settings += ["--product", "os", "--hardware", "board-a", "--factory-version", "0.1.0", "--fact", "group=lab"]
        return measured([device, *settings, command])

    def theirs(path, state):
        (folder / state).mkdir(exist_ok=True)
        return measured([sys.executable, "-c", PEER, url, folder / state, root, path, folder / state])

    try:
        import tuf

        peer = f"python-tuf {tuf.__version__}"
    except ImportError:
        peer = None

    download = ours("download", "ours")
    ours("check", "checks")
    check = sum(ours("check", "checks")[0] for _ in range(options.checks)) / options.checks
    rows = [
        ("size, stripped, with TLS", f"{device.stat().st_size / 1e6:.2f} MB", "-"),
        (f"download {options.mib} MiB: peak memory", f"{download[1] / 1e6:.1f} MB", None),
        (f"download {options.mib} MiB: CPU", f"{download[0]:.2f} s", None),
        (f"unchanged check: CPU, mean of {options.checks}", f"{check * 1e3:.1f} ms", None),
    ]
    columns = ["-"] * len(rows)
    if peer:
        artifact = f"stable/releases/os/1.0.0/{image.name}"
        their_download = theirs(artifact, "theirs")
        theirs("-", "their-checks")
        count = max(options.checks // 8, 3)
        their_check = sum(theirs("-", "their-checks")[0] for _ in range(count)) / count
        columns = [
            "-",
            f"{their_download[1] / 1e6:.1f} MB (ours is {download[1] / their_download[1]:.2f} of it)",
            f"{their_download[0]:.2f} s (ours is {download[0] / their_download[0]:.2f} of it)",
            f"{their_check * 1e3:.1f} ms (ours is {check / their_check:.3f} of it)",
        ]
    print(f"{'':42}  {'tidegate-device':16}  {peer or 'python-tuf is not installed'}")
    for (what, ours_is, _), their_is in zip(rows, columns):
        print(f"{what:42}  {ours_is:16}  {their_is}")


main()
