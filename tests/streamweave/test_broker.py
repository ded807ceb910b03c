"""The embedded broker between real processes."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue

from streamweave import broker

broker.register()

pytestmark = pytest.mark.timeout(60)

PRODUCERS, EACH = 2, 1000
QUEUE = Queue("work", Exchange("work", "direct"), routing_key="work")


def connect(folder: Path) -> Connection:
    return Connection("atomicfs://", transport_options=broker.transport_options(folder) | {"polling_interval": 0.02})


def produce(folder: Path, who: int, barrier: Any) -> None:
    with connect(folder) as connection:
        producer = Producer(connection, exchange=QUEUE.exchange, routing_key="work")
        barrier.wait()
        for number in range(EACH):
            producer.publish({"who": who, "number": number}, declare=[QUEUE])
            if number % 10 == 0:
                time.sleep(0.002)  # so that readers find the queue empty again and again


def consume(folder: Path, seen: Any, barrier: Any) -> None:
    def take(body: Any, message: Any) -> None:
        message.ack()
        seen.put((body["who"], body["number"]))
        if body["who"] < 0:
            connection.should_stop = True

    with connect(folder) as connection, Consumer(connection, QUEUE, callbacks=[take]):
        connection.should_stop = False
        barrier.wait()
        while not connection.should_stop:
            try:
                connection.drain_events(timeout=1)
            except TimeoutError:
                continue


def test_processes_that_write_and_read_at_once_lose_nothing_and_get_nothing_twice(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    barrier, seen = spawn.Barrier(PRODUCERS + 2), spawn.SimpleQueue()
    producers = [spawn.Process(target=produce, args=(tmp_path, who, barrier), daemon=True) for who in range(PRODUCERS)]
    consumers = [spawn.Process(target=consume, args=(tmp_path, seen, barrier), daemon=True) for _ in range(2)]
    for process in (*consumers, *producers):
        process.start()
    queue = tmp_path / "queue"
    while not queue.is_dir():
        time.sleep(0.01)
    corrupt = {
        "empty": b"",
        "cut": b'{"body": "W10=", "prop',
        "text": b"[]",
        "noise": b"\xff\xfe",
        "base": b'{"body": "a"}',
    }
    for name, content in corrupt.items():
        (queue / f"00000000000000000001_{name}.work.msg").write_bytes(content)
    expected = {(who, number) for who in range(PRODUCERS) for number in range(EACH)}
    got = [seen.get() for _ in expected]
    with connect(tmp_path) as connection:
        producer = Producer(connection, exchange=QUEUE.exchange, routing_key="work")
        for _ in consumers:  # one after the other, as either may take either's
            producer.publish({"who": -1, "number": 0})
        for process in (*producers, *consumers):
            process.join(30)
            assert process.exitcode == 0
    assert len(got) == len(expected)
    assert set(got) == expected
    assert {path.name.partition("_")[2].partition(".")[0] for path in (tmp_path / "bad").iterdir()} == set(corrupt)
    assert list(queue.iterdir()) == []


def test_messages_come_in_the_order_of_the_clock(tmp_path):
    with connect(tmp_path) as connection, connection.SimpleQueue(QUEUE) as queue:
        for number in range(20):
            queue.put(number)
    with connect(tmp_path) as connection, connection.SimpleQueue(QUEUE) as queue:
        for number in range(20):
            message = queue.get(timeout=10)
            assert message.payload == number
            message.ack()


def test_what_a_reader_had_not_acknowledged_comes_back_when_it_stops(tmp_path):
    with connect(tmp_path) as connection, connection.SimpleQueue(QUEUE) as queue:
        queue.put("work")
        assert queue.get(timeout=10).payload == "work"
    with connect(tmp_path) as connection, connection.SimpleQueue(QUEUE) as queue:
        assert queue.get(timeout=10).payload == "work"


def test_a_folder_that_cannot_be_written_refuses_at_once(tmp_path):
    (tmp_path / "queue").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="queue"), connect(tmp_path) as connection:
        connection.default_channel  # noqa: B018


def bind(folder: Path, name: str) -> None:
    with connect(folder) as connection:
        Queue(name, Exchange("news", "fanout"))(connection.default_channel).declare()


def test_listeners_that_bind_at_once_are_all_told(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    names = [f"listener{number}" for number in range(12)]
    with spawn.Pool(4) as pool:
        pool.starmap(bind, [(tmp_path, name) for name in names])
    with connect(tmp_path) as connection:
        Producer(connection, exchange=Exchange("news", "fanout")).publish("hello", declare=[Exchange("news", "fanout")])
        for name in names:
            with connection.SimpleQueue(Queue(name, Exchange("news", "fanout"))) as queue:
                assert queue.get(timeout=10).payload == "hello"


def test_a_deleted_queue_is_not_written_to_any_more(tmp_path):
    listener = Queue("listener", Exchange("news", "fanout"))
    with connect(tmp_path) as connection:
        listener(connection.default_channel).declare()
        listener(connection.default_channel).delete()
        Producer(connection, exchange=listener.exchange).publish("hello")
    assert list((tmp_path / "queue").iterdir()) == []
