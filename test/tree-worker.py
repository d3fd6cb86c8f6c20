"""Makes system calls on trees, for tests that compare two of them: tree-worker.py ROOT...

Each line of standard input is a JSON object: `on` lists the trees (by position) to take the step on, the rest says what to
do; with `times` false those of directories are left out. Each line of output is a list with one outcome a tree:
{"value": ...} or {"error": "ENOENT", "stage": ...}. Paths are relative to the roots; `slot` names an open file, one for each
tree. It is a process of its own, since who serves a mount must not use it.

Nothing waits for the other end of a fifo.
"""

import ctypes
import errno
import hashlib
import json
import mmap
import os
import stat
import sys

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
# Times that were set by a step lie before this; later ones are the clock's, and differ.
NOW_NS = 10**18

roots = [os.fsencode(root) for root in sys.argv[1:]]
slots = [{} for _ in roots]
os.umask(0o022)


class Staged(Exception):
    """A step of several calls failed at one of them."""

    def __init__(self, stage, error):
        super().__init__(stage)
        self.stage = stage
        self.error = error


def checked(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def content(seed, size):
    return hashlib.shake_128(str(seed).encode()).digest(size) if size > 0 else b''


def digest(data):
    return [len(data), hashlib.sha1(data).hexdigest()]


def time_of(nanoseconds):
    return nanoseconds if nanoseconds < NOW_NS else 'now'


def facts(status, directory_times):
    """What two trees must agree on; the size of a directory and its links are each file system's own."""
    is_directory = stat.S_ISDIR(status.st_mode)
    # The kernel notes writes to a local fifo, and not those to one of a mount.
    has_time = directory_times if is_directory else not stat.S_ISFIFO(status.st_mode)
    return {
        'mode': oct(status.st_mode),
        'uid': status.st_uid,
        'gid': status.st_gid,
        'size': None if is_directory else status.st_size,
        'links': None if is_directory else status.st_nlink,
        'mtime': time_of(status.st_mtime_ns) if has_time else None,
    }


def whole(fd):
    """All bytes of an open file, without moving its position."""
    found = hashlib.sha1()
    at = 0
    while True:
        piece = os.pread(fd, 1 << 20, at)
        if not piece:
            return [at, found.hexdigest()]
        found.update(piece)
        at += len(piece)


def whole_at(path):
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return whole(fd)
    finally:
        os.close(fd)


def xattrs(path):
    names = [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith('user.')]
    return {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in sorted(names)}


def tree(top, directory_times):
    found = []

    def walk(path, relative):
        status = os.lstat(path)
        entry = {'path': os.fsdecode(relative), **facts(status, directory_times)}
        if stat.S_ISREG(status.st_mode):
            entry['bytes'] = whole_at(path)
            entry['xattrs'] = xattrs(path)
        elif stat.S_ISLNK(status.st_mode):
            entry['target'] = os.fsdecode(os.readlink(path))
        found.append(entry)
        if stat.S_ISDIR(status.st_mode):
            for name in sorted(os.listdir(path)):
                walk(os.path.join(path, name), os.path.join(relative, name))

    walk(top, b'')
    return found


def staged(stage, work):
    try:
        return work()
    except OSError as error:
        raise Staged(stage, error) from error


def write_all(fd, data):
    done = 0
    while done < len(data):
        done += os.write(fd, data[done:])


def write_file(path, data):
    fd = staged('open', lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o644))
    try:
        staged('write', lambda: write_all(fd, data))
    except Staged:
        try:
            os.close(fd)
        except OSError:
            pass
        raise
    staged('close', lambda: os.close(fd))


def sized(fd):
    """The size of an open file; that of a directory is each file system's own."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.ENODEV, 'no file')
    return status.st_size


def map_write(fd, offset, data, sync):
    size = sized(fd)
    if size == 0:
        raise OSError(errno.EINVAL, 'an empty file cannot be mapped')
    mapping = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    try:
        start = offset % size
        piece = data[: size - start]
        mapping[start : start + len(piece)] = piece
        if sync:
            mapping.flush()
        return digest(bytes(mapping))
    finally:
        mapping.close()


class Calls:
    def __init__(self, index):
        self.root = roots[index]
        self.slots = slots[index]

    def path(self, step, name='path'):
        return os.path.join(self.root, os.fsencode(step[name]))

    def fd(self, step, name='slot'):
        return self.slots[step[name]]

    def open(self, step):
        self.slots[step['slot']] = os.open(self.path(step), step['flags'] | os.O_NONBLOCK, 0o644)

    def close(self, step):
        os.close(self.slots.pop(step['slot']))

    def touch(self, step):
        os.close(os.open(self.path(step), step['flags'] | os.O_NONBLOCK, 0o644))

    def pwrite(self, step):
        return os.pwrite(self.fd(step), content(step['seed'], step['size']), step['offset'])

    def write(self, step):
        return os.write(self.fd(step), content(step['seed'], step['size']))

    def read(self, step):
        return digest(os.read(self.fd(step), step['size']))

    def pread(self, step):
        return digest(os.pread(self.fd(step), step['size'], step['offset']))

    def seek(self, step):
        sized(self.fd(step))
        return os.lseek(self.fd(step), step['offset'], step['whence'])

    def mapped(self, step):
        return map_write(self.fd(step), step['offset'], content(step['seed'], step['size']), step['sync'])

    def ftruncate(self, step):
        os.ftruncate(self.fd(step), step['size'])

    def truncate(self, step):
        os.truncate(self.path(step), step['size'])

    def fallocate(self, step):
        fd = self.fd(step)
        size = ctypes.c_int64(step['size'])
        checked(libc.fallocate(fd, step['mode'], ctypes.c_int64(step['offset']), size))

    def copyrange(self, step):
        source, target = self.fd(step), self.fd(step, 'to')
        return os.copy_file_range(source, target, step['size'], step['offset'], step['at'])

    def fsync(self, step):
        os.fsync(self.fd(step))

    def fstat(self, step):
        return facts(os.fstat(self.fd(step)), step['times'])

    def writefile(self, step):
        write_file(self.path(step), content(step['seed'], step['size']))

    def readfile(self, step):
        return whole_at(self.path(step))

    def rename(self, step):
        arguments = (AT_FDCWD, self.path(step, 'from'), AT_FDCWD, self.path(step, 'to'), step['flags'])
        checked(libc.renameat2(*arguments))

    def unlink(self, step):
        os.unlink(self.path(step))

    def mkdir(self, step):
        os.mkdir(self.path(step), step['mode'])

    def rmdir(self, step):
        os.rmdir(self.path(step))

    def symlink(self, step):
        os.symlink(step['target'], self.path(step))

    def readlink(self, step):
        return os.fsdecode(os.readlink(self.path(step)))

    def mkfifo(self, step):
        os.mkfifo(self.path(step), 0o640)

    def chmod(self, step):
        os.chmod(self.path(step), step['mode'])

    def chown(self, step):
        os.chown(self.path(step), step['uid'], step['gid'], follow_symlinks=False)

    def utimes(self, step):
        times = (step['atime'], step['mtime'])
        os.utime(self.path(step), ns=times, follow_symlinks=False)
        status = os.lstat(self.path(step))
        return [status.st_atime_ns, status.st_mtime_ns]

    def setxattr(self, step):
        value = content(step['seed'], step['size'])
        os.setxattr(self.path(step), step['name'], value, step['flags'], follow_symlinks=False)

    def removexattr(self, step):
        os.removexattr(self.path(step), step['name'], follow_symlinks=False)

    def listxattr(self, step):
        return xattrs(self.path(step))

    def readdir(self, step):
        return sorted(os.fsdecode(name) for name in os.listdir(self.path(step)))

    def stat(self, step):
        return facts(os.lstat(self.path(step)), step['times'])

    def tree(self, step):
        return tree(self.path(step), step['times'])

    def handles(self, step):
        """What each open file is, also of those that have no name any more."""
        opened = sorted(self.slots.items())
        return {slot: [facts(os.fstat(fd), step['times']), self.bytes_of(fd)] for slot, fd in opened}

    def bytes_of(self, fd):
        try:
            return whole(fd)
        except OSError as error:
            # One not opened for reading, a directory, a fifo.
            return errno.errorcode[error.errno]

    def closeall(self, step):
        failed = None
        for slot in sorted(self.slots):
            try:
                os.close(self.slots[slot])
            except OSError as error:
                failed = error
        self.slots.clear()
        if failed is not None:
            raise failed


def outcome(index, step):
    needed = [step[name] for name in ('slot', 'to') if isinstance(step.get(name), int)]
    opens = step['do'] == 'open'
    if any((slot in slots[index]) == opens for slot in needed):
        return {'value': 'skipped'}
    try:
        return {'value': getattr(Calls(index), step['do'])(step)}
    except Staged as error:
        return {'error': errno.errorcode[error.error.errno], 'stage': error.stage}
    except OSError as error:
        return {'error': errno.errorcode[error.errno]}


for line in sys.stdin:
    request = json.loads(line)
    answers = [outcome(index, request) for index in request['on']]
    print(json.dumps(answers), flush=True)
