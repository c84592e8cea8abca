"""A Python that takes itself to be on another system."""

_IMPORTED = """
import sys
# These choose their ways of doing things when they are imported, and are not what is looked at here.
import asyncio, ctypes, getpass, hashlib, http.client, multiprocessing, pathlib, random, selectors, shutil, signal
import socket, ssl, subprocess, tempfile, threading, urllib.request, uuid, webbrowser, zipfile, zoneinfo
import anyio, anyio._backends._asyncio, click, filelock, httpcore, httpx, httpx_sse, rich.console, rich.progress, typer
import click._compat, click.termui, click.shell_completion, typer.completion, typer.rich_utils, rich.prompt, rich.live
import pydantic
"""

MACOS = (
    _IMPORTED
    + """
sys.platform = "darwin"
"""
)

# Without what only Unix has.
WINDOWS = (
    _IMPORTED
    + """
import os

GONE = {"fcntl", "grp", "nis", "ossaudiodev", "posix", "pty", "pwd", "readline", "resource", "spwd", "syslog",
        "termios", "tty", "crypt"}

class Unix:
    def find_spec(self, name, path=None, target=None):
        if name in GONE:
            raise ModuleNotFoundError(f"No module named {name!r} on Windows", name=name)

for name in GONE:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Unix())
for name in ("EX_CONFIG", "EX_OK", "EX_USAGE", "WNOHANG", "O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "fork", "forkpty",
             "geteuid", "getegid", "getuid", "getgid", "getgroups", "getpgid", "getloadavg", "killpg", "mkfifo",
             "pipe2", "posix_spawn", "posix_fadvise", "sched_getaffinity", "setsid", "setpgid", "sysconf", "uname",
             "wait4", "chown", "fchown", "fchmod", "statvfs"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGALRM", "SIGPIPE", "SIGQUIT", "SIGTSTP",
             "SIGWINCH", "pthread_sigmask", "alarm", "setitimer"):
    if hasattr(signal, name):
        delattr(signal, name)
if hasattr(socket, "AF_UNIX"):
    del socket.AF_UNIX
pathlib.WindowsPath = pathlib.PosixPath  # what Path() makes where os.name is nt; the disk remains a Unix one
sys.platform, os.name = "win32", "nt"
"""
)
