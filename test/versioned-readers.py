"""Readers of files whose bytes tell their version at every place, while others change the files.

versioned-readers.py MOUNT NOTES NAME SEED PATH...   reads until NOTES/stop exists; prints counts and what was wrong, as JSON

A file is lines of 32 bytes, `VERSION OFFSET SIZE` in decimal digits. All that one open reads must be of one version, at its
place, up to its size; or a call fails by an errno that says the version is gone.
"""

import collections
import errno
import json
import os
import random
import sys
import time

LINE = 32
GONE = {errno.ESTALE}
ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ESTALE}

mount, notes, name, seed, *paths = sys.argv[1:]
random.seed(seed)
counts = collections.Counter()
wrong = []
latest = {}


def lines(data, offset):
    """The version and size that the bytes at `offset` tell; all of their whole lines must agree."""
    found = None
    first = -offset % LINE
    for at in range(first, len(data) - LINE + 1, LINE):
        version, place, size = (int(word) for word in data[at : at + LINE].split())
        if place != offset + at:
            raise ValueError(f'the line of {place} is at {offset + at}')
        if found not in (None, (version, size)):
            raise ValueError(f'one read has versions {found[0]} and {version}')
        found = (version, size)
    return found


def read_open(fd):
    """Reads in one of several ways; gives the version."""
    seen = None
    ends = random.random() < 0.7
    piece = random.choice([4096, 10_000, 131_072, 1 << 20])
    at = 0
    end = None
    for step in range(400 if ends else random.randrange(1, 12)):
        if not ends:
            at = random.randrange(0, max(1, os.fstat(fd).st_size)) // LINE * LINE
        data = os.pread(fd, piece, at)
        counts['reads'] += 1
        if not data:
            end = at
            break
        found = lines(data, at)
        if found is not None:
            if seen not in (None, found):
                raise ValueError(f'one open has versions {seen[0]} and {found[0]}')
            seen = found
        at += len(data)
        if random.random() < 0.1:
            time.sleep(random.random() * 0.05)
    if ends and end is not None and seen is not None and end != seen[1]:
        raise ValueError(f'version {seen[0]} has {seen[1]} bytes, and {end} came')
    return None if seen is None else seen[0]


def attempt(path):
    try:
        fd = os.open(os.path.join(mount, path), os.O_RDONLY)
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        counts[errno.errorcode[error.errno]] += 1
        return
    try:
        version = read_open(fd)
        counts['whole'] += 1
    except OSError as error:
        if error.errno not in GONE | {errno.EISDIR}:
            raise
        counts[errno.errorcode[error.errno]] += 1
        return
    finally:
        os.close(fd)
    if version is None:
        return
    if version < latest.get(path, 0):
        raise ValueError(f'version {version} came after {latest[path]}')
    latest[path] = version


while not os.path.exists(os.path.join(notes, 'stop')):
    path = random.choice(paths)
    try:
        attempt(path)
    except (OSError, ValueError) as error:
        wrong.append(f'{name}: {path}: {error}')
        break
print(json.dumps({'counts': counts, 'latest': latest, 'wrong': wrong}))
