"""A pillow that reads its changes from the partitions of a topic, which the daemons of a service share.

The daemon's supervisor runs it like any pillow. It has a supervisor of its own for the tails of its
partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gevent.event import Event
from msgspec import Struct
from msgspec.structs import replace

from checkpoints import StoreWriteError, TailKey
from daemon.config.models import RestartOptions
from daemon.kafka.agreed_configuration import QUIET_SECONDS, AgreedConfiguration, Digests
from daemon.kafka.engine import Engine
from daemon.kafka.merged_status import limit_by_reader, merge_statuses
from daemon.kafka.partition_group import AssignedPart, PartitionGroup
from daemon.kafka.readers import READER
from daemon.kafka.service_status import STALE_SECONDS
from daemon.kafka.status_teller import StatusTeller
from daemon.supervision.paused_pillows import NoPauses
from daemon.supervision.supervised_tail import TailFactory
from daemon.supervision.supervisor import TICK_SECONDS, Supervisor
from pillows.change_topics.partition_keys import split_partition
from pillows.clock import Clock
from pillows.dead_letters.store import DeadLetters
from pillows.errors import FencedError, PillowError, RetryableError
from pillows.kafka.consumer import Consumer
from pillows.kafka.topics import ensure
from pillows.observer import Observer
from pillows.runtime.status import State, TailStatus

#: Time that a starting service needs until its readers run and have reported their status: their group forms
#: first.
READER_SECONDS = 3 * STALE_SECONDS


class PartitionedSettings(Struct, frozen=True, kw_only=True):
    """The values that a pillow runs with.

    Attributes:
        key: the pillow's.
        digests: of its configuration; see `AgreedConfiguration`.
        partitions: of its topic, where that is created.
        policy: when a partition's tail is stuck, restarted, failed.
        stop_timeout_seconds: one that was asked to stop is killed after this time.
    """

    key: TailKey
    digests: Digests
    partitions: int
    policy: RestartOptions
    stop_timeout_seconds: float


class PartitionedTail:
    """Runs the partitions of a pillow that this daemon gets, until it is stopped.

    Args:
        settings: the values that it runs with.
        engine: the connections that the pillows of the service share.
        make_tail: returns a factory for the tail of an assigned partition.
        dead_letters: those of this process.
        clock: for every duration and wait.
        observer: receives the pillow's states.
        part_observer: receives the events of the tails.

    Attributes:
        key: the pillow's.
        ticked_at: monotonic seconds of the last sign of life.
        state: of all partitions together.
    """

    def __init__(
        self,
        settings: PartitionedSettings,
        engine: Engine,
        make_tail: Callable[[AssignedPart], TailFactory],
        *,
        dead_letters: DeadLetters,
        clock: Clock,
        observer: Observer,
        part_observer: Observer,
    ) -> None:
        self.key = settings.key
        self.ticked_at = clock.monotonic()
        self.state = State.STARTING
        self._settings = settings
        self._engine = engine
        self._clock = clock
        self._observer = observer
        self._began_at = clock.monotonic()
        self._count = 0
        self._configuration = AgreedConfiguration(
            self.key.pillow,
            settings.digests,
            engine.control,
            lambda: engine.statuses.listen(self.key),
            clock,
        )
        self._differences: list[str] = []
        self._teller = StatusTeller(engine.statuses.tell, clock)
        self._supervisor = Supervisor(
            {},
            clock=clock,
            observer=part_observer,
            pauses=NoPauses(),
            policy=settings.policy,
            stop_timeout_seconds=settings.stop_timeout_seconds,
        )
        self._group = PartitionGroup(
            self.key,
            make_tail,
            supervisor=self._supervisor,
            control=engine.control,
            dead_letters=dead_letters,
            letters=engine.letters,
            clock=clock,
        )

    def run(self, stop: Event) -> None:
        """Run until `stop` is set, then drain the partitions and leave the group.

        Raises:
            PillowError: the membership in the group has ended, or the service runs another configuration now.
        """
        self._stand_by(stop)
        if stop.is_set():
            self._enter(State.STOPPED)
            return
        topics, pillow = self._engine.topics, self.key.pillow
        wanted = [
            topics.describe_changes(self.key.source, self._settings.partitions),
            topics.describe_letters(pillow),
        ]
        counts = ensure(self._engine.producer, self._engine.options, wanted)
        changes = topics.changes(self.key.source)
        self._count = counts[changes]
        consumer = Consumer(self._engine.options, self._engine.make_group(pillow), changes, self._group)
        self._group.consumer = consumer
        consumer.start()
        try:
            while not self._clock.wait(stop, TICK_SECONDS):
                self._tick()
                if (error := self._group.error) is not None:
                    raise _to_crash(error)
                if differences := self._configuration.find_differences():
                    raise RetryableError(_describe_differences(differences))
        finally:
            self._teller.close()
            consumer.close()  # drains and commits
            self._supervisor.stop_all()
            self._supervisor.kill_all("its pillow has ended")
            self._enter(State.STOPPED)

    def status(self) -> TailStatus:
        """Return the facts of all partitions together, those of other daemons included."""
        statuses = self._engine.statuses
        here, elsewhere = dict(self._list_statuses()), statuses.find(self.key)
        merged = merge_statuses(self.key, here, elsewhere, self._count)
        if self._differences:
            return replace(merged, reason=f"stands by: {_describe_differences(self._differences)}")
        reader = statuses.get(TailKey(READER, self.key.source))
        if reader is None and self._clock.monotonic() - self._began_at < READER_SECONDS:
            return merged
        return limit_by_reader(merged, reader)

    def _stand_by(self, stop: Event) -> None:
        """Wait until our configuration is that of the service, or `stop` is set."""
        while not stop.is_set():
            try:
                self._differences = self._configuration.settle()
            except StoreWriteError as error:
                raise RetryableError(str(error)) from error
            if not self._differences:
                return
            self.ticked_at = self._clock.monotonic()
            status = self.status()
            self._enter(status.state, status.reason)
            self._clock.wait(stop, TICK_SECONDS)

    def _tick(self) -> None:
        self.ticked_at = self._clock.monotonic()
        self._supervisor.tick()
        self._group.tick()
        status = self.status()
        self._enter(status.state, status.reason)
        self._teller.tick(lambda: [each for _, each in self._list_statuses()])

    def _list_statuses(self) -> Sequence[tuple[int, TailStatus]]:
        found: list[tuple[int, TailStatus]] = []
        for status in self._supervisor.statuses():
            _, number = split_partition(TailKey(status.pillow, status.source))
            if number is not None:
                found.append((number, status))
        return found

    def _enter(self, state: State, reason: str = "") -> None:
        if state is not self.state:
            self.state = state
            self._observer.state(self.key, state=state, reason=reason)


def _describe_differences(keys: Sequence[str]) -> str:
    names = ", ".join(f"`{key}`" for key in keys)
    return (
        f"the service runs this pillow with another configuration: {names} differs. Write the same here and "
        f"there, or stop the daemons that run it: {QUIET_SECONDS:.0f} s later the configuration here counts"
    )


def _to_crash(error: PillowError) -> PillowError:
    """Return why the membership has ended. It is retried if the brokers mistook us for two members.

    After a restart of a broker, a commit under the former member name has that effect (seen with Kafka 4.4
    and librdkafka 2.16). If there really is another member, restarts are soon given up.
    """
    return RetryableError(error.detail) if isinstance(error, FencedError) else error
