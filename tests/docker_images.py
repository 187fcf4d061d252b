"""Images made of what is on this machine, as tar archives to import."""

import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Callable
from pathlib import Path

Build = Callable[[Path], list[str]]

LEFT_OUT = ("test", "idlelib", "tkinter", "turtledemo", "ensurepip", "site-packages", "lib2to3", "__pycache__")


def busybox(path: Path) -> list[str]:
    """Write an archive with busybox and a link for each of its commands; the image's settings."""
    with tarfile.open(path, "w") as archive:
        add_busybox(archive)
    return ["ENV PATH=/bin"]


def python(path: Path) -> list[str]:
    """Write an archive with this interpreter, its standard library and what they are linked with."""
    library = Path(sysconfig.get_path("stdlib"))
    binary = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    with tarfile.open(path, "w") as archive:
        add_busybox(archive)
        archive.add(library, filter=lambda info: None if Path(info.name).name in LEFT_OUT else info)
        archive.add(binary.resolve(), arcname=str(binary))
        for name in linked_with([binary, *library.glob("lib-dynload/*.so")]):
            archive.add(Path(name).resolve(), arcname=name)
        add_link(archive, "bin/python3", str(binary))
        add_link(archive, "bin/python", str(binary))
    libraries = f"{sys.base_prefix}/lib:/lib:/usr/lib:/lib64"
    return ["ENV PATH=/bin", f"ENV LD_LIBRARY_PATH={libraries}", f"ENV PYTHONHOME={sys.base_prefix}"]


def add_busybox(archive: tarfile.TarFile) -> None:
    """busybox as /bin/sh and so on, a root user, and /tmp."""
    program = shutil.which("busybox")
    assert program is not None
    archive.add(Path(program).resolve(), arcname="bin/busybox")
    commands = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for command in commands:
        if command != "busybox":  # it lists itself, and a link to itself runs nothing
            add_link(archive, f"bin/{command}", "busybox")
    add_file(archive, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
    for folder, mode in (("tmp", 0o1777), ("root", 0o700)):
        info = tarfile.TarInfo(folder)
        info.type, info.mode = tarfile.DIRTYPE, mode
        archive.addfile(info)


def add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    """A symbolic link."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    archive.addfile(info)


def add_file(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """A file with this content."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def linked_with(programs: list[Path]) -> set[str]:
    """The shared libraries of all of them, by ldd."""
    lines = subprocess.run(["ldd", *map(os.fspath, programs)], check=False, capture_output=True, text=True).stdout
    words = [word for line in lines.splitlines() if not line.endswith(":") for word in line.split()]
    return {word for word in words if word.startswith("/") and Path(word).exists()}
