// Tidegate: signed over-the-air releases, on a device. Made by cbindgen from ffi/src; ffi/README.md says how to use it.

#ifndef TIDEGATE_H
#define TIDEGATE_H

#include <stddef.h>
#include <stdint.h>

// What came of a call. The numbers never change; later versions may add some.
typedef enum {
  // It worked. That there is nothing to install is no error, either.
  TIDEGATE_STATUS_OK = 0,
  // An argument is null, not UTF-8, too long, or not JSON.
  TIDEGATE_STATUS_BAD_ARGUMENT = 1,
  // A setting is missing, unknown or wrong.
  TIDEGATE_STATUS_SETTING = 2,
  // The network: a later attempt may work.
  TIDEGATE_STATUS_NETWORK = 3,
  // The repository, or someone between it and the device: its files are missing or fail verification.
  TIDEGATE_STATUS_PEER = 4,
  // The device: its disk, its installer or a program.
  TIDEGATE_STATUS_DEVICE = 5,
  // The call does not suit the device's present state.
  TIDEGATE_STATUS_STATE = 6,
  // The caller ended it. What was fetched is kept.
  TIDEGATE_STATUS_CANCELLED = 7,
  // Another process uses the state folder, or another call uses the handle.
  TIDEGATE_STATUS_BUSY = 8,
  // A fault of this library. Close the device, and open it again.
  TIDEGATE_STATUS_PANIC = 9,
} TidegateStatus;

// What an installer's `install` returns.
typedef enum {
  // It is installed.
  TIDEGATE_INSTALLED_OK = 0,
  // It failed, as does every number that is not listed here: the device tries again later.
  TIDEGATE_INSTALLED_FAILED = 1,
  // This release can never be installed on this device: it is quarantined.
  TIDEGATE_INSTALLED_REJECTED = 2,
  // `tidegate_watch` said that it is to end.
  TIDEGATE_INSTALLED_CANCELLED = 3,
} TidegateInstalled;

// Ends what a device does, from any thread, within a second. It may be freed before the devices that were opened with it.
typedef struct TidegateCancel TidegateCancel;

// An open device, whose state folder is locked. One thread at a time may use it; a second call at the same time, also one of a callback,
// returns `TIDEGATE_STATUS_BUSY`.
typedef struct TidegateDevice TidegateDevice;

// The installation in progress, for `tidegate_watch`.
typedef struct TidegateWatch TidegateWatch;

// An installer: functions that are called with `context`, by the thread that called the library, while it waits. Where one fails, it writes
// why, as UTF-8 with a zero byte at its end, into the `size` bytes at `text`. None of them may use the device, or leave by `longjmp` or an
// exception. `install` is needed; each of the others may be NULL.
typedef struct {
  // What the functions are called with. It must be valid until the device is closed.
  void *context;
  // Installs a release: `{"version": .., "artifacts": [{"name": .., "path": .., "length": .., "sha256": ..}]}`. The files were verified
  // when they were downloaded: verify what you read again. If the release needs a restart, the next restart runs it on trial.
  // Returns a `TidegateInstalled`.
  int (*install)(void *context, const char *release, TidegateWatch *watch, char *text, size_t size);
  // Writes into `text` the name of what runs now, such as a slot's: the old and the new release have different names. Nothing means that it
  // cannot be told: then releases count as running at once, as they do where this is NULL. Any other result than 0 is a failure, and `text` says why.
  int (*running)(void *context, char *text, size_t size);
  // Makes what runs permanent. It may be called again. Any other result than 0 is a failure. NULL: there is nothing to do.
  int (*confirm)(void *context, char *text, size_t size);
  // Makes `before`, a name from `running`, run again, now or from the next restart on. It may be called again. Any other result than
  // 0 is a failure. NULL: it cannot.
  int (*revert)(void *context, const char *before, char *text, size_t size);
} TidegateInstaller;

// Is told how far a step is, at least once a second: `phase` is `download`, `install` or `read-back`, `name` that of an artifact. Any other
// result than 0 ends the step with `TIDEGATE_STATUS_CANCELLED`. The strings are valid during the call.
typedef int (*TidegateProgress)(void *context,
                                const char *phase,
                                const char *name,
                                uint64_t done,
                                uint64_t total);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The stable name of this thread's last error, such as `no-room`; NULL after a call that worked. Like the texts below, it is valid until
// this thread's next call that returns a status, and must not be freed.
const char *tidegate_error_code(void);

// What went wrong, for people: without passwords and queries of URLs. NULL after a call that worked.
const char *tidegate_error_message(void);

// What to do about it; NULL if the message says it already.
const char *tidegate_error_hint(void);

// A token that is not cancelled. Free it with `tidegate_cancel_free`.
TidegateCancel *tidegate_cancel_new(void);

// Ends what the devices with this token do: their calls return `TIDEGATE_STATUS_CANCELLED`, and so do later ones until
// `tidegate_cancel_clear`. It waits for nothing, and any thread may call it.
//
// # Safety
//
// `token` is null or came from `tidegate_cancel_new` and was not freed.
TidegateStatus tidegate_cancel(const TidegateCancel *token);

// Lets the devices with this token work again.
//
// # Safety
//
// `token` is null or came from `tidegate_cancel_new` and was not freed.
TidegateStatus tidegate_cancel_clear(const TidegateCancel *token);

// Frees a token. NULL is allowed.
//
// # Safety
//
// `token` is null or came from `tidegate_cancel_new`, was not freed, and is not used any more.
void tidegate_cancel_free(TidegateCancel *token);

// Tells, from within the installer's `install`, that `done` of `total` bytes of an artifact are installed. Any other result than 0 means that
// the installation is to end: return `TIDEGATE_INSTALLED_CANCELLED`. Call it at least once a second.
//
// # Safety
//
// `watch` is null or what `install` was called with, which has not returned yet; `name` is null or a C string.
int tidegate_watch(TidegateWatch *watch,
                   const char *name,
                   uint64_t done,
                   uint64_t total);

// The library's version, which must not be freed.
const char *tidegate_version(void);

// Opens a device, and locks its state folder. `settings` is a JSON object; ffi/README.md lists the settings. `installer` may be NULL: then the
// settings may name one, and without any the device checks and downloads. It is copied. `cancel` may be NULL. The device must be
// closed with `tidegate_close`.
//
// # Safety
//
// Pointers are null or valid; the functions of `installer` can be called with its context until the device is closed.
TidegateStatus tidegate_open(const char *settings,
                             const TidegateInstaller *installer,
                             const TidegateCancel *cancel,
                             TidegateDevice **device);

// Closes a device and unlocks its state folder. NULL is allowed. No call may use the device.
//
// # Safety
//
// `device` is null or came from `tidegate_open`, was not closed, and is not used any more.
void tidegate_close(TidegateDevice *device);

// Finds out what runs, checks the repository, and decides. `*update` becomes NULL if there is nothing to install, else
// `{"version": .., "sequence": .., "urgency": .., "notes": [..], "length": .., "to_fetch": ..}`: that is what `tidegate_download` downloads. `*check`
// becomes what `tidegate-device check --json` prints. Either pointer may be NULL. Free the strings with `tidegate_string_free`.
//
// # Safety
//
// `device` is null or open; `check` and `update` are null or can be written.
TidegateStatus tidegate_check(TidegateDevice *device,
                              char **check,
                              char **update);

// Downloads and verifies what the last check found. It resumes partial downloads. `progress` may be NULL. `*files` becomes
// `{"version": .., "sequence": .., "artifacts": [{"name": .., "path": .., "length": ..}]}`; the pointer may be NULL.
//
// # Safety
//
// `device` is null or open; `progress` can be called with `context`; `files` is null or can be written.
TidegateStatus tidegate_download(TidegateDevice *device,
                                 TidegateProgress progress,
                                 void *context,
                                 char **files);

// Installs what was downloaded. It is on trial until `tidegate_confirm` or `tidegate_reject`. `*result` becomes
// `{"restart": .., "state": .., "installed": ..}`: with `"restart": true`, the device must restart to run it. `progress` and `result` may be NULL.
//
// # Safety
//
// `device` is null or open; `progress` can be called with `context`; `result` is null or can be written.
TidegateStatus tidegate_install(TidegateDevice *device,
                                TidegateProgress progress,
                                void *context,
                                char **result);

// Makes the running release permanent. `*record` becomes the record of what is installed; the pointer may be NULL.
//
// # Safety
//
// `device` is null or open; `record` is null or can be written.
TidegateStatus tidegate_confirm(TidegateDevice *device,
                                char **record);

// Makes the previous release run again, and quarantines the one on trial. `*result` becomes as after `tidegate_install`; the pointer may
// be NULL.
//
// # Safety
//
// `device` is null or open; `result` is null or can be written.
TidegateStatus tidegate_reject(TidegateDevice *device,
                               char **result);

// Postpones the update that the last check found at the user's request, until a time such as `2027-01-31T08:00:00Z`, as far as the setting `policy`
// lets users do that. Later checks say so in their `policy`; the caller must heed it. `*deferral` becomes `{"sequence": .., "since": .., "until": ..}`; the pointer
// may be NULL.
//
// # Safety
//
// `device` is null or open; `until` is null or a C string; `deferral` is null or can be written.
TidegateStatus tidegate_defer(TidegateDevice *device,
                              const char *until,
                              char **deferral);

// Lets a release in quarantine be tried again, by its version. The releases in quarantine are in the status.
//
// # Safety
//
// `device` is null or open; `release` is null or a C string.
TidegateStatus tidegate_lift(TidegateDevice *device, const char *release);

// `*status` becomes what the device has and knows, without a request: much of what `tidegate-device status --json` prints.
//
// # Safety
//
// `device` is null or open; `status` is null or can be written.
TidegateStatus tidegate_status(TidegateDevice *device,
                               char **status);

// Frees a string that a call gave. NULL is allowed.
//
// # Safety
//
// `string` is null or came from a call of this library that says so, and was not freed.
void tidegate_string_free(char *string);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TIDEGATE_H */
