"""Python imports this at its start where the folder is on PYTHONPATH: no connection leaves the machine, and each try is
written down in the file that ALIGNSLM_CONNECTIONS names. Forks inherit it, processes that they start import it again.
"""

import ipaddress
import os
import sys
from pathlib import Path

RECORD = Path(os.environ["ALIGNSLM_CONNECTIONS"])


def is_here(host):
    """Tell whether a host is this machine: no host at all, localhost or a loopback address."""
    name = host.decode() if isinstance(host, bytes) else host
    try:
        return name in {None, "", "localhost"} or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_of(event, arguments):
    """Return the host that an audit event is about; None where none is (files, other families of addresses)."""
    if event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        return arguments[0]
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        address = arguments[1]
        return address[0] if isinstance(address, tuple) and isinstance(address[0], str) else None
    return None


def refuse(event, arguments):
    """Write down what would leave the machine, and refuse it."""
    if event.startswith("socket.") and not is_here(host := host_of(event, arguments)):
        note(f"{event} {host} {' '.join(sys.orig_argv)}")
        raise ConnectionRefusedError(f"{event} {host}: only loopback is allowed here")


def note(line):
    """Append a line at once, whichever process writes."""
    with RECORD.open("a", encoding="utf-8") as record:
        record.write(f"{' '.join(line.split())}\n")


note(f"started {' '.join(sys.orig_argv)}")
sys.addaudithook(refuse)
