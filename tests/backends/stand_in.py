"""A stand-in for `argosy serve`: starts within 20 ms, answers probes, misbehaves as it is told.

Run by path with `python -I -S`; imports nothing of ours. Besides probes it answers /args with its argv, /env/NAME with
a variable, /cores with the cores it may use, and /die, which ends it.
"""

import os
import signal
import socket
import subprocess
import sys
import time


def option(name: str, otherwise: str = "") -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else otherwise


def answer(path: str, began: float) -> str:
    is_ready = time.monotonic() - began >= float(option("--ready-after", "0"))
    if path == "/readyz":
        return ("200 OK", '{"start_seconds": {"weights": 0.25}}')[:2] if is_ready else ("503 No", "{}")
    if path == "/args":
        return "200 OK", "\0".join(sys.argv[1:])
    if path == "/cores":
        return "200 OK", ",".join(map(str, sorted(os.sched_getaffinity(0))))
    if path.startswith("/env/"):
        return "200 OK", os.environ.get(path[5:], "")
    if path == "/die":
        os._exit(7)
    return "200 OK", "{}"


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "--stubborn" in sys.argv else lambda *_: leave())
    print("hello from", os.getpid(), flush=True)
    if "--fail" in sys.argv:
        print("cannot read the weights", flush=True)
        sys.exit(int(option("--fail")))
    if "--child" in sys.argv:
        subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    hoard = bytearray(int(option("--bytes", "0")))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((option("--host", "127.0.0.1"), int(option("--port"))))
    listener.listen(64)
    began = time.monotonic()
    while True:
        connection, _ = listener.accept()
        with connection:
            words = connection.recv(4096).split()
            status, body = answer(words[1].decode(), began)
            connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        assert hoard is not None


def leave() -> None:
    print("goodbye", flush=True)
    time.sleep(float(option("--drain", "0")))
    os._exit(0)


main()
