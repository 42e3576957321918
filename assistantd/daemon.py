"""The daemon as a whole: what is started, in which order, and stopped in the reverse.

    locks → storage, devices → model store → scheduler (engine thread) → server (this thread)

Also the answers that need no engine: ping, status, sessions, models. What concerns devices and
the network is answered by network/remote.py.
"""

import contextlib
import errno
import fcntl
import logging
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from assistantd import protocol
from assistantd.activation import ActivationError, inherited_socket
from assistantd.budget import Watch, human_mib
from assistantd.config import Config, LoadedConfig
from assistantd.database import NewerSchemaError
from assistantd.doors import Door
from assistantd.durable import durable_folder
from assistantd.forgetting import Choice
from assistantd.i18n import _
from assistantd.jobs import Job
from assistantd.loading import attach_disk, load_engine, plan_model
from assistantd.log import fields, notify_systemd, set_up, text_fields
from assistantd.log_crashes import Crashes
from assistantd.metrics import counters
from assistantd.model_change import LoadRequest, error
from assistantd.models import ModelStore, StoreError
from assistantd.network.remote import Remote
from assistantd.privacy import Forgetter
from assistantd.protocol import Done, Progress, Reply, StatusInfo
from assistantd.pulse import Pulse
from assistantd.release import VERSION
from assistantd.reload import Reloader
from assistantd.retention import Retention
from assistantd.scheduler import Scheduler, State
from assistantd.server import Peer, Server, client_of
from assistantd.sessions import SessionStore
from assistantd.storage import DamagedError, Storage
from assistantd.watchdog import Watchdog

log = logging.getLogger(__name__)

STOP_S = 40.0
"""What ending may take beside the answers: conversations are saved, for ten seconds at most."""
Reply_ = Callable[[Reply], None]


class AlreadyRunningError(Exception):
    """Another daemon holds the lock of this socket or of these data."""


class CrashedError(Exception):
    """A thread that the daemon cannot do without has ended; that was reported."""


class StartError(Exception):
    """The daemon cannot start; the message says what to do."""


def take_lock(path: Path) -> IO[str]:
    """Hold a file's lock for as long as it is open; it says who holds it.

    Raises:
        AlreadyRunningError: another process holds it.
        StartError: the file cannot be made.
    """
    try:
        durable_folder(path.parent)
        file = path.open("a+", encoding="utf-8")
    except OSError as problem:
        raise StartError(
            _("cannot write {path}: {problem}").format(path=path, problem=problem.strerror)
        ) from problem
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        file.seek(0)
        holder = file.read().strip() or _("unknown")
        file.close()
        if problem.errno not in (errno.EAGAIN, errno.EACCES):
            raise StartError(
                _("cannot lock {path}: {problem}").format(path=path, problem=problem.strerror)
            ) from problem
        raise AlreadyRunningError(
            _("assistantd runs already, as process {pid}").format(pid=holder)
        ) from problem
    try:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
    except OSError as problem:  # the disk is full: the lock is held, and that is what counts
        log.warning("cannot write to the lock", extra=fields(path=path, problem=problem))
    return file


class Daemon:
    """The parts of the daemon and the requests that need no engine.

    Args:
        read: reads the settings again, from the sources of the start.
        crashes: is started once this is the only daemon of its data.
        load, attach, plan: make the engine from a path, give it its folder, and plan it; replaced
            in unit tests.
    """

    def __init__(
        self,
        config: Config,
        read: Callable[[], LoadedConfig] | None = None,
        crashes: Crashes | None = None,
        *,
        load: Callable[..., Any] = load_engine,
        attach: Callable[..., None] = attach_disk,
        plan: Callable[..., protocol.PlanInfo] = plan_model,
    ) -> None:
        self._config, self._load_engine, self._attach, self._plan = config, load, attach, plan
        self._crashes = crashes
        self.has_started = False
        """Whether it has come so far that it serves."""
        self._read = read or (lambda: LoadedConfig(config, {}))
        self._started = time.monotonic()
        self._stop_requested = 0  # how often
        self._stopping = 0
        self._reload_requested = self._reloads = 0
        self._terminal = sys.stdin is not None and sys.stdin.isatty()
        self._engine_ended = threading.Event()
        self._pulls: dict[Peer, threading.Event] = {}
        self._closing = contextlib.ExitStack()

    # --- start and stop ----------------------------------------------------------------------

    def run(self, *, install_signals: bool = True) -> None:
        """Start, serve until told to stop, stop.

        Raises:
            AlreadyRunningError, StartError: before anything was changed.
        """
        config = self._config
        with self._closing as closing:
            try:
                inherited = inherited_socket()
            except ActivationError as problem:
                raise StartError(str(problem)) from problem
            endpoint = config.listen if inherited is None else f"ipc://{inherited.path}"
            closing.enter_context(take_lock(config.data_path / "assistantd.lock"))
            if inherited is None:  # else systemd sees to it that there is one listener
                socket_path = config.listen.removeprefix("ipc://")
                closing.enter_context(take_lock(Path(f"{socket_path}.lock")))
            if self._crashes is not None:
                self._crashes.start()
            try:
                storage = Storage(config.data_path / "sessions.db")
            except (sqlite3.Error, NewerSchemaError) as problem:
                raise StartError(
                    _("cannot open the sessions: {problem}").format(problem=problem)
                ) from problem
            self._storage = storage
            self._remote = remote = self._open_remote()
            closing.callback(remote.close)
            self._store = ModelStore(config.data_path / "models")
            self._scheduler = Scheduler(
                config, self._store, storage, load=self._load_engine, attach=self._attach
            )
            self._scheduler.on_state = self._state_changed
            self._forgetter = Forgetter(
                config.data_path, storage, self._scheduler, remote.forget_answers
            )
            # what is deleted until the storage is closed must not stay in what the engine saved
            closing.callback(lambda: self._forgetter.close(self._scheduler.forget_rest()))
            closing.callback(storage.close)
            self._retention = Retention(
                config.privacy.retention_days, config.data_path, storage, self._forgetter
            )
            self._workers = ThreadPoolExecutor(4, thread_name_prefix="models")
            closing.callback(self._workers.shutdown)
            closing.callback(lambda: self._stop_pulls(lambda peer: True))
            self._watch = Watch(self._relieve, self._scheduler.relax)
            self._scheduler.engine_memory.on_budget = self._budget_changed
            self._budget_changed(self._scheduler.engine_memory.budget)
            self._scheduler.engine_memory.excess = self._watch.excess
            self._server = Server(
                self._handle, self._connection_gone, remote.access.identify, self._chores
            )
            remote.serve_at(self._server)
            closing.callback(self._server.close)
            self._reloader = Reloader(
                self._read, config, self._scheduler, self._store, self._adopt, self._plan
            )
            closing.callback(self._reloader.close)
            # answers that are being stored are sent before the sockets close
            closing.callback(lambda: storage.call(lambda store: None).result())
            door = Door(endpoint, inherited)
            self._server.open(door)
            door.bind()
            log.info("listening", extra=fields(endpoint=endpoint, data=config.data_path))
            remote.switch.start()
            scheduler = self._scheduler
            self._watchdog = Watchdog(
                Pulse(scheduler), self._server.soon, scheduler.wake, self._status_line
            )
            self._forgetter.finish_earlier()
            scheduler.start()
            self._watchdog.start()
            closing.callback(self._watchdog.close)
            self._watch.start()
            closing.callback(self._watch.close)
            waiter = threading.Thread(target=self._wait_for_engine, name="waiter", daemon=True)
            waiter.start()
            if install_signals:
                closing.callback(self._install_signals())
            self.has_started = True
            self._server.serve(self._is_over)
        if self._scheduler.has_failed:
            raise CrashedError
        log.info("stopped")

    def _open_remote(self) -> Remote:
        config = self._config
        try:
            return Remote(
                config.data_path / "network",
                config.sampling.max_tokens,
                self._context_length,
                self._answer_later,
                self._device_revoked,
            )
        except (sqlite3.Error, NewerSchemaError) as problem:
            raise StartError(
                _("cannot open the devices: {problem}").format(problem=problem)
            ) from problem

    def _context_length(self) -> int | None:
        model = self._scheduler.model
        return None if model is None else model.context_length

    def _chores(self) -> float | None:
        """What is due now and then; returns the seconds until something is, or None."""
        moments = (self._remote.chores(), self._retention.chores())
        return min((moment for moment in moments if moment is not None), default=None)

    def stop(self) -> None:
        """Stop as SIGTERM does; a second call cancels what is still being answered."""
        self._stop_requested += 1
        self._server.bell.ring()

    def _install_signals(self) -> Callable[[], None]:
        before_fd = signal.set_wakeup_fd(self._server.bell.writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_signal: self.stop())
        signal.signal(signal.SIGHUP, lambda *_signal: self._hung_up())

        def ignore() -> None:
            # the process is ending already: one signal more must not spoil its exit code
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            signal.set_wakeup_fd(before_fd)

        return ignore

    def _hung_up(self) -> None:
        """SIGHUP: reload, or stop if it was because our terminal is gone."""
        if self._terminal and not os.isatty(0):
            self.stop()
        else:
            self._reload_requested += 1  # the lock of a reload is not for signal handlers

    def _is_over(self) -> bool:
        """Asked by the serving thread whenever the bell rang: acts on what signals asked for."""
        if self._reload_requested > self._reloads:
            self._reloads = self._reload_requested
            self._reloader.ask(lambda reply: None)
        if self._stop_requested > self._stopping:
            grace = self._config.limits.shutdown_grace_s if not self._stopping else 0.0
            self._stopping = self._stop_requested
            log.info("stopping", extra=fields(grace_s=grace))
            # answers get their time, and so does what is saved after them
            patience_us = int((grace + STOP_S) * 1e6)
            notify_systemd("STOPPING=1", f"EXTEND_TIMEOUT_USEC={patience_us}")
            self._scheduler.shut_down(grace)
        return self._engine_ended.is_set()

    def _wait_for_engine(self) -> None:
        self._scheduler.join()
        self._engine_ended.set()
        self._server.bell.ring()

    def _state_changed(self, state: State, message: str) -> None:
        status = f"STATUS={self._status_line()}"
        over = state in ("ready", "no_model")
        is_first = not self._watchdog.is_ready
        if over and (is_first or not self._reloader.is_running):  # or the reload says how it ended
            # ready: the model has answered (loading.py); without one there is nothing to wait for
            notify_systemd("READY=1", status)
        else:
            notify_systemd(status)
        self._watchdog.is_ready = self._watchdog.is_ready or over

    def _status_line(self) -> str:
        """How the daemon is, in a line for `systemctl status`."""
        scheduler = self._scheduler
        answers = scheduler.answers
        model, queue = scheduler.model, scheduler.queue_status()
        if model is None or scheduler.state != "ready":
            return scheduler.message or scheduler.state
        parts = [
            model.name,
            f"{answers.requests_served} requests, {answers.tokens_generated} tokens",
            f"{queue.active} active, {queue.waiting} waiting",
        ]
        used = human_mib(self._watch.memory().get("rss", 0))
        budget = self._watch.budget
        parts.append(f"memory {used} of {human_mib(budget)}" if budget else f"memory {used}")
        return "; ".join(parts)

    def _relieve(self) -> None:
        self._scheduler.relieve()
        self._server.soon(self._server.relieve)

    def _adopt(self, config: Config) -> None:
        """Other settings hold; the engine thread has them already."""
        set_up(config.log_level, config.log_format, with_text=config.log_text)
        if self._crashes is not None:
            self._crashes.keep = config.crash_reports
        self._remote.access.default_max_tokens = config.sampling.max_tokens
        self._retention.set_days(config.privacy.retention_days)
        self._config = config
        self._server.bell.ring()  # its chores may be others now

    def _budget_changed(self, budget: int | None) -> None:
        self._watch.budget = budget

    # --- requests ----------------------------------------------------------------------------

    def _handle(self, peer: Peer, request: protocol.Request, reply: Reply_) -> None:
        """Answer a request, or hand it on; runs on the serving thread and must not block."""
        admitted = self._remote.admit(peer, request, reply)
        if admitted is None:
            return
        device, reply = admitted
        match request:
            case protocol.Chat() | protocol.Complete():
                self._ask(peer, device, request, reply)
            case protocol.Cancel():
                self._cancel(peer, request, reply)
            case protocol.Ping():
                reply(Done(version=VERSION, message=self._scheduler.state))
            case protocol.Status():
                status = self._status()
                if device is None or device.rights == "admin":  # it tells what others do
                    status.counters = self._counters()
                reply(Done(status=status))
            case protocol.Sessions(op="delete"):
                self._forgetter.forget(Choice(request.session), reply)
            case protocol.Sessions():
                self._sessions(request, reply)
            case protocol.Forget():
                self._forgetter.handle(request, reply)
            case protocol.Models():
                self._models(peer, request, reply)
            case protocol.Budget():
                self._scheduler.set_budget(request.bytes or None, reply)
            case protocol.Reload():
                self._reloader.ask(reply)
            case protocol.Shutdown():
                reply(Done(message=_("stopping")))
                self.stop()
            case _:
                self._remote.handle(peer, request, reply)

    def _ask(
        self,
        peer: Peer,
        device: protocol.DeviceInfo | None,
        request: protocol.Chat | protocol.Complete,
        reply: Reply_,
    ) -> None:
        if device is not None:
            mailbox = self._remote.open_answer(peer, device, request, reply)
            if mailbox is None:
                return
            reply = mailbox
        job = Job(peer.client, peer.request_id, request, reply, peer.device)
        log.info(
            "asked",
            extra=fields(
                request=job.name,
                kind=type(request).__name__.lower(),
                **({"device": job.device} if job.device else {}),
                **text_fields(question=job.question),
            ),
        )
        self._scheduler.submit(job)

    def _cancel(self, peer: Peer, request: protocol.Cancel, reply: Reply_) -> None:
        client, target = peer.client, request.target.encode()
        stopped = self._stop_pulls(lambda pull: (pull.client, pull.request_id) == (client, target))
        if stopped or self._remote.cancel(client, target):
            reply(Done(message=_("cancelled")))
        else:
            self._scheduler.cancel(client, target, reply)

    def _connection_gone(self, connection: bytes) -> None:
        self._scheduler.drop_client(connection)
        self._remote.gone(connection)
        self._stop_pulls(lambda peer: peer.connection == connection)

    def _device_revoked(self, device: str) -> None:
        self._scheduler.drop_client(client_of(device))
        self._stop_pulls(lambda peer: peer.device == device)

    def _stop_pulls(self, which: Callable[[Peer], bool]) -> bool:
        """Stop those downloads; whether there was one."""
        found = [stop for peer, stop in list(self._pulls.items()) if which(peer)]
        for stop in found:
            stop.set()
        return bool(found)

    def _status(self) -> StatusInfo:
        scheduler = self._scheduler
        message = scheduler.message
        if self._storage.set_aside:
            damaged = _("(the session database was damaged and set aside as {path})")
            message += " " + damaged.format(path=self._storage.set_aside)
        if self._storage.damage:
            message += f" ({self._storage.damage})"
        last = self._crashes.last if self._crashes is not None else None
        devices_aside, network = self._remote.devices.set_aside, self._remote.switch.problem
        if devices_aside:
            damaged = _("(the devices were damaged and set aside as {path}: pair them again)")
            message += " " + damaged.format(path=devices_aside)
        if network:
            message += f" ({network})"
        return StatusInfo(
            version=VERSION,
            pid=os.getpid(),
            uptime_s=round(time.monotonic() - self._started, 1),
            state=scheduler.state,
            model=scheduler.model,
            queue=scheduler.queue_status(),
            memory={**self._watch.memory(), **scheduler.engine_memory.used},
            requests_served=scheduler.answers.requests_served,
            tokens_generated=scheduler.answers.tokens_generated,
            tokens_per_second=scheduler.answers.tokens_per_second,
            message=message.strip(),
            budget=self._watch.budget,
            crash_report=str(last) if last is not None else None,
            plan=scheduler.engine_memory.plan,
            retention=self._retention.info(),
        )

    def _counters(self) -> protocol.Counters:
        return counters(
            self._server.requests,
            self._scheduler.counts,
            bad_frames=self._server.bad_frames,
            dropped_clients=self._server.dropped_clients,
            streamed_bytes=self._scheduler.engine_memory.streamed_bytes,
        )

    def _sessions(self, request: protocol.Sessions, reply: Reply_) -> None:
        session = request.session or ""

        def work(store: SessionStore) -> Reply:
            if request.op == "list":
                return Done(sessions=store.list())
            if request.op == "show":
                found = store.show(session)
            else:
                found = store.rename(session, request.title or session)
            if found is None:
                text = _("there is no session {name!r}; see `assistant sessions list`")
                return error("not_found", text.format(name=session))
            return Done(session=found)

        self._answer_later(self._storage.call(work), reply)

    def _answer_later(self, future: "Future[Reply]", reply: Reply_) -> None:
        def answer(done: "Future[Reply]") -> None:
            problem = done.exception()
            if problem is None:
                reply(done.result())
            elif isinstance(problem, StoreError):
                reply(error(problem.code, str(problem)))
            elif isinstance(problem, DamagedError):
                reply(error("internal", str(problem)))
            else:
                log.error("request failed", exc_info=problem)
                text = _("the daemon failed: {problem}; see its log").format(problem=problem)
                reply(error("internal", text))

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
                text = _("{name} is in use; `assistant models unload` first, then remove it")
                return error("bad_request", text.format(name=name))
            self._store.remove(name)
            return Done(message=_("{name} was removed").format(name=name))

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
        stop = self._pulls[peer] = threading.Event()

        def work() -> Reply:
            try:
                reply(Progress("download", _("looking for {name}").format(name=name)))
                model = self._store.pull(name, progress=reply, cancelled=stop.is_set)
            finally:
                del self._pulls[peer]
            self._scheduler.load_if_missing()
            self._mark(model)
            return Done(model=model, message=_("{name} is here").format(name=model.name))

        self._answer_later(self._workers.submit(work), reply)
