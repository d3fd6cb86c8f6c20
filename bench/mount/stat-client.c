/* Asks for the attributes of a file again and again, from so many processes, for so long: stat-client FILE PROCESSES SECONDS.
 * Prints how many a second, all together. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int count, char **words) {
  if (count != 4) return 2;
  int processes = atoi(words[2]);
  double seconds = atof(words[3]);
  long *asked = mmap(NULL, sizeof(long) * (size_t)processes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (asked == MAP_FAILED) return 1;
  double begin = now();
  for (int index = 0; index < processes; index++) {
    if (fork() != 0) continue;
    struct stat found;
    double end = begin + seconds;
    while (now() < end) {
      for (int step = 0; step < 16; step++) {
        if (stat(words[1], &found) != 0) _exit(1);
        asked[index]++;
      }
    }
    _exit(0);
  }
  int failed = 0, status;
  while (wait(&status) > 0) failed |= status;
  double took = now() - begin;
  long all = 0;
  for (int index = 0; index < processes; index++) all += asked[index];
  printf("%.0f\n", (double)all / took);
  return failed != 0;
}
