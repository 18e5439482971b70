"""A whole update with the shared library, by ctypes: check, download with progress, install into the file of the setting `slot`, confirm.

    update.py LIBRARY SETTINGS

LIBRARY is libtidegate_ffi.so; SETTINGS is a file with the settings as JSON (ffi/README.md).
"""

import ctypes
import json
import sys
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int, c_uint64, c_void_p

CANCELLED = 7
Progress = CFUNCTYPE(c_int, c_void_p, c_char_p, c_char_p, c_uint64, c_uint64)


class TidegateError(Exception):
    """A call that failed: `status` is a number of the header, `code` a stable name."""

    def __init__(self, status, code, message, hint):
        super().__init__(message + (f" ({hint})" if hint else ""))
        self.status, self.code = status, code


class Device:
    """A device; used by one thread at a time."""

    def __init__(self, library, settings):
        self.library = ctypes.CDLL(library)
        for name in ("code", "message", "hint"):
            getattr(self.library, f"tidegate_error_{name}").restype = c_char_p
        self.library.tidegate_close.argtypes = [c_void_p]
        self.library.tidegate_close.restype = None
        self.library.tidegate_string_free.argtypes = [c_void_p]
        self.library.tidegate_string_free.restype = None
        self.handle = c_void_p()
        text = json.dumps(settings).encode()
        self.must(self.library.tidegate_open(c_char_p(text), None, None, byref(self.handle)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.library.tidegate_close(self.handle)

    def must(self, status):
        if status != 0:
            texts = [getattr(self.library, f"tidegate_error_{name}")() for name in ("code", "message", "hint")]
            raise TidegateError(status, *(text.decode() if text else None for text in texts))

    def taken(self, string):
        """A result, whose string is freed."""
        if not string:
            return None
        try:
            return json.loads(ctypes.cast(string, c_char_p).value)
        finally:
            self.library.tidegate_string_free(string)

    def check(self):
        check, update = c_void_p(), c_void_p()
        self.must(self.library.tidegate_check(self.handle, byref(check), byref(update)))
        return self.taken(check), self.taken(update)

    def step(self, name, progress):
        """`progress` is called with phase, name, done and total; whatever it returns that is true ends the step."""
        call = Progress(lambda _, phase, name, *numbers: bool(progress(phase.decode(), name.decode(), *numbers)))
        result = c_void_p()
        self.must(getattr(self.library, f"tidegate_{name}")(self.handle, call, None, byref(result)))
        return self.taken(result)

    def result(self, name):
        result = c_void_p()
        self.must(getattr(self.library, f"tidegate_{name}")(self.handle, byref(result)))
        return self.taken(result)


def main(library, settings):
    with open(settings, encoding="utf-8") as file:
        settings = json.load(file)
    with Device(library, settings) as device:
        check, update = device.check()
        print("outcome", check["explanation"]["outcome"]["kind"])
        if update is None:
            return
        print("found", update["version"], update["length"], "bytes")
        try:
            device.step("download", lambda *_: True)
        except TidegateError as error:
            # It is resumed where it was ended.
            assert (error.status, error.code) == (CANCELLED, "cancelled"), error
        files = device.step("download", lambda phase, name, done, total: print(phase, name, done, total))
        print("downloaded", ", ".join(file["name"] for file in files["artifacts"]))
        result = device.step("install", lambda *_: False)
        if result["restart"]:
            print("restart, and confirm then")
            return
        record = device.result("confirm")
        print("confirmed", record["release"]["version"], record["state"])
        print("runs", device.result("status")["device"]["installed"]["version"])


if __name__ == "__main__":
    main(*sys.argv[1:])
