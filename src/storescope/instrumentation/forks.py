"""What a forked child cannot take over from its parent: stores, and the counts of our metrics."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.metrics import MeterProvider

from storescope import semconv
from storescope.core.forks import after_fork
from storescope.stores import PatchTarget, Role, StoreAdapter

_log = logging.getLogger(__name__)

#: The operation by which a store begins. An adapter that has it among its targets is of stores that no fork survives.
SETUP: Final = "setup_store"

#: What uses a store. Sync calls of mcpstore 1.5.x are seen where they are handed to the thread of its bridge, which no
#: child has.
_USES: Final = (Role.REQUEST, Role.OPERATION, Role.BRIDGE)


def breaks_by_fork(adapter: StoreAdapter, target: PatchTarget) -> bool:
    """Tell whether calls of a target are likely to hang in a process that was forked after a store was set up."""
    return target.role in _USES and any(other.operation == SETUP for other in adapter.targets)


class Lineage:
    """Knows whether this process was forked from one that had a store, which leaves it with none that works.

    Measured, with the agent and without: a child that calls a tool through its parent's store hangs. One that sets up
    its own hangs as well, and with mcpstore 2.3.0 the parent may crash. Where the parent had only imported mcpstore,
    the child's own store works.
    """

    def __init__(self) -> None:
        #: Whether the next call that a fork would break is the first of this process.
        self.unsure = True
        self._parent_had_store = False

    def look(self) -> None:
        """Notice such a call before it runs; warn of it, once in a process, where the parent had a store."""
        self.unsure = False
        if self._parent_had_store:
            _log.warning(
                "storescope: a store is used in process %d, which was forked after one had been set up; stores do not "
                "survive that, and this may hang: fork first, then set the store up",
                os.getpid(),
            )

    def forked(self) -> None:
        """Begin again, in a child."""
        self._parent_had_store = self._parent_had_store or not self.unsure
        self.unsure = True


lineage: Final = Lineage()

after_fork(lineage.forked)


class CountsFromZero:
    """Has our instruments start from zero in forked children, of which each would report its parent's counts again.

    Without a provider of its own it looks after that of OpenTelemetry's API.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        self._meter_provider = meter_provider
        after_fork(self.reset)

    def reset(self) -> None:
        """Forget what our instruments have counted so far.

        The SDK has no public way. What is used is how it keeps, for every reader, the series of each instrument
        (`MeterProvider._measurement_consumer._reader_storages[…]._instrument_view_instrument_matches`): what is
        missing there is begun anew. In a release that has it no longer, children go on from their parent's counts.
        """
        try:
            provider: Any = self._meter_provider or metrics.get_meter_provider()
            consumer = provider._measurement_consumer
            # Locks may have been held by threads of the parent, which do not exist here.
            consumer._lock = threading.Lock()
            for storage in consumer._reader_storages.values():
                storage._lock = threading.RLock()
                series = storage._instrument_view_instrument_matches
                for instrument in list(series):
                    if instrument.instrumentation_scope.name == semconv.SCOPE_NAME:
                        del series[instrument]
        except AttributeError:
            _log.debug("metrics of this process continue those of its parent", exc_info=True)
