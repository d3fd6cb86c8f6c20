"""Writers that note what was acknowledged to them, and the check of a tree against their notes.

acknowledging-writers.py write MOUNT NOTES NAME SEED   writes until a file NOTES/stop exists, over deaths of the mount
acknowledging-writers.py check NOTES TREE              prints what is wrong in TREE, and counts

A note is `try ITEM STEP PATH SEED SIZE`, before a call that would have PATH hold those bytes (SIZE -1: be gone), or `ack ITEM
STEP`, after it returned. So of an item, the last acknowledged step or one tried after it must be found, whole.
"""

import collections
import errno
import hashlib
import json
import os
import random
import sys
import time

MEBIBYTE = 1 << 20
# What calls on a mount say whose process was killed, and then on its path.
DEAD = {errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV, errno.EIO, errno.EINTR, errno.ENOENT, errno.ESTALE}


def content(seed, size):
    """Bytes that tell their seed at every place, and are quickly made."""
    piece = hashlib.shake_128(seed.encode()).digest(min(size, 65536)) if size > 0 else b''
    return (piece * (size // 65536 + 1))[:size]


class Writer:
    def __init__(self, mount, notes, name, seed):
        self.mount = mount
        self.notes = notes
        self.name = name
        self.random = random.Random(seed)
        self.log = os.open(os.path.join(notes, name + '.log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.outside = os.stat(os.path.dirname(mount)).st_dev
        self.root = None
        self.count = 0

    def stopped(self):
        return os.path.exists(os.path.join(self.notes, 'stop'))

    def note(self, *words):
        os.write(self.log, (' '.join(str(word) for word in words) + '\n').encode())

    def attach(self):
        """Waits for the mount, and holds on to its root: what follows can only go there."""
        if self.root is not None:
            os.close(self.root)
            self.root = None
        while not self.stopped():
            try:
                fd = os.open(self.mount, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                time.sleep(0.02)
                continue
            try:
                if os.fstat(fd).st_dev != self.outside:
                    self.root = fd
                    return
            except OSError:
                pass
            os.close(fd)
            time.sleep(0.02)

    def item(self):
        self.count += 1
        return f'{self.name}-{self.count}'

    def trying(self, item, step, path, size):
        self.note('try', item, step, path, f'{item}:{step}', size)
        return content(f'{item}:{step}', size)

    def put(self, path, data, sync, flags=os.O_CREAT | os.O_TRUNC):
        fd = os.open(path, os.O_WRONLY | flags, 0o644, dir_fd=self.root)
        try:
            for at in range(0, len(data), MEBIBYTE):
                os.write(fd, data[at : at + MEBIBYTE])
            if len(data) < os.fstat(fd).st_size:
                os.ftruncate(fd, len(data))
            if sync:
                os.fsync(fd)
        finally:
            closing, fd = fd, None
            os.close(closing)

    def size(self):
        return self.random.choice([0, 1, 100, 5000, 70_000, 300_000])

    def small(self):
        item = self.item()
        data = self.trying(item, 1, item, self.size())
        self.put(item, data, self.random.random() < 0.3)
        self.note('ack', item, 1)

    def replaced(self):
        """One file, written anew again and again: cut first, or over what it has."""
        item = f'{self.name}-again'
        self.count += 1
        data = self.trying(item, self.count, item, self.size())
        cut = os.O_TRUNC if self.random.random() < 0.5 else 0
        self.put(item, data, False, os.O_CREAT | cut)
        self.note('ack', item, self.count)

    def synced(self):
        item = self.item()
        first = self.trying(item, 1, item, 10_000)
        fd = os.open(item, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=self.root)
        try:
            os.write(fd, first)
            os.fsync(fd)
            self.note('ack', item, 1)
            second = self.trying(item, 2, item, 20_000)
            os.pwrite(fd, second, 0)
        finally:
            os.close(fd)
        self.note('ack', item, 2)

    def moved(self):
        item = self.item()
        data = self.trying(item, 1, f'{item}.new', self.size())
        self.put(f'{item}.new', data, False)
        self.note('ack', item, 1)
        self.note('try', item, 2, item, f'{item}:1', len(data))
        os.rename(f'{item}.new', item, src_dir_fd=self.root, dst_dir_fd=self.root)
        self.note('ack', item, 2)

    def removed(self):
        item = self.item()
        self.put(item, self.trying(item, 1, item, 3000), False)
        self.note('ack', item, 1)
        self.note('try', item, 2, item, '-', -1)
        os.unlink(item, dir_fd=self.root)
        # Removals in a row are answered before they are sent, and sent before this returns.
        os.fsync(self.root)
        self.note('ack', item, 2)

    def moved_directory(self):
        top = self.item()
        os.mkdir(top, dir_fd=self.root)
        names = ['one', 'two', 'three']
        for name in names:
            item = f'{top}/{name}'
            self.put(item, self.trying(item, 1, item, 2000), False)
            self.note('ack', item, 1)
        for name in names:
            self.note('try', f'{top}/{name}', 2, f'{top}.moved/{name}', f'{top}/{name}:1', 2000)
        os.rename(top, f'{top}.moved', src_dir_fd=self.root, dst_dir_fd=self.root)
        for name in names:
            self.note('ack', f'{top}/{name}', 2)

    def large(self):
        """Long enough for parts to go up while it is written."""
        item = f'{self.name}-large{self.random.randrange(3)}'
        self.count += 1
        data = self.trying(item, self.count, item, self.random.choice([10, 17, 25]) * MEBIBYTE + 123)
        self.put(item, data, False)
        self.note('ack', item, self.count)

    def run(self):
        kinds = [self.small, self.small, self.replaced, self.synced, self.moved, self.removed, self.moved_directory]
        if self.name.startswith('large'):
            kinds = [self.large]
        self.attach()
        while not self.stopped():
            try:
                self.random.choice(kinds)()
            except OSError as error:
                if error.errno not in DEAD:
                    raise
                self.attach()


class Item:
    def __init__(self):
        self.tries = []
        self.acknowledged = 0


def items(notes):
    found = collections.defaultdict(Item)
    for name in sorted(os.listdir(notes)):
        if not name.endswith('.log'):
            continue
        with open(os.path.join(notes, name)) as log:
            for line in log:
                kind, item, step, *rest = line.split()
                if kind == 'ack':
                    found[item].acknowledged = int(step)
                else:
                    found[item].tries.append((int(step), rest[0], rest[1], int(rest[2])))
    return found


def matches(data, seed, size):
    return len(data) == size and data == content(seed, size)


def problems(name, item, tree):
    live = [tried for tried in item.tries if tried[0] >= item.acknowledged]
    present = 0
    for path in {path for _, path, _, _ in item.tries}:
        try:
            with open(os.path.join(tree, path), 'rb') as file:
                data = file.read()
        except FileNotFoundError:
            continue
        present += 1
        allowed = [tried for tried in live if tried[1] == path]
        # What was to be renamed is still there where the rename was not acknowledged.
        if not allowed:
            yield f'{name}: "{path}" is there, though a later step was acknowledged'
        elif not any(matches(data, seed, size) for _, _, seed, size in allowed):
            yield f'{name}: "{path}" has {len(data)} bytes that are none of steps {[tried[0] for tried in allowed]}'
    gone = item.acknowledged == 0 or any(size < 0 for _, _, _, size in live)
    if present == 0 and not gone:
        yield f'{name}: step {item.acknowledged} was acknowledged, and is nowhere'


def check(notes, tree):
    found = items(notes)
    wrong = [problem for name, item in sorted(found.items()) for problem in problems(name, item, tree)]
    acknowledged = sum(1 for item in found.values() if item.acknowledged > 0)
    print(json.dumps({'items': len(found), 'acknowledged': acknowledged, 'wrong': wrong}))


if sys.argv[1] == 'write':
    Writer(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])).run()
else:
    check(sys.argv[2], sys.argv[3])
