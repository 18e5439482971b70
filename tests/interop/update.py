"""Updates from a repository with python-tuf's client, and downloads targets.

usage: update.py URL ROOT FOLDER TARGET...
       update.py --all FILE

Prints one JSON object: the trusted versions, each target's SHA-256 as downloaded, and the URLs fetched. With --all, a list of them, for
FILE's list of lists of METADATA_URL, TARGETS_URL, ROOT, FOLDER, TARGET...
"""

import hashlib
import json
import os
import sys

from tuf.ngclient import Updater
from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher


class CountingFetcher(Urllib3Fetcher):
    """Notes what is asked for."""

    def __init__(self):
        super().__init__()
        self.urls = []

    def fetch(self, url):
        self.urls.append(url)
        return super().fetch(url)


def update(metadata_url, targets_url, root, folder, *paths):
    metadata, downloads = os.path.join(folder, "metadata"), os.path.join(folder, "targets")
    os.makedirs(metadata, exist_ok=True)
    os.makedirs(downloads, exist_ok=True)
    with open(root, "rb") as file:
        bootstrap = file.read()
    fetcher = CountingFetcher()
    updater = Updater(
        metadata,
        metadata_url,
        downloads,
        targets_url,
        fetcher=fetcher,
        bootstrap=bootstrap,
    )
    updater.refresh()
    targets = {}
    for path in paths:
        info = updater.get_targetinfo(path)
        if info is None:
            targets[path] = None
            continue
        with open(updater.download_target(info), "rb") as file:
            targets[path] = hashlib.file_digest(file, "sha256").hexdigest()
    versions = {}
    for name in os.listdir(metadata):
        if name.endswith(".json"):
            with open(os.path.join(metadata, name), encoding="utf-8") as file:
                versions[name[: -len(".json")]] = json.load(file)["signed"]["version"]
    return {"versions": versions, "targets": targets, "urls": fetcher.urls}


def main(first, second, *others):
    if first == "--all":
        with open(second, encoding="utf-8") as file:
            return [update(*args) for args in json.load(file)]
    return update(f"{first}/metadata/", f"{first}/targets/", second, *others)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
