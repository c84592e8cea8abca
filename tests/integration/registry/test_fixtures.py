"""The broker that the other packages' tests rely on."""

import redis


def test_the_broker_is_there_and_empty(broker_url: str) -> None:
    with redis.Redis.from_url(broker_url.replace("redis+socket://", "unix://")) as client:
        assert client.dbsize() == 0
        client.set("left", "over")
