"""Several processes on one machine, for tests of what they do together."""

import multiprocessing
import os
import pickle
import socket
import traceback

import torch

from detect.training import joined_processes

# imports torch once, for all that are started
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["detect.experiment.training"])
_PATIENCE = 120  # seconds


def run_together(function, *arguments, count=2):
    """What `function(processes, *arguments)` returns in each of `count` processes, by rank.

    Of one that raises it is the text of its exception.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    receivers, started = [], []
    for rank in range(count):
        receiver, sender = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(
            target=_run, args=(sender, function, arguments, rank, count, port), daemon=True
        )
        process.start()
        receivers.append(receiver)
        started.append(process)
    results = [
        pickle.loads(receiver.recv_bytes()) if receiver.poll(_PATIENCE) else "no answer"
        for receiver in receivers
    ]
    for process in started:
        process.join(10)
        process.kill()
    return results


def _run(sender, function, arguments, rank, count, port):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    values = (rank, rank, count, "127.0.0.1", port)
    os.environ.update(zip(names, map(str, values), strict=True))
    torch.set_num_threads(1)
    try:
        with joined_processes() as processes:
            result = function(processes, *arguments)
        sender.send_bytes(pickle.dumps(result))  # by value: a tensor would be sent as a file
    except BaseException as error:  # whatever it is, the test sees it
        text = "".join(traceback.format_exception_only(error))
        sender.send_bytes(pickle.dumps(f"{type(error).__name__}: {text}"))
