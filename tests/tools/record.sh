#!/bin/sh
# Keeps what tuftool.sh or go-tuf.sh made as test data: the repository, its first root and the root's keys.
#
# usage: record.sh MADE TO
set -eu
rm -rf "$2"
mkdir -p "$2"
# tuftool makes links to the files that it was given.
cp -RL "$1/repository" "$1/1.root.json" "$1"/old-root-*.pem "$2/"
