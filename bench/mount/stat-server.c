/* The limit for one stat after another: a file system of one file in C on libfuse, whose attributes the kernel never keeps, so
 * that each stat asks. Low-level API, one thread, in the foreground: stat-server DIRECTORY; more words are left out. */
#define FUSE_USE_VERSION 31
#include <errno.h>
#include <fuse_lowlevel.h>
#include <string.h>
#include <sys/stat.h>

static struct stat attributes_of(fuse_ino_t node) {
  struct stat found;
  memset(&found, 0, sizeof found);
  found.st_ino = node;
  found.st_mode = node == 1 ? S_IFDIR | 0755 : S_IFREG | 0644;
  found.st_nlink = 1;
  found.st_size = node == 1 ? 0 : 5;
  return found;
}

static void look_up(fuse_req_t request, fuse_ino_t parent, const char *name) {
  if (parent != 1 || strcmp(name, "file") != 0) {
    fuse_reply_err(request, ENOENT);
    return;
  }
  struct fuse_entry_param entry;
  memset(&entry, 0, sizeof entry);
  entry.ino = 2;
  entry.attr = attributes_of(2);
  entry.entry_timeout = 3600;
  fuse_reply_entry(request, &entry);
}

static void get_attributes(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *info) {
  (void)info;
  struct stat found = attributes_of(node);
  fuse_reply_attr(request, &found, 0);
}

static const struct fuse_lowlevel_ops operations = {.lookup = look_up, .getattr = get_attributes};

int main(int count, char **words) {
  if (count < 2) return 2;
  char *arguments[] = {words[0], "-ofsname=stat-server,allow_other", NULL};
  struct fuse_args args = FUSE_ARGS_INIT(2, arguments);
  struct fuse_session *session = fuse_session_new(&args, &operations, sizeof operations, NULL);
  if (session == NULL || fuse_session_mount(session, words[1]) != 0) return 1;
  fuse_set_signal_handlers(session);
  int result = fuse_session_loop(session);
  fuse_session_unmount(session);
  fuse_session_destroy(session);
  return result == 0 ? 0 : 1;
}
