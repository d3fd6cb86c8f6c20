"""Writes through a mapping of the file named by its argument, whose descriptor is closed: the text of each line of its input."""
import mmap, os, sys

fd = os.open(sys.argv[1], os.O_RDWR)
mapping = mmap.mmap(fd, 0)
os.close(fd)
print('mapped', flush=True)
for line in sys.stdin:
    text = line.strip().encode()
    mapping[0:len(text)] = text
    print('written', flush=True)
mapping.close()
