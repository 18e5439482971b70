"""Serves a folder as docs/migrate.md has nginx serve it after a takeover.

usage: serve.py FOLDER PORTFILE

Answers for metadata in the top folder from metadata/, and for targets as tough names them (HASH.folder/name) from where TUF has them
(folder/HASH.name). A file that tough named as it is in the URL, percent-encoded, is served under that name. Writes the port to PORTFILE.
"""

import functools
import http.server
import os
import re
import sys

METADATA = re.compile(r"^/([^/]+\.json)$")
TARGET = re.compile(r"^/targets/([0-9a-f]{64})\.(.+)/([^/]+)$")


class Handler(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path):
        named = f"{self.directory}/{path.lstrip('/')}"
        if "%" in path and ".." not in path.split("/") and os.path.exists(named):
            return named
        for pattern, rewritten in ((METADATA, r"/metadata/\1"), (TARGET, r"/targets/\2/\1.\3")):
            there = super().translate_path(pattern.sub(rewritten, path))
            if os.path.exists(there):
                return there
        return super().translate_path(path)

    def log_message(self, *args):
        pass


def main(folder, port_file):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    with open(f"{port_file}.new", "w", encoding="ascii") as file:
        file.write(str(server.server_address[1]))
    os.rename(f"{port_file}.new", port_file)
    server.serve_forever()


main(*sys.argv[1:])
