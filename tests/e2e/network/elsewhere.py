"""A real daemon that listens on the network, and keys for it under a name, as `connect` stores."""

from pathlib import Path

from assistantd.protocol import Limits, Network, Rights
from clients import servers
from clients.servers import Server
from tests.remote import free_port, pair
from tests.running import RunningDaemon


def listen(
    daemon: RunningDaemon,
    name: str = "home",
    *,
    address: str = "127.0.0.1",
    rights: Rights = "chat",
    limits: Limits | None = None,
) -> int:
    """Let this user in as a device and start the daemon; returns the port it listens at.

    Args:
        name: of the daemon in this user's servers.json.
    """
    device = pair(Path(daemon.folder) / "data", rights=rights, limits=limits)
    daemon.start()
    port = free_port()
    with daemon.client() as client:
        client.request(Network(op="on", address=address, port=port))
    servers.put(
        Server(
            name=name,
            endpoint=f"tcp://{address}:{port}",
            server_key=device.server_key,
            public_key=device.keys.public,
            secret_key=device.keys.secret,
            device=device.id,
            words=device.info.words,
        )
    )
    return port


def move(name: str, port: int) -> None:
    """Let the stored daemon be looked for at another port of this machine: that of a cable."""
    (server,) = (each for each in servers.load() if each.name == name)
    server.endpoint = f"tcp://127.0.0.1:{port}"
    servers.put(server)
