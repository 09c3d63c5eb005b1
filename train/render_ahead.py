"""The world on a GPU, rendered while the step before is at work: what one leaves idle, the other takes."""

from collections.abc import Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread

import torch

from data_tools.world import WorldBatch, WorldViews

AHEAD = 2
"""Batches that wait, rendered."""

Item = tuple[tuple[WorldViews, WorldViews], torch.cuda.Event] | BaseException | None
"""A batch and when it is ready; what stopped the rendering; or its end."""


def render_ahead(descriptions: Iterable[WorldBatch], device: torch.device) -> Iterator[tuple[WorldViews, WorldViews]]:
    """Context and targets of each description, rendered by a thread of its own in a stream of its own."""
    queue: Queue[Item] = Queue(AHEAD)
    stopped = Event()
    thread = Thread(target=_render_all, args=(descriptions, device, queue, stopped), daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            batch, ready = item
            yield _hand_over(batch, ready, torch.cuda.current_stream(device))
    finally:
        stopped.set()
        thread.join(timeout=60)


def _render_all(descriptions: Iterable[WorldBatch], device: torch.device, queue: Queue[Item], stopped: Event) -> None:
    """What the thread does: fill the queue until the descriptions end, something breaks, or nobody asks any more."""
    try:
        stream = torch.cuda.Stream(device)
        with torch.cuda.device(device), torch.cuda.stream(stream), torch.no_grad():
            for described in descriptions:
                batch = described.to(device).render()
                if not _put(queue, (batch, stream.record_event()), stopped):
                    return
        _put(queue, None, stopped)
    except BaseException as error:
        _put(queue, error, stopped)


def _put(queue: Queue[Item], item: Item, stopped: Event) -> bool:
    """Wait for room in the queue; returns whether the item is in it, or nobody asks any more."""
    while not stopped.is_set():
        try:
            queue.put(item, timeout=1)
        except Full:
            continue
        return True
    return False


def _hand_over(batch: tuple[WorldViews, WorldViews], ready: torch.cuda.Event, stream: torch.cuda.Stream):
    """The batch, for use in another stream than the one that made it."""
    stream.wait_event(ready)
    for side in batch:
        cameras = side.views.cameras
        tensors = [side.views.images, side.views.alphas, side.views.times, cameras.camera_to_world, cameras.intrinsics]
        for tensor in (*tensors, side.depths, side.hits, side.flows, side.exits):
            tensor.record_stream(stream)  # so that its memory is not given away before this stream has read it
    return batch
