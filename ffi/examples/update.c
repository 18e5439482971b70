// A whole update in C: check, download with progress, install with an own installer, confirm. A thread watches the download, and cancels
// it when nothing comes; it is then resumed.
//
//   update SETTINGS FOLDER
//
// SETTINGS is a file with the settings as JSON (ffi/README.md). FOLDER has two images, `a` and `b`, and a file `current` with the name of
// the one that runs.
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tidegate.h"

// --- The installer: two images, of which one runs. A real one tells a boot loader. ---

struct images {
  const char *folder;
};

static FILE *open_in(const struct images *images, const char *name, const char *mode) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s", images->folder, name);
  return fopen(path, mode);
}

static int failed(const char *what, char *text, size_t size) {
  snprintf(text, size, "cannot %s: %s", what, strerror(errno));
  return TIDEGATE_INSTALLED_FAILED;
}

// Writes a short file. A real installer writes another file first, syncs it, and renames it.
static int write_name(const struct images *images, const char *file, const char *name, char *text, size_t size) {
  FILE *out = open_in(images, file, "w");
  if (out == NULL || fputs(name, out) < 0 || fclose(out) != 0) {
    return failed("write the name of the image", text, size);
  }
  return 0;
}

static int running(void *context, char *text, size_t size) {
  FILE *in = open_in(context, "current", "r");
  if (in == NULL) {
    return failed("read what runs", text, size);
  }
  size_t length = fread(text, 1, size - 1, in);
  text[length] = '\0';
  fclose(in);
  return 0;
}

static int confirm(void *context, char *text, size_t size) {
  char name[16] = "";
  int result = running(context, name, sizeof name);
  return result != 0 ? result : write_name(context, "confirmed", name, text, size);
}

static int revert(void *context, const char *before, char *text, size_t size) {
  return write_name(context, "current", before, text, size);
}

// The path of the only artifact. A real program uses a JSON library.
static int path_of(const char *release, char *path, size_t size) {
  const char *start = strstr(release, "\"path\":\"");
  if (start == NULL) {
    return -1;
  }
  start += strlen("\"path\":\"");
  size_t length = strcspn(start, "\"");
  if (length >= size) {
    return -1;
  }
  memcpy(path, start, length);
  path[length] = '\0';
  return 0;
}

static int install(void *context, const char *release, TidegateWatch *watch, char *text, size_t size) {
  char path[1024], now[16] = "";
  if (path_of(release, path, sizeof path) != 0) {
    snprintf(text, size, "the release has no file for this device");
    return TIDEGATE_INSTALLED_REJECTED;
  }
  if (running(context, now, sizeof now) != 0) {
    return failed("read what runs", text, size);
  }
  const char *other = strcmp(now, "a") == 0 ? "b" : "a";
  FILE *in = fopen(path, "rb"), *out = open_in(context, other, "wb");
  if (in == NULL || out == NULL) {
    return failed("open the files", text, size);
  }
  fseek(in, 0, SEEK_END);
  uint64_t total = (uint64_t)ftell(in), done = 0;
  rewind(in);
  char buffer[65536];
  size_t length;
  while ((length = fread(buffer, 1, sizeof buffer, in)) > 0) {
    if (fwrite(buffer, 1, length, out) != length) {
      return failed("write the image", text, size);
    }
    done += length;
    if (tidegate_watch(watch, "image", done, total) != 0) {
      fclose(in);
      fclose(out);
      return TIDEGATE_INSTALLED_CANCELLED;
    }
  }
  fclose(in);
  if (fclose(out) != 0) {
    return failed("write the image", text, size);
  }
  return write_name(context, "current", other, text, size);
}

// --- The download, and the thread that watches it. ---

struct download {
  TidegateCancel *cancel;
  atomic_uint_fast64_t done;
  atomic_bool ended;
};

static void pause_for(long milliseconds) {
  struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  nanosleep(&time, NULL);
}

// Cancels a download that has begun, and to which nothing was added for half a second.
static void *watch_download(void *context) {
  struct download *download = context;
  uint64_t before = 0;
  while (!atomic_load(&download->ended)) {
    pause_for(500);
    uint64_t done = atomic_load(&download->done);
    if (done > 0 && done == before && !atomic_load(&download->ended)) {
      tidegate_cancel(download->cancel);
      break;
    }
    before = done;
  }
  return NULL;
}

static int progress(void *context, const char *phase, const char *name, uint64_t done, uint64_t total) {
  struct download *download = context;
  uint64_t before = atomic_exchange(&download->done, done);
  if (done == total && before != done) {
    printf("%s %s: %" PRIu64 " bytes\n", phase, name, total);
  }
  return 0;
}

static TidegateStatus download_watched(TidegateDevice *device, TidegateCancel *cancel) {
  struct download download = {.cancel = cancel};
  pthread_t thread;
  if (pthread_create(&thread, NULL, watch_download, &download) != 0) {
    return tidegate_download(device, progress, &download, NULL);
  }
  TidegateStatus status = tidegate_download(device, progress, &download, NULL);
  atomic_store(&download.ended, true);
  pthread_join(thread, NULL);
  return status;
}

// --- The update. ---

static int complain(const char *what) {
  const char *hint = tidegate_error_hint();
  fprintf(stderr, "%s: %s (%s)\n", what, tidegate_error_message(), tidegate_error_code());
  if (hint != NULL) {
    fprintf(stderr, "help: %s\n", hint);
  }
  return 1;
}

static int update(TidegateDevice *device, TidegateCancel *cancel) {
  char *found = NULL, *result = NULL, *record = NULL;
  if (tidegate_check(device, NULL, &found) != TIDEGATE_STATUS_OK) {
    return complain("check");
  }
  if (found == NULL) {
    printf("nothing to install\n");
    return 0;
  }
  printf("found %s\n", found);
  tidegate_string_free(found);
  TidegateStatus status = download_watched(device, cancel);
  if (status == TIDEGATE_STATUS_CANCELLED) {
    printf("nothing came: again\n");
    tidegate_cancel_clear(cancel);
    status = download_watched(device, cancel);
  }
  if (status != TIDEGATE_STATUS_OK) {
    return complain("download");
  }
  struct download installation = {.cancel = cancel};
  if (tidegate_install(device, progress, &installation, &result) != TIDEGATE_STATUS_OK) {
    return complain("install");
  }
  printf("installed %s\n", result);
  tidegate_string_free(result);
  // Here a real program finds out whether the new release works, and calls tidegate_reject if not.
  if (tidegate_confirm(device, &record) != TIDEGATE_STATUS_OK) {
    return complain("confirm");
  }
  printf("confirmed %s\n", record);
  tidegate_string_free(record);
  return 0;
}

int main(int argc, char **argv) {
  static char settings[65536];
  FILE *file = argc == 3 ? fopen(argv[1], "r") : NULL;
  if (file == NULL) {
    fprintf(stderr, "usage: update SETTINGS FOLDER\n");
    return 2;
  }
  settings[fread(settings, 1, sizeof settings - 1, file)] = '\0';
  fclose(file);
  struct images images = {argv[2]};
  TidegateInstaller installer = {&images, install, running, confirm, revert};
  TidegateCancel *cancel = tidegate_cancel_new();
  TidegateDevice *device = NULL;
  int code = 1;
  if (tidegate_open(settings, &installer, cancel, &device) == TIDEGATE_STATUS_OK) {
    code = update(device, cancel);
  } else {
    complain("open");
  }
  tidegate_close(device);
  tidegate_cancel_free(cancel);
  return code;
}
