"""The daemon as a whole: what is started, in which order, and stopped in the reverse.

    locks → storage → model store → scheduler (engine thread) → server (this thread)

Also the answers that need no engine: ping, status, sessions, models.
"""

import contextlib
import errno
import fcntl
import logging
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import IO

from assistantd import protocol
from assistantd.budget import Watch
from assistantd.config import Config
from assistantd.jobs import Job
from assistantd.loading import load_engine, plan_model
from assistantd.log import fields
from assistantd.models import ModelStore, StoreError
from assistantd.protocol import Done, Progress, Reply, SessionInfo, StatusInfo
from assistantd.scheduler import LoadRequest, Scheduler, State, error
from assistantd.server import Peer, Server
from assistantd.sessions import NewerSchemaError, SessionStore
from assistantd.storage import Storage

log = logging.getLogger(__name__)

Reply_ = Callable[[Reply], None]


class AlreadyRunningError(Exception):
    """Another daemon holds the lock of this socket or of these data."""


class StartError(Exception):
    """The daemon cannot start; the message says what to do."""


def take_lock(path: Path) -> IO[str]:
    """Hold a file's lock for as long as it is open; it says who holds it.

    Raises:
        AlreadyRunningError: another process holds it.
        StartError: the file cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as problem:
        raise StartError(f"cannot write {path}: {problem.strerror}") from problem
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        if problem.errno not in (errno.EAGAIN, errno.EACCES):
            raise StartError(f"cannot lock {path}: {problem.strerror}") from problem
        raise AlreadyRunningError(f"assistantd runs already, as process {holder}") from problem
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def notify_systemd(*lines: str) -> None:
    """Tell systemd, if it started us and wants to know (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.sendall("\n".join(lines).encode())
        except OSError as problem:
            log.warning("cannot notify systemd", extra=fields(problem=problem))


class Daemon:
    """The parts of the daemon and the requests that need no engine.

    Args:
        load: makes the engine from a path; replaced in unit tests.
    """

    def __init__(self, config: Config, *, load: Callable[..., object] = load_engine) -> None:
        self._config, self._load_engine = config, load
        self._started = time.monotonic()
        self._stop_requested = 0  # how often
        self._stopping = 0
        self._engine_ended = threading.Event()
        self._pulls: dict[tuple[bytes, bytes], threading.Event] = {}
        self._closing = contextlib.ExitStack()

    # --- start and stop ----------------------------------------------------------------------

    def run(self, *, install_signals: bool = True) -> None:
        """Start, serve until told to stop, stop.

        Raises:
            AlreadyRunningError, StartError: before anything was changed.
        """
        config = self._config
        with self._closing as closing:
            socket_path = config.listen.removeprefix("ipc://")
            closing.enter_context(take_lock(config.data_path / "assistantd.lock"))
            closing.enter_context(take_lock(Path(f"{socket_path}.lock")))
            try:
                storage = Storage(config.data_path / "sessions.db")
            except (sqlite3.Error, NewerSchemaError) as problem:
                raise StartError(f"cannot open the sessions: {problem}") from problem
            self._storage = storage
            self._store = ModelStore(config.data_path / "models")
            self._scheduler = Scheduler(config, self._store, storage, load=self._load_engine)  # type: ignore[arg-type]
            self._scheduler.on_state = self._state_changed
            # what is deleted until the storage is closed must not stay in what the engine saved
            closing.callback(self._scheduler.forget_rest)
            closing.callback(storage.close)
            self._workers = ThreadPoolExecutor(4, thread_name_prefix="models")
            closing.callback(self._workers.shutdown)
            closing.callback(self._cancel_pulls)
            self._watch = Watch(self._scheduler.relieve, self._scheduler.relax)
            self._scheduler.engine_memory.on_budget = self._budget_changed
            self._scheduler.engine_memory.excess = self._watch.excess
            self._server = Server(config.listen, self._handle, self._client_gone)
            closing.callback(self._server.close)
            # answers that are being stored are sent before the socket closes
            closing.callback(lambda: storage.call(lambda store: None).result())
            self._server.bind()
            log.info("listening", extra=fields(endpoint=config.listen, data=config.data_path))
            self._scheduler.start()
            self._watch.start()
            closing.callback(self._watch.close)
            waiter = threading.Thread(target=self._wait_for_engine, name="waiter", daemon=True)
            waiter.start()
            if install_signals:
                closing.callback(self._install_signals())
            self._server.serve(self._is_over)
        log.info("stopped")

    def stop(self) -> None:
        """Stop as SIGTERM does; a second call cancels what is still being answered."""
        self._stop_requested += 1
        self._server.bell.ring()

    def _install_signals(self) -> Callable[[], None]:
        before_fd = signal.set_wakeup_fd(self._server.bell.writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())

        def ignore() -> None:
            # the process is ending already: one signal more must not spoil its exit code
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            signal.set_wakeup_fd(before_fd)

        return ignore

    def _is_over(self) -> bool:
        """Asked by the serving thread whenever the bell rang: acts on stop requests."""
        if self._stop_requested > self._stopping:
            grace = self._config.limits.shutdown_grace_s if not self._stopping else 0.0
            self._stopping = self._stop_requested
            log.info("stopping", extra=fields(grace_s=grace))
            notify_systemd("STOPPING=1")
            self._scheduler.shut_down(grace)
        return self._engine_ended.is_set()

    def _wait_for_engine(self) -> None:
        self._scheduler.join()
        self._engine_ended.set()
        self._server.bell.ring()

    def _state_changed(self, state: State, message: str) -> None:
        if state in ("ready", "no_model"):
            notify_systemd("READY=1", f"STATUS={message or state}")
        else:
            notify_systemd(f"STATUS={message or state}")

    def _budget_changed(self, budget: int | None) -> None:
        self._watch.budget = budget

    def _cancel_pulls(self) -> None:
        for stop in list(self._pulls.values()):
            stop.set()

    # --- requests ----------------------------------------------------------------------------

    def _handle(self, peer: Peer, request: protocol.Request, reply: Reply_) -> None:
        """Answer a request, or hand it on; runs on the serving thread and must not block."""
        match request:
            case protocol.Chat() | protocol.Complete():
                self._scheduler.submit(Job(peer.identity, peer.request_id, request, reply))
            case protocol.Cancel():
                self._cancel(peer, request, reply)
            case protocol.Ping():
                reply(Done(version=version("assistantd"), message=self._scheduler.state))
            case protocol.Status():
                reply(Done(status=self._status()))
            case protocol.Sessions():
                self._sessions(request, reply)
            case protocol.Models():
                self._models(peer, request, reply)
            case protocol.Budget():
                self._scheduler.set_budget(request.bytes or None, reply)
            case protocol.Shutdown():
                reply(Done(message="stopping"))
                self.stop()

    def _cancel(self, peer: Peer, request: protocol.Cancel, reply: Reply_) -> None:
        target = request.target.encode()
        pull = self._pulls.get((peer.identity, target))
        if pull is not None:
            pull.set()
            reply(Done(message="cancelled"))
        else:
            self._scheduler.cancel(peer.identity, target, reply)

    def _client_gone(self, identity: bytes) -> None:
        self._scheduler.drop_client(identity)
        for (client, _), stop in list(self._pulls.items()):
            if client == identity:
                stop.set()

    def _status(self) -> StatusInfo:
        scheduler = self._scheduler
        message = scheduler.message
        if self._storage.set_aside:
            message += (
                f" (the session database was damaged and set aside as {self._storage.set_aside})"
            )
        return StatusInfo(
            version=version("assistantd"),
            pid=os.getpid(),
            uptime_s=round(time.monotonic() - self._started, 1),
            state=scheduler.state,
            model=scheduler.model,
            queue=scheduler.queue_status(),
            memory={**self._watch.memory(), **scheduler.engine_memory.used},
            requests_served=scheduler.requests_served,
            tokens_generated=scheduler.tokens_generated,
            tokens_per_second=scheduler.tokens_per_second,
            message=message.strip(),
            budget=self._watch.budget,
            plan=scheduler.engine_memory.plan,
        )

    def _sessions(self, request: protocol.Sessions, reply: Reply_) -> None:
        session = request.session or ""

        def work(store: SessionStore) -> Reply:
            if request.op == "list":
                return Done(sessions=store.list())
            found: SessionInfo | bool | None
            if request.op == "show":
                found = store.show(session)
            elif request.op == "rename":
                found = store.rename(session, request.title or session)
            else:
                found = store.delete(session)
                if found:  # its words are in the engine's cache, too, and perhaps on disk
                    self._scheduler.forget_cached()
            if not found:
                text = f"there is no session {session!r}; see `assistant sessions list`"
                return error("not_found", text)
            return (
                Done(session=found) if isinstance(found, SessionInfo) else Done(message="deleted")
            )

        self._answer_later(self._storage.call(work), reply)

    def _answer_later(self, future: "Future[Reply]", reply: Reply_) -> None:
        def answer(done: "Future[Reply]") -> None:
            problem = done.exception()
            if problem is None:
                reply(done.result())
            elif isinstance(problem, StoreError):
                reply(error(problem.code, str(problem)))
            else:
                log.error("request failed", exc_info=problem)
                reply(error("internal", f"the daemon failed: {problem}; see its log"))

        future.add_done_callback(answer)

    def _models(self, peer: Peer, request: protocol.Models, reply: Reply_) -> None:
        name = request.name or ""
        if request.op in ("load", "unload"):
            self._scheduler.load(LoadRequest(request.name if request.op == "load" else None, reply))
            return
        if request.op == "pull":
            self._pull(peer, name, reply)
            return

        def work() -> Reply:
            if request.op == "list":
                models = self._store.list()
                for model in models:
                    self._mark(model)
                return Done(models=models)
            if request.op == "show":
                return Done(model=self._show(name, request.budget))
            loaded = self._scheduler.model
            if loaded is not None and loaded.name == name:
                text = f"{name} is in use; `assistant models unload` first, then remove it"
                return error("bad_request", text)
            self._store.remove(name)
            return Done(message=f"{name} was removed")

        self._answer_later(self._workers.submit(work), reply)

    def _show(self, name: str, budget: int | None) -> protocol.ModelInfo:
        """A model with the plan for a budget: 0 for none, None for the daemon's own."""
        model = self._store.show(name)
        self._mark(model)
        if model.problem is None:
            budget = self._watch.budget if budget is None else budget or None
            memory = self._scheduler.engine_memory
            model.plan = plan_model(
                self._store.resolve(name),
                self._config,
                budget,
                base_bytes=memory.base_bytes,
                machine=memory.machine,
            )
        return model

    def _mark(self, model: protocol.ModelInfo) -> None:
        loaded = self._scheduler.model
        model.loaded = loaded is not None and loaded.name == model.name
        model.default = model.name == self._config.model

    def _pull(self, peer: Peer, name: str, reply: Reply_) -> None:
        key = (peer.identity, peer.request_id)
        stop = self._pulls[key] = threading.Event()

        def work() -> Reply:
            try:
                reply(Progress("download", f"looking for {name}"))
                model = self._store.pull(name, progress=reply, cancelled=stop.is_set)
            finally:
                del self._pulls[key]
            self._scheduler.load_if_missing()
            self._mark(model)
            return Done(model=model, message=f"{model.name} is here")

        self._answer_later(self._workers.submit(work), reply)
