"""Artifact sets for tests: a folder with all that one may hold, and manifests made by hand."""

import hashlib
import os
import stat
from pathlib import Path

from dstack.model import keys
from dstack.model import manifest as manifests
from dstack.model.manifest import Manifest
from dstack.store.store import Store

MIB = 1024 * 1024


def shape(folder: Path) -> dict[str, tuple[str, int, bytes]]:
    """All that lies in a folder: kind, mode, content or target."""
    return {str(path.relative_to(folder)): one(path) for path in folder.rglob("*")}


def one(path: Path) -> tuple[str, int, bytes]:
    mode = path.lstat().st_mode
    if path.is_symlink():
        return "link", stat.S_IMODE(mode), os.fsencode(path.readlink())
    if path.is_dir():
        return "folder", stat.S_IMODE(mode), b""
    return "file", stat.S_IMODE(mode), path.read_bytes()


def put_manifest(store: Store, manifest: Manifest) -> str:
    data = manifests.to_bytes(manifest)
    store.put(keys.manifest(manifests.digest(data)), data)
    return manifests.digest(data)


def put_content(store: Store, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    store.put(keys.content(digest), data)
    return digest


def rich(job: Path) -> None:
    """Everything an artifact may hold."""
    out = job / "out"
    (out / "deep" / "deeper").mkdir(parents=True)
    (out / "empty").mkdir(mode=0o700)
    (out / "deep" / "deeper" / "zero").touch()
    (out / "model.bin").write_bytes(bytes(range(256)) * 100)
    (out / "run.sh").write_text("#!/bin/sh\n")
    (out / "run.sh").chmod(0o755)
    (out / "private").write_text("x")
    (out / "private").chmod(0o600)
    (out / "big").write_bytes(b"big" * 2 * MIB)
    (out / "same as big").write_bytes(b"big" * 2 * MIB)
    (out / "to file").symlink_to("deep/deeper/zero")
    (out / "to folder").symlink_to("deep")
    (out / "dangling").symlink_to("/nowhere/at/all")
    (out / "new\nline -x \\ ü").write_text("odd")
    (out / os.fsdecode(b"\xff\xfe")).write_bytes(b"no UTF-8")
    (out / os.fsdecode(b"\xfd")).symlink_to(os.fsdecode(b"\xff target"))
    (out / "deep" / "closed").mkdir()
    (out / "deep" / "closed" / "file").write_text("x")
    (out / "deep" / "closed").chmod(0o555)
