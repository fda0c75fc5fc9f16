"""Keys of the connections, as libs/keys and libs/transport have them."""

from __future__ import annotations

import ipaddress
import os
import stat
from typing import Any, List, Optional, Sequence, Union

import zmq
import zmq.utils.z85

from ._errors import BadRequest

PUBLIC_PREFIX = "opt-public-"
SECRET_PREFIX = "opt-secret-"
_FILE_BYTES_MAX = 1 << 20
_DIGITS = frozenset("0123456789abcdef")


def _parse(text: str, prefix: str) -> bytes:
    """Never repeats what was given: it may be a secret."""
    other = SECRET_PREFIX if prefix == PUBLIC_PREFIX else PUBLIC_PREFIX
    if text.startswith(other):
        kind = "secret" if other == SECRET_PREFIX else "public"
        raise BadRequest(f"this is a {kind} key; expected {prefix} and 64 lower-case hexadecimal digits")
    digits = text[len(prefix):]
    if not text.startswith(prefix) or len(digits) != 64 or not set(digits) <= _DIGITS:
        raise BadRequest(f"expected {prefix} and 64 lower-case hexadecimal digits, found {len(text)} other characters")
    return bytes.fromhex(digits)


def _read(path: str, is_secret: bool) -> List[str]:
    """The lines of a file of keys without comments."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror}") from None
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise BadRequest(f"{path}: expected a regular file")
        forbidden = stat.S_IWGRP | stat.S_IWOTH
        if is_secret:
            forbidden |= stat.S_IROTH | stat.S_IXGRP | stat.S_IXOTH
            if about.st_uid != 0 or os.geteuid() == 0:  # root may share it with a group, as Kubernetes does
                forbidden |= stat.S_IRGRP
        if about.st_mode & forbidden:
            change = "600" if is_secret else "go-w"
            raise BadRequest(f"{path}: its group or others may use it; run: chmod {change} {path}")
        data = b""
        while len(data) <= _FILE_BYTES_MAX and (more := os.read(file, _FILE_BYTES_MAX + 1)):
            data += more
    finally:
        os.close(file)
    if len(data) > _FILE_BYTES_MAX:
        raise BadRequest(f"{path}: more than {_FILE_BYTES_MAX} bytes")
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _secret(given: str) -> bytes:
    if given.startswith((SECRET_PREFIX, PUBLIC_PREFIX)):
        return _parse(given, SECRET_PREFIX)
    lines = _read(given, True)
    if len(lines) != 1:
        raise BadRequest(f"{given}: expected one line with a secret key, found {len(lines)}")
    try:
        return _parse(lines[0], SECRET_PREFIX)
    except BadRequest as error:
        raise BadRequest(f"{given}: {error}") from None


def _servers(given: Sequence[str]) -> List[bytes]:
    found: List[bytes] = []
    for text in given:
        lines = [text] if text.startswith((SECRET_PREFIX, PUBLIC_PREFIX)) else _read(text, False)
        found.extend(_parse(line, PUBLIC_PREFIX) for line in lines)
    return found


def is_local(endpoint: str) -> bool:
    """Whether only this machine takes part in a connection to this endpoint; of several addresses, to all of them."""
    if "|" in endpoint:
        return all(is_local(place) for place in endpoint.split("|"))
    if endpoint.startswith(("ipc://", "inproc://")):
        return True
    host = endpoint[len("tcp://"):].rpartition(":")[0] if endpoint.startswith("tcp://") else ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Keys:
    """Of a client: its own, and those by which it knows schedulers. Its file is read again for each connection."""

    def __init__(self, secret: str, servers: Sequence[str]) -> None:
        self._secret_source = secret
        self._own = _secret(secret)
        self.servers = _servers(servers)
        if not self.servers:
            raise BadRequest("server_key: expected the public key of the scheduler")

    def __repr__(self) -> str:
        return "<Keys>"

    @property
    def public_text(self) -> str:
        return PUBLIC_PREFIX + self._public().hex()

    def _public(self) -> bytes:
        return zmq.utils.z85.decode(zmq.curve_public(zmq.utils.z85.encode(self._own)))

    def set_on(self, socket: Any, server: int) -> None:
        """Before it connects. `server`: a number, for the next possible key of the scheduler."""
        try:
            self._own = _secret(self._secret_source)
        except BadRequest:
            pass  # a file that is being replaced: the key that was read last goes on
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.servers[server % len(self.servers)])
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._public())
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._own)


def find_keys(secret_key: str, server_key: Union[str, Sequence[str]], endpoints: Sequence[str],
              insecure: bool) -> Optional[Keys]:
    """What is not given comes from OPTSERVE_SECRET_KEY and OPTSERVE_SERVER_KEY. None: there are no keys."""
    secret = secret_key or os.environ.get("OPTSERVE_SECRET_KEY", "")
    servers = server_key or os.environ.get("OPTSERVE_SERVER_KEY", "")
    parts = [part for part in servers.split(",") if part] if isinstance(servers, str) else list(servers)
    if secret:
        if not zmq.has("curve"):
            raise BadRequest("secret_key: this libzmq was built without CURVE")
        return Keys(secret, parts)
    if parts:
        raise BadRequest("secret_key: expected a file, since there is a server_key; `optserve keys new` makes one")
    for endpoint in endpoints:
        if not insecure and not is_local(endpoint):
            raise BadRequest(f"connect to {endpoint!r}: others reach that, and there are no keys. Make one with "
                             "`optserve keys new NAME`, have it allowed with `optserve keys allow`, and give "
                             "secret_key and server_key; or insecure=True, where the network keeps others out")
    return None
