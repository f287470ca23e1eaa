"""A machine of its own for a node: real systemd as process 1, in namespaces, over a Debian root.

What a node sees is made as on EC2: metadata at 169.254.169.254, S3 by AWS's own names over HTTPS,
credentials of a role. Its network is one interface without a way out. Needs Linux, root and a root
file system (`SHUNT_NODE_ROOT`, or one that debootstrap makes once).
"""

import ctypes
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = (
    "systemd,systemd-sysv,dbus,udev,python3.11,gcc,libc6-dev,ca-certificates,kmod,procps,iproute2,"
    "util-linux,e2fsprogs,mount"
)
LATER_PACKAGES = ("python3.11-venv", "python3.11-dev", "awscli", "libnuma1")
"""Some of these depend on virtual packages, which debootstrap does not know."""
ADDRESS = "10.0.0.7"
IMDS = "169.254.169.254"
S3_ADDRESS = "52.216.0.1"
_CLONE_NEWNET = 0x40000000
_ENTER = "-m", "-p", "-n", "-u", "-i", "-C"
_BOOT_S = 120.0


def debian_root() -> Path:
    """The root file system of a fresh machine, made once. Raises `RuntimeError` where it cannot."""
    if named := os.environ.get("SHUNT_NODE_ROOT"):
        return Path(named)
    root = REPOSITORY / ".cache" / "node-root"
    if (root / "complete").exists():
        return root
    if shutil.which("debootstrap") is None:
        raise RuntimeError("no debootstrap: apt-get install debootstrap, or set SHUNT_NODE_ROOT")
    shutil.rmtree(root, ignore_errors=True)
    mirror = "http://deb.debian.org/debian"
    made = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root, mirror]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    for command in (["update", "-q"], ["install", "-qy", *LATER_PACKAGES]):
        subprocess.run(["chroot", root, "apt-get", *command], check=True, stdout=subprocess.DEVNULL)
    (root / "complete").touch()
    return root


@dataclass(slots=True)
class Machine:
    """One machine. `root` is its file system as seen from here while it is off."""

    folder: Path
    root: Path
    binds: dict[Path, Path] = field(default_factory=dict[Path, Path])
    """Folders of this machine by where they are seen in the other one, read-only."""
    _process: "subprocess.Popen[bytes] | None" = None
    _pid: int = 0
    _servers: ExitStack = field(default_factory=ExitStack)

    def boot(self) -> None:
        """Start process 1 and wait until systemd is there."""
        script = self.folder / "boot.sh"
        script.write_text(_boot_script(self.root, self.binds))
        with (self.folder / "console").open("wb") as console:
            self._process = subprocess.Popen(
                ["unshare", *_ENTER, "--fork", "--kill-child", "bash", str(script)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: self._find_pid() and self._is_up(), _BOOT_S)
        for address in (ADDRESS, IMDS, S3_ADDRESS):
            self.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        self.run("ip", "link", "set", "lo", "up")

    @property
    def is_on(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command as root in the machine; what it printed."""
        done = subprocess.run(
            ["nsenter", "-t", str(self._pid), *_ENTER, "--", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if check and done.returncode:
            raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def journal(self, unit: str = "") -> str:
        """What the machine has logged, also after it is off."""
        journals = self.folder / "upper" / "var/log/journal"
        command = ["journalctl", "--no-pager", "-D", str(journals), "-o", "short-precise"]
        if unit:
            command += ["-u", unit]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def listening(self, address: str, port: int) -> socket.socket:
        """A listening socket of the machine's network, served from here."""
        made: list[socket.socket] = []

        def make() -> None:  # in a thread: a namespace is a thread's
            with open(f"/proc/{self._pid}/ns/net") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                    return
            made.append(socket.create_server((address, port)))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        (found,) = made
        return found

    def serve(self, stack: Callable[[], object]) -> None:
        self._servers.callback(stack)

    def wait_off(self, within_s: float) -> None:
        wait_until(lambda: not self.is_on, within_s)

    def end(self) -> None:
        self._servers.close()
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()

    def _find_pid(self) -> bool:
        """Process 1 of the machine: the child of `unshare`."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError((self.folder / "console").read_text())
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        children = path.read_text().split()
        self._pid = int(children[0]) if children else 0
        return bool(children) and Path(f"/proc/{self._pid}/comm").read_text().strip() == "systemd"

    def _is_up(self) -> bool:
        told = self.run("systemctl", "is-system-running", check=False).strip()
        return told in ("running", "degraded")


@contextmanager
def machine(folder: Path) -> Generator[Machine]:
    """A machine that is off, over a fresh layer above the Debian root; gone when left."""
    upper, work, root = (folder / name for name in ("upper", "work", "root"))
    for path in (upper, work, root):
        path.mkdir(parents=True)
    options = f"lowerdir={debian_root()},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, root], check=True)
    found = Machine(folder, root)
    try:
        yield found
    finally:
        found.end()
        subprocess.run(["umount", "-l", root], check=True)


def relay(listener: socket.socket, target: tuple[str, int], tls: ssl.SSLContext) -> None:
    """Ends TLS at the listener and hands the bytes on, until the listener is closed."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(raw: socket.socket) -> None:
        try:
            front = tls.wrap_socket(raw, server_side=True)
            back = socket.create_connection(target)
        except OSError:
            raw.close()
            return
        with front, back:
            other = threading.Thread(target=pump, args=(back, front), daemon=True)
            other.start()
            pump(front, back)
            other.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                raw, _ = listener.accept()
                threading.Thread(target=serve, args=(raw,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def wait_until(done: Callable[[], object], within_s: float) -> None:
    deadline_s = time.monotonic() + within_s
    while not done():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {within_s:.0f} s")
        time.sleep(0.2)


def _boot_script(root: Path, binds: dict[Path, Path]) -> str:
    devices: Sequence[str] = ("null", "zero", "full", "random", "urandom", "tty")
    mounts = [
        f"mkdir -p .{inside} && mount --bind {outside} .{inside}"
        f" && mount -o remount,bind,ro .{inside}"
        for inside, outside in binds.items()
    ]
    return "\n".join(
        [
            "set -e",
            "mount --make-rprivate /",
            f"mount --bind {root} {root} && cd {root}",
            "mount -t proc proc proc && mount -t sysfs sysfs sys",
            "mount -t tmpfs tmpfs dev -o mode=755",
            *(f"touch dev/{name} && mount --bind /dev/{name} dev/{name}" for name in devices),
            "mkdir -p dev/pts dev/shm",
            "mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666",
            "ln -s pts/ptmx dev/ptmx && mount -t tmpfs tmpfs dev/shm -o size=4g",
            "mount -t tmpfs tmpfs run -o mode=755 && mount -t tmpfs tmpfs tmp",
            "mount -t cgroup2 cgroup2 sys/fs/cgroup",
            *mounts,
            "mkdir -p old && pivot_root . old && umount -l /old",
            "exec env -i container=shunt PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd",
        ]
    )
